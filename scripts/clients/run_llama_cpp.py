"""llama.cpp on a GGUF file, run in an environment of its own (`make .venv-llamacpp/ready`).

    .venv-llamacpp/bin/python scripts/clients/run_llama_cpp.py COMMAND --model FILE.gguf --input IN.json --output OUT.json

COMMAND   input                                   output
tokenize  texts; special (names are tokens)       ids: a list for each text
describe  -                                       eos, eot, bos, fim_pre, fim_suf, fim_mid, add_bos, n_vocab, template, ends
logits    ids: a list for each prompt             logits of the last token of each
generate  ids: a list for each prompt; steps      tokens, greedy, ended by llama.cpp's own ends
"""

from __future__ import annotations

import argparse
import ctypes
import json
from pathlib import Path

import llama_cpp  # pyright: ignore[reportMissingImports]


def load(path: str):
    """Keys and values in fp32, for comparisons."""
    kept = {"type_k": llama_cpp.GGML_TYPE_F32, "type_v": llama_cpp.GGML_TYPE_F32}
    return llama_cpp.Llama(path, n_ctx=0, n_threads=2, verbose=False, seed=0, **kept)


def load_vocabulary(path: str):
    """The model without its tensors."""
    llama_cpp.llama_backend_init()
    options = llama_cpp.llama_model_default_params()
    options.vocab_only = True
    model = llama_cpp.llama_model_load_from_file(path.encode(), options)
    assert model, path
    return model


def tokenize(path: str, given: dict) -> dict:
    vocab = llama_cpp.llama_model_get_vocab(load_vocabulary(path))
    return {"ids": [_ids(vocab, text.encode(), given.get("special", False)) for text in given["texts"]]}


def _ids(vocab, data: bytes, special: bool) -> list[int]:
    capacity = len(data) + 16
    tokens = (llama_cpp.llama_token * capacity)()
    count = llama_cpp.llama_tokenize(vocab, data, len(data), tokens, capacity, False, special)
    assert count >= 0, count
    return list(tokens[:count])


def describe(path: str, given: dict) -> dict:
    model = load_vocabulary(path)
    vocab = llama_cpp.llama_model_get_vocab(model)
    template = llama_cpp.llama_model_chat_template(model, None)
    names = ("eos", "eot", "bos", "fim_pre", "fim_suf", "fim_mid", "fim_rep", "fim_sep")
    count = llama_cpp.llama_vocab_n_tokens(vocab)
    return {name: getattr(llama_cpp, f"llama_vocab_{name}")(vocab) for name in names} | {
        "add_bos": bool(llama_cpp.llama_vocab_get_add_bos(vocab)),
        "n_vocab": count,
        "template": template.decode() if template else None,
        "ends": [i for i in range(count) if llama_cpp.llama_vocab_is_eog(vocab, i)],
    }


def logits(path: str, given: dict) -> dict:
    model = load(path)
    rows = []
    for ids in given["ids"]:
        model.reset()
        model.eval(ids)
        pointer = llama_cpp.llama_get_logits_ith(model.ctx, -1)
        rows.append(list(ctypes.cast(pointer, ctypes.POINTER(ctypes.c_float * model.n_vocab())).contents))
    return {"logits": rows}


def generate(path: str, given: dict) -> dict:
    model = load(path)
    rows = []
    for ids in given["ids"]:
        tokens = []
        for token in model.generate(ids, temp=0.0, repeat_penalty=1.0):
            tokens.append(int(token))
            if len(tokens) == given["steps"] or llama_cpp.llama_vocab_is_eog(
                llama_cpp.llama_model_get_vocab(model.model), token
            ):
                break
        rows.append(tokens)
    return {"tokens": rows}


COMMANDS = {"tokenize": tokenize, "describe": describe, "logits": logits, "generate": generate}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=COMMANDS)
    for name in ("model", "input", "output"):
        parser.add_argument(f"--{name}", required=True)
    args = parser.parse_args()
    given = json.loads(Path(args.input).read_text())
    Path(args.output).write_text(json.dumps(COMMANDS[args.command](args.model, given)))


if __name__ == "__main__":
    main()
