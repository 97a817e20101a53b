"""One run with everything on: what it prints and writes, that it compiles once, and how it gives up."""

from __future__ import annotations

import json
import math
import re

import jax
import numpy as np
import pytest
from opencoder_data.shard_format import ShardReader, to_batch

from opencoder_jax import model as lm
from opencoder_jax import overrides, validate
from opencoder_jax.checkpoint import load_params, read_record, resolve
from tests.opencoder_jax.training import FAST_COMPILE, VOCAB, T, Trainer, run_python, write_shards

STEPS = 12


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(trainer, what the run `full` printed): profile, HLO, evaluation on two sources, every compilation logged."""
    directory = tmp_path_factory.mktemp("train")
    held_out = [
        write_shards(directory / name, seed=seed, records=records)
        for name, seed, records in (("c", 5, 13), ("go", 6, 3))
    ]
    trainer = Trainer(directory, {"num_steps": STEPS})
    printed = trainer.run(
        "full",
        variables={"JAX_LOG_COMPILES": "1"},
        data__eval_sources=",".join(map(str, held_out)),
        eval_every=6,
        profile__steps="4:6",
        dump_hlo="true",
        log_every=4,
        grad_accum=2,
        z_loss=1e-4,
    )
    return trainer, printed


def test_step_compiles_once_and_nothing_compiles_in_the_loop(run):
    _, printed = run
    assert len(re.findall(r"Finished XLA compilation of jit\(train_step\)", printed)) == 1
    # After the first steps only the evaluation, once, and what belongs to it.
    late = re.findall(r"Finished XLA compilation of jit\((\w+)\)", printed.split("step       4/12")[1])
    assert set(late) == {"losses"}
    assert late.count("losses") == 1


def test_console(run):
    _, printed = run
    lines = printed.splitlines()
    assert "config: num_steps=12" in lines
    assert [line.split()[1] for line in lines if line.startswith("step ")] == ["1/12", "4/12", "8/12", "12/12"]
    last = next(line for line in reversed(lines) if line.startswith("step "))
    for part in ("loss", "lr 3.00e-03", "grad norm", "tokens/s", "GiB", "eta 0:00:00"):
        assert part in last
    table = [line for line in lines if line.startswith("memory per device")]
    assert [" ".join(line.split()[3:-2]) for line in table] == [
        "parameters", "optimizer state", "batch and scalars", "results not in place", "temporaries", "peak", "code",
    ]  # fmt: skip
    assert lines.index(table[0]) < lines.index(next(line for line in lines if line.startswith("step ")))


def test_metrics_rows(run):
    trainer, _ = run
    rows = trainer.rows("full")
    assert [r["step"] for r in rows] == list(range(1, STEPS + 1))
    assert all(r["tokens_per_second"] > 0 and r["host_peak_bytes"] > 0 for r in rows)
    assert rows[-1]["data_tokens"] == STEPS * 8 * T
    assert rows[-1]["data_records"] == STEPS * 8
    assert all(0 < r["z_loss"] < 0.01 for r in rows)


def test_tensorboard_holds_every_step(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trainer, _ = run
    events = EventAccumulator(str(trainer.directory / "full" / "tensorboard"))
    events.Reload()
    loss = events.Scalars("loss")
    assert [e.step for e in loss] == list(range(1, STEPS + 1))
    np.testing.assert_allclose([e.value for e in loss], trainer.losses("full"), rtol=1e-6)
    assert [e.step for e in events.Scalars("eval/go/bits_per_byte")] == [6, 12]


def test_profile_and_hlo(run):
    trainer, _ = run
    traces = list((trainer.directory / "full" / "profile").rglob("*.xplane.pb"))
    assert len(traces) == 1
    assert b"train_step" in traces[0].read_bytes()
    hlo = (trainer.directory / "full" / "hlo" / "train_step.optimized.hlo").read_text()
    assert hlo.startswith("HloModule jit_train_step")
    assert "func.func public @main" in (trainer.directory / "full" / "hlo" / "train_step.stablehlo.mlir").read_text()


def test_evaluation_is_loss_over_every_target(run):
    """Against a sum over all records by the dense formula; bits per byte with log2 V for each document's first token."""
    trainer, _ = run
    rows = [json.loads(line) for line in (trainer.directory / "full" / "eval.jsonl").read_text().splitlines()]
    assert [(r["step"], r["source"]) for r in rows] == [(6, "c"), (6, "go"), (12, "c"), (12, "go")]
    params, config, record = load_params(trainer.directory / "full")
    assert record["step"] == STEPS
    for row in rows[2:]:
        reader = ShardReader(trainer.directory / row["source"])
        batch = to_batch(np.stack([reader[i] for i in range(len(reader))]))

        def losses(params, batch=batch):
            model = lm.bind(config.model, params)
            logits = model.logits(model(batch["tokens"], batch["positions"], batch["segment_ids"]))
            hit = np.arange(VOCAB) == batch["targets"][..., None]
            each = jax.nn.logsumexp(logits, axis=-1) - (logits * hit).sum(-1)
            return (each * batch["loss_mask"]).sum()

        nats, m = float(jax.jit(losses)(params)), reader.manifest
        assert row["tokens"] == int(batch["loss_mask"].sum()) == m.num_tokens - m.num_documents
        assert row["loss"] == pytest.approx(nats / row["tokens"], rel=1e-5)
        bits = nats / math.log(2) + m.num_documents * math.log2(VOCAB)
        assert row["bits_per_byte"] == pytest.approx(bits / m.text_bytes, rel=1e-5)


def test_evaluating_a_checkpoint_gives_the_same_figures(run):
    trainer, _ = run
    arguments = [f"--checkpoint={trainer.directory / 'full'}", f"--data.eval_sources={trainer.directory / 'go'}"]
    code = "import sys; from opencoder_jax.validate import main; sys.exit(main(sys.argv[1:]))"
    got = run_python(code, *arguments, variables={"XLA_FLAGS": FAST_COMPILE})
    row = json.loads((trainer.directory / "full" / "eval.jsonl").read_text().splitlines()[-1])
    assert got["checkpoint"].endswith(f"checkpoints/{STEPS}")
    assert got["sources"] == [{"name": "go"} | {k: v for k, v in row.items() if k not in ("step", "source")}]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data.eval_sources=x"], "give one --checkpoint=RUN"),
        (["--checkpoint=/nowhere"], "/nowhere: no checkpoint there"),
        (["--checkpoint={run}"], "packed with tokenizer u, expected t"),
        (["--checkpoint={run}", "--data.eval_sources="], "nothing to evaluate on"),
    ],
)
def test_evaluation_errors(run, arguments, message, capsys):
    trainer, _ = run
    other = trainer.directory / "u"
    if not other.exists():
        write_shards(other, tokenizer_hash="u")
    arguments = [a.format(run=trainer.directory / "full") for a in arguments]
    if not any(a.startswith("--data") for a in arguments):
        arguments.append(f"--data.eval_sources={other}")
    assert validate.main(arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert message in lines[0]


def test_checkpoint_record(run):
    trainer, _ = run
    checkpoint = resolve(trainer.directory / "full")
    assert checkpoint.name == str(STEPS)
    assert resolve(checkpoint) == checkpoint
    record = read_record(checkpoint)
    assert record["data"]["position"] == STEPS * 8
    assert set(record["data"]) == {"shards", "tokenizer", "mixture", "position"}
    assert record["random"] == {"seed": 0}
    assert record["versions"]["jax"] == jax.__version__
    saved = overrides.from_json((trainer.directory / "full" / "config.json").read_text())
    assert overrides.from_dict(record["config"]) == saved
    assert (saved.num_steps, saved.grad_accum, saved.run_dir) == (STEPS, 2, str(trainer.directory / "full"))


def test_nothing_to_resume_from_is_said(tmp_path):
    with pytest.raises(ValueError, match=r"no checkpoint there; give a run directory"):
        resolve(tmp_path)


def test_non_finite_run_is_given_up(run):
    """A learning rate of 1e38 makes the weights infinite at the second step."""
    trainer, _ = run
    printed = trainer.run("diverged", code=4, schedule__peak=1e38, schedule__warmup_steps=0, max_nonfinite=3)
    assert "error: 3 non-finite updates in a row up to step 4; lower schedule.peak" in printed.splitlines()[-1]
    rows = trainer.rows("diverged")
    assert [r["nonfinite"] for r in rows] == [0, 1, 2, 3]
    assert [r["grad_norm"] is None for r in rows] == [False, True, True, True]
    with pytest.raises(ValueError, match="no checkpoint there"):
        resolve(trainer.directory / "diverged")


def test_unfinished_evaluation_shards_are_rejected_before_the_first_step(run):
    trainer, _ = run
    other = write_shards(trainer.directory / "other-tokenizer", tokenizer_hash="u")
    printed = trainer.run("rejected", code=2, data__eval_sources=other)
    assert str(other) in printed.splitlines()[-1]
    assert "tokenizer" in printed.splitlines()[-1]
    assert not (trainer.directory / "rejected").exists()
