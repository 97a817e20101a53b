"""Whatever a user gets wrong, in every command: one line that says what to change, and exit code 2."""

from __future__ import annotations

import signal
import sys

import pytest

from opencoder_jax import cli

NOWHERE = "/nowhere/at-all"
TINY = "--config=tiny"
# Command -> what a user may type, and a part of what is said.
WRONG: dict[str, list[tuple[list[str], str]]] = {
    "train": [
        ([], "no --config=NAME given; there are: "),
        (["--confg=tiny"], "no --config=NAME given, did you mean it by --confg?"),
        (["--config=tinny"], "did you mean tiny?"),
        ([TINY, "--mesh.fdsp=2"], "did you mean --mesh.fsdp?"),
        ([TINY, "--num_steps=many"], "not an int"),
        ([TINY, "--num_steps"], "needs a value"),
        ([TINY, "x"], "write --field=value"),
        ([TINY, f"--data.sources={NOWHERE}"], NOWHERE),
    ],
    "validate": [([], "give one --checkpoint=RUN"), ([f"--checkpoint={NOWHERE}"], f"{NOWHERE}: no checkpoint there")],
    "plan": [
        ([TINY], "no --topology=NAME given, for example"),
        ([TINY, "--topologi=h100:8"], "did you mean it by --topologi?"),
        ([TINY, "--topology=h10:8"], "did you mean h100?"),
    ],
    "sweep": [
        ([TINY], "no --meshes given"),
        ([TINY, "--meshs=fsdp=1"], "did you mean --meshes?"),
        ([TINY, "--meshes=foo=1"], "write AXIS=SIZE"),
        ([TINY, "--meshes=fsdp=1", "--steps=x"], "--steps=x: write a number"),
    ],
    "profile": [([TINY, "--profile.steps=x"], "not a START:STOP"), (["--trace=x"], "--trace=DIR needs --hlo=FILE")],
    "generate": [
        ([], "required: --checkpoint, --prompt"),
        (["--chekpoint=x", "--prompt=x"], "--chekpoint: no such option; did you mean --checkpoint?"),
        ([f"--checkpoint={NOWHERE}", "--prompt=x"], f"{NOWHERE}: no checkpoint there"),
        ([f"--checkpoint={NOWHERE}", "--prompt=x", "--seed=abc"], "invalid int value: 'abc'"),
    ],
    "export": [
        ([], "required: --checkpoint, --to"),
        ([f"--checkpoint={NOWHERE}", "--to=x"], f"{NOWHERE}: no checkpoint there"),
    ],
    "import": [(["--form=x", "--to=x"], "did you mean --from?"), ([f"--from={NOWHERE}", "--to=x"], NOWHERE)],
    "data refinecode": [
        ([], "required: --input, --output"),
        (["--inptu=3"], "--inptu: no such option; did you mean --input?"),
        ([f"--input={NOWHERE}", "--output=out"], NOWHERE),
        ([f"--input={NOWHERE}", "--output=out", "--engine.worker=3"], "did you mean engine.workers?"),
        ([f"--input={NOWHERE}", "--output=out", "--engine.workers=many"], "--engine.workers=many: not an int"),
    ],
    "data split": [
        ([f"--run={NOWHERE}", "--output=out"], NOWHERE),
        (["--rnu=x", "--output=out"], "did you mean --run?"),
        ([f"--run={NOWHERE}", "--output=out", "--holdout=abc"], "invalid float value"),
    ],
    "data pack": [
        ([f"--input={NOWHERE}", f"--tokenizer={NOWHERE}", "--output=out"], NOWHERE),
        (["--inptu=x"], "did you mean --input?"),
        (["--input=x", "--tokenizer=x", "--output=out", "--seq_len=many"], "invalid int value: 'many'"),
    ],
    "data report": [([f"--run={NOWHERE}"], NOWHERE), (["--rum=3"], "did you mean --run?")],
    "tokenizer train": [
        ([f"--input={NOWHERE}", "--vocab_size=512", "--output=out"], NOWHERE),
        (["--vocabsize=3"], "did you mean --vocab_size?"),
    ],
    "tokenizer info": [([NOWHERE], NOWHERE)],
}


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch, tmp_path):
    """A command sets signal handlers and arguments of the process."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.chdir(tmp_path)
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.filterwarnings("ignore:.*found in sys.modules")
@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        (name, arguments, said)
        for name in cli.COMMANDS
        for arguments, said in WRONG.get(name, [(["--no-such-option=1"], "")])
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_a_user_error_is_one_line_and_exit_code_2(name, arguments, said, capsys, tmp_path):
    with pytest.raises(SystemExit) as end:
        cli.main([*name.split(), *arguments])
    error = capsys.readouterr().err
    assert end.value.code == 2, error
    lines = error.splitlines()
    assert len(lines) == 1, error
    assert lines[0].startswith("error: ")
    assert said in lines[0]
    assert list(tmp_path.iterdir()) == [], "a rejected command leaves nothing behind"


def test_the_walk_knows_every_command_of_today():
    assert set(WRONG) <= set(cli.COMMANDS)
