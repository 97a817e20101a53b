"""Configurations: typed overrides, errors in one line, the resolved configuration held by a golden file."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from opencoder_jax import overrides
from opencoder_jax.config import RunConfig, SourceConfig, check, replace
from opencoder_jax.train import main
from tests.opencoder_jax.training import ROOT, micro_config

GOLDEN = Path(__file__).parent / "golden" / "configs"


def dump(config: RunConfig) -> str:
    return "".join(f"{name}={value}\n" for name, value in overrides.leaves(config))


@pytest.mark.parametrize("name", overrides.config_names())
def test_resolved_configuration_is_golden(name):
    """A change shows in review. To accept one: remove the file, run again, and commit what is written."""
    path = GOLDEN / f"{name}.txt"
    text = dump(overrides.load(name))
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        pytest.fail(f"{path.relative_to(ROOT)} did not exist; written, look at it and commit it")
    assert text == path.read_text()


@pytest.mark.parametrize("name", overrides.config_names())
def test_configurations_survive_json_and_are_valid(name):
    config = overrides.load(name)
    assert overrides.from_json(overrides.to_json(config)) == config
    check(config)


def test_at_most_eighty_fields():
    assert len(list(overrides.leaves(micro_config()))) <= 80


def test_values_take_the_type_of_their_field():
    config = overrides.parse(
        [
            "--config=tiny",
            "--mesh.fsdp=8",
            "--schedule.peak=1e-4",
            "--num_steps=12_000",
            "--data.shuffle=false",
            "--dump_hlo",
            "--data.sources=a/b:0.25,c:d:3,e",
            "--model.remat=full",
        ]
    )
    assert (config.mesh.fsdp, config.schedule.peak, config.num_steps) == (8, 1e-4, 12_000)
    assert (config.data.shuffle, config.dump_hlo, config.model.remat) == (False, True, "full")
    assert config.data.sources == (SourceConfig("a/b", 0.25), SourceConfig("c:d", 3.0), SourceConfig("e", 1.0))
    # Nothing else changed.
    base = overrides.load("tiny")
    assert len(overrides.changes(base, config)) == 7
    assert "mesh.fsdp: -1 -> 8" in overrides.changes(base, config)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config=tiny", "--mesh.fdsp=8"], "--mesh.fdsp: no such field; did you mean --mesh.fsdp?"),
        (["--config=tiny", "--batch_size=8"], "did you mean --data.global_batch_size?"),
        (["--config=tinny"], "--config=tinny: no such configuration; did you mean tiny?"),
        (["--num_steps=3"], "no --config=NAME given; there are: "),
        (["--config=tiny", "--num_steps=many"], "--num_steps=many: not an int"),
        (["--config=tiny", "--num_steps=1.5"], "--num_steps=1.5: not an int"),
        (["--config=tiny", "--schedule.peak=high"], "--schedule.peak=high: not a float"),
        (["--config=tiny", "--data.shuffle=maybe"], "--data.shuffle=maybe: not a true or false"),
        (["--config=tiny", "--num_steps"], "--num_steps: needs a value"),
        (["--config=tiny", "num_steps=3"], "argument 'num_steps=3': write --field=value"),
        (["--config=tiny", "--seed=1", "--seed=2"], "--seed is given twice"),
        (["--config=tiny", "--mesh=8"], "--mesh: no such field"),
        (["--config=tiny", "--log_every=0"], "log_every=0 must be at least 1"),
        (["--config=tiny", "--num_steps=0"], "num_steps=0 must be at least 1"),
        (["--config=tiny", "--profile.steps=5"], "profile.steps='5': write start:stop"),
        (["--config=tiny", "--profile.steps=5:5"], "profile.steps='5:5': write start:stop"),
        (["--config=tiny", "--data.seq_len=100000"], "exceeds model.max_seq_len="),
        (["--config=tiny", "--checkpoint.verify=maybe"], "checkpoint.verify='maybe': choose full or size"),
        (["--config=tiny", "--schedule.peak=1e-9"], "schedule.peak=1e-09 is below schedule.final=1e-05"),
        (["--config=tiny", "--model.remat=some"], "model.remat='some': choose one of none"),
        (["--config=tiny", "--schedule.kind=linear"], "schedule.kind='linear': choose wsd or cosine"),
        (["--config=tiny", "--mesh.data=3"], "axis sizes must multiply to 1"),
        (["--config=tiny", "--grad_accum=3"], "is not divisible by grad_accum=3"),
        (
            ["--config=tiny", "--model.num_kv_heads=3"],
            "model.num_query_heads=4 is not a multiple of model.num_kv_heads=3",
        ),
        (["--config=tiny", "--model.num_layers=0"], "model.num_layers=0 must be at least 1"),
        (
            ["--config=tiny", "--model.compute_dtype=float17"],
            "model.compute_dtype='float17': choose float32 or bfloat16",
        ),
        ([f"--config={__file__}"], "has no attribute 'config'"),
        (["--config=tiny"], "data.sources is empty: give shard directories"),
        (["--config=tiny", "--data.sources=/nowhere"], "/nowhere"),
    ],
    ids=lambda value: " ".join(value[1:]) or value[0] if isinstance(value, list) else "",
)
def test_errors_are_one_line_and_exit_code_2(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert message in lines[0]
    assert list(tmp_path.glob("runs/*")) == [], "a rejected run leaves nothing behind"


def test_a_path_names_a_configuration_too(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from opencoder_jax.overrides import load\nfrom opencoder_jax.config import replace\n"
        "def config():\n    return replace(load('tiny'), name='mine')\n"
    )
    assert overrides.parse([f"--config={path}"]) == replace(overrides.load("tiny"), name="mine")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def config():\n    return 1 / 0\n", "line 2: ZeroDivisionError"),
        ("def config():\n    return {}\n", "makes a dict, no RunConfig"),
        ("def config(:\n", "SyntaxError"),
        ("from opencoder_jax.overrides import load\ndef config():\n    return load('tinny')\n", "did you mean tiny?"),
    ],
)
def test_a_file_that_is_not_a_configuration(tmp_path, text, message):
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        overrides.load(str(path))
    assert "\n" not in str(error.value)


def test_every_field_is_reachable_by_its_dotted_name():
    config = micro_config("x")
    for name, value in overrides.leaves(config):
        if isinstance(value, tuple):
            continue
        same = overrides.apply(config, {name: str(value)})
        assert same == config, name
    assert dataclasses.is_dataclass(config)
