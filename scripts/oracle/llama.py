"""The oracle: Hugging Face's LlamaForCausalLM, run in an environment of its own (`make oracle`).

    .venv-oracle/bin/python -P scripts/oracle/llama.py COMMAND --model DIRECTORY --input IN.npz --output OUT.npz

COMMAND    input arrays                               output arrays
gradients  tokens, targets int64 [B,T], mask [B,T]    logits fp32 [B,T,V], loss (summed), grad.NAME for every weight
train      tokens, targets, mask [steps,B,T], rates   losses [steps] (mean per token before each update)
time       tokens, targets, mask [B,T], rate, steps,  seconds [steps] of forward, backward, clip and AdamW;
           threads                                    losses [steps]
generate   tokens [B,T] left-padded, mask, steps      greedy [B,steps]
parity     the first, second and fourth in one: arrays as there, under gradients.NAME, train.NAME, generate.NAME
tokenize   texts (unicode array)                      ids (one flat array), lengths, padded [n, longest], mask, ...
harness    contexts, texts, prompts (unicode arrays), lm-eval's prefix token; log-likelihood of each text after its
           steps                                      context and of all texts by themselves; continuations of prompts

All in fp32. DIRECTORY holds config.json and safetensors. `-P` keeps this directory and the repository's root off the path:
transformers looks for a package called `kernels`.
"""

import argparse
import json
import time

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
import transformers  # pyright: ignore[reportMissingImports]


def load(directory):
    model = transformers.AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="sdpa"
    )
    assert type(model).__name__ == "LlamaForCausalLM", type(model)
    return model


def summed_loss(model, tokens, targets, mask):
    logits = model(input_ids=tokens).logits
    nll = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    return (nll * mask.flatten()).sum(), logits


def optimizer(model, b1, b2, eps, weight_decay):
    """AdamW; norm scales are not decayed."""
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=(b1, b2), eps=eps)


def update(model, opt, tokens, targets, mask, rate, clip):
    loss, _ = summed_loss(model, tokens, targets, mask)
    loss = loss / mask.sum()
    opt.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
    for group in opt.param_groups:
        group["lr"] = rate
    opt.step()
    return loss.item()


def gradients(model, data):
    loss, logits = summed_loss(model, data["tokens"], data["targets"], data["mask"])
    loss.backward()
    grads = {f"grad.{name}": p.grad.numpy() for name, p in model.named_parameters()}
    return {"logits": logits.detach().numpy(), "loss": loss.item(), **grads}


def train(model, data):
    opt = optimizer(model, *data["adamw"].tolist())
    clip = data["clip"].item()
    steps = zip(data["tokens"], data["targets"], data["mask"], data["rates"].tolist(), strict=True)
    return {"losses": np.array([update(model, opt, *step, clip) for step in steps])}


def time_steps(model, data):
    torch.set_num_threads(int(data["threads"]))
    opt = optimizer(model, *data["adamw"].tolist())
    seconds, losses = [], []
    for _ in range(int(data["steps"])):
        start = time.perf_counter()
        args = (data["tokens"], data["targets"], data["mask"], float(data["rate"]), data["clip"].item())
        losses.append(update(model, opt, *args))
        seconds.append(time.perf_counter() - start)
    return {"seconds": np.array(seconds), "losses": np.array(losses)}


def generate(model, data):
    """eos is switched off, so that every row has `steps` tokens."""
    steps = int(data["steps"])
    model.generation_config.eos_token_id = None
    out = model.generate(
        input_ids=data["tokens"],
        attention_mask=data["mask"].long(),
        do_sample=False,
        max_new_tokens=steps,
        pad_token_id=0,
    )
    return {"greedy": out[:, -steps:].numpy()}


def tokenize(directory, data):
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    assert tokenizer.is_fast
    texts = [str(t) for t in data["texts"]]
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    decoded = [tokenizer.decode(row) for row in ids]
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hi"}], tokenize=False, add_generation_prompt=True
    )
    batch = tokenizer(
        texts, padding=True, return_tensors="np"
    )  # as users call it, special tokens left to the tokenizer
    return {
        "padded": batch["input_ids"],
        "mask": batch["attention_mask"],
        "ids": np.array([i for row in ids for i in row], np.int64),
        "lengths": np.array([len(row) for row in ids]),
        "decoded": np.array(json.dumps(decoded)),
        "chat": np.array(chat),
        "special": np.array(json.dumps([tokenizer.eos_token, tokenizer.pad_token, tokenizer.eos_token_id])),
        "bos": np.array([tokenizer.bos_token_id]),
    }


def harness(directory, data):
    """lm-eval's own Hugging Face backend on the directory, as `lm_eval --model hf --model_args pretrained=DIRECTORY` makes it."""
    from lm_eval.api.instance import Instance  # pyright: ignore[reportMissingImports]
    from lm_eval.models.huggingface import HFLM  # pyright: ignore[reportMissingImports]

    scorer = HFLM(pretrained=directory, device="cpu", dtype="float32", batch_size=3)

    def ask(kind, arguments):
        requests = [Instance(kind, {}, a, i) for i, a in enumerate(arguments)]
        return getattr(scorer, kind)(requests)

    texts, prompts = [str(t) for t in data["texts"]], [str(t) for t in data["prompts"]]
    pairs = list(zip(map(str, data["contexts"]), texts, strict=True))
    options = {"until": [], "do_sample": False, "max_gen_toks": int(data["steps"])}
    return {
        "prefix": np.array([scorer.prefix_token_id]),
        "likelihoods": np.array([score for score, _ in ask("loglikelihood", pairs)]),
        "rolling": np.array(ask("loglikelihood_rolling", [(t,) for t in texts])),
        "generated": np.array(json.dumps(ask("generate_until", [(p, dict(options)) for p in prompts]))),
    }


def parity(directory, data):
    results = {}
    for command in (gradients, train, generate):
        prefix = command.__name__ + "."
        mine = {name.removeprefix(prefix): array for name, array in data.items() if name.startswith(prefix)}
        results |= {prefix + name: array for name, array in command(load(directory), mine).items()}
    return results


COMMANDS = {"gradients": gradients, "train": train, "time": time_steps, "generate": generate}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=[*COMMANDS, "parity", "tokenize", "harness"])
    for name in ("model", "input", "output"):
        parser.add_argument(f"--{name}", required=True)
    args = parser.parse_args()
    arrays = np.load(args.input)
    if args.command in ("tokenize", "harness"):
        result = {"tokenize": tokenize, "harness": harness}[args.command](args.model, arrays)
    else:
        tensors = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        one = args.command != "parity"
        result = COMMANDS[args.command](load(args.model), tensors) if one else parity(args.model, tensors)
    np.savez(args.output, **result)


if __name__ == "__main__":
    main()
