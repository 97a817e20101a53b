"""Every numeric field of a run has declared bounds; what no run can have is rejected by field, value and range."""

from __future__ import annotations

import dataclasses
import math
import re
import typing
from typing import Annotated, Any

import pytest

from opencoder_jax import overrides
from opencoder_jax.bounds import Range, check_ranges, numeric_fields
from opencoder_jax.config import RunConfig, check, replace
from tests.opencoder_jax.training import micro_config

CONFIG = micro_config("a", **{"data.eval_sources": "b:2"})
FIELDS = {field.name: field for field in numeric_fields(CONFIG)}


def with_value(name: str, value: Any) -> RunConfig:
    """CONFIG with one field set, whatever the value."""

    def put(config: Any, path: list[str]) -> Any:
        head, index = path[0].partition("[")[::2]
        old = getattr(config, head)
        if index:
            items = list(old)
            items[int(index[:-1])] = put(items[int(index[:-1])], path[1:])
            return dataclasses.replace(config, **{head: tuple(items)})
        return dataclasses.replace(config, **{head: put(old, path[1:]) if path[1:] else value})

    return put(CONFIG, name.split("."))


def number_fields_of_types(kind: Any, prefix: str = "") -> set[str]:
    """Names by the types alone, with any annotation stripped, `[0]` for the first of several sources."""
    names = set()
    for field, hint in typing.get_type_hints(kind).items():
        if hint in (int, float):
            names.add(f"{prefix}{field}")
        elif dataclasses.is_dataclass(hint):
            names |= number_fields_of_types(hint, f"{prefix}{field}.")
        elif typing.get_origin(hint) is tuple:
            names |= number_fields_of_types(typing.get_args(hint)[0], f"{prefix}{field}[0].")
    return names


def test_every_numeric_field_has_a_range():
    assert set(FIELDS) == number_fields_of_types(RunConfig)
    assert len(FIELDS) > 40
    for field in FIELDS.values():
        assert field.range is not None, field.name
        assert math.isfinite(field.range.minimum) and math.isfinite(field.range.maximum)


def test_a_field_without_a_range_is_found():
    @dataclasses.dataclass(frozen=True)
    class New:
        bounded: Annotated[int, Range(0, 3)] = 1
        forgotten: float = 1.0

    assert [f.range is None for f in numeric_fields(New())] == [False, True]


@pytest.mark.parametrize("name", FIELDS)
def test_what_is_out_of_range_is_rejected_by_field_value_and_range(name):
    field = FIELDS[name]
    assert field.range is not None
    huge = 10**40
    bad: list[Any] = [-2, huge, -huge, True, None, "1"]
    if field.kind is float:
        bad += [math.nan, math.inf, -math.inf, -1.0, 1e39, -1e-30]
    else:
        bad += [1.5, math.nan, math.inf]
    bad += [v for v in (-1, 0) if v not in field.range]
    check(CONFIG)
    for value in bad:
        with pytest.raises(ValueError, match="must be") as error:
            check(with_value(name, value))
        assert str(error.value).startswith(
            f"{name}={value!r} must be " if isinstance(value, str) else f"{name}={value} "
        )
        if type(value) in (int, field.kind):
            assert str(field.range) in str(error.value)
    for value in (field.range.minimum, field.range.maximum, *field.range.also):
        check_ranges(with_value(name, field.kind(value)))


@pytest.mark.parametrize("name", ["num_steps", "model.num_layers", "data.seq_len", "optimizer.eps", "model.rope_theta",
    "model.norm_eps", "schedule.peak", "data.max_epochs", "model.init_std", "grad_accum", "max_nonfinite"])  # fmt: skip
def test_zero_is_not_for_these(name):
    with pytest.raises(ValueError, match=rf"^{name.replace('.', '[.]')}=0"):
        check(with_value(name, FIELDS[name].kind(0)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schedule.final": "0", "schedule.decay_steps": "5"}, "schedule.final=0.0 cannot be reached"),
        # The ratio is not 0 in fp64, but is in fp32, which computes the schedule.
        ({"schedule.final": "1e-30", "schedule.peak": "1e30", "schedule.decay_steps": "5"}, "cannot be reached"),
        ({"schedule.kind": "cosine", "schedule.decay_steps": "5"}, "schedule.decay_steps=5 has no effect"),
        ({"schedule.kind": "cosine", "schedule.peak": "0", "schedule.final": "0"}, "schedule.peak=0.0 must be"),
        ({"schedule.final": "1"}, "schedule.peak=0.003 is below schedule.final=1"),
        ({"optimizer.b2": "1.5"}, "optimizer.b2=1.5 must be"),
        ({"optimizer.b2": "0.99999999"}, "optimizer.b2=0.99999999 must be"),  # 1 in fp32
        ({"optimizer.eps": "1e-50"}, "optimizer.eps=1e-50 must be"),  # 0 in fp32
        ({"schedule.peak": "nan"}, "schedule.peak=nan must be"),
        ({"data.sources": "a:nan"}, "data.sources[0].weight=nan must be"),
        ({"data.eval_sources": "a,b:-1"}, "data.eval_sources[1].weight=-1.0 must be"),
        ({"data.verify": "never"}, "data.verify='never': choose full, size or always"),
        ({"data.global_batch_size": "16777216", "data.seq_len": "1024", "model.max_seq_len": "1024"}, "32 bits"),
        ({"mesh.data": "0"}, "mesh.data=0 must be at least 1"),
    ],
)  # fmt: skip
def test_what_fields_say_together(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        check(overrides.apply(CONFIG, changes))
    assert "\n" not in str(error.value)


def test_cosine_to_zero_and_wsd_without_decay_are_fine():
    for changes in ({"schedule.kind": "cosine", "schedule.final": "0"}, {"schedule.final": "0"}, {"mesh.fsdp": "-1"}):
        check(overrides.apply(CONFIG, changes))


def test_annotations_are_plain_numbers_to_others():
    """A parser that knows nothing of ranges sees int and float."""
    assert typing.get_type_hints(RunConfig)["num_steps"] is int
    assert overrides.apply(CONFIG, {"optimizer.b1": "0.5"}).optimizer.b1 == 0.5


def test_saved_configurations_are_read_whatever_their_values():
    """A run of an earlier version may have been saved with values that are rejected now."""
    old = replace(CONFIG, optimizer=replace(CONFIG.optimizer, eps=0.0))
    assert overrides.from_json(overrides.to_json(old)) == old


def test_fields_of_a_newer_version_are_named():
    fields = dataclasses.asdict(CONFIG)
    del fields["max_silence_minutes"]  # of this version: takes its default
    assert overrides.from_dict({**fields, "data": fields["data"] | {"sources": [], "eval_sources": []}})
    for name, changed in {
        "mup": fields | {"mup": 1},
        "model.qk_norm": fields | {"model": fields["model"] | {"qk_norm": True}},
        "data.eval_sources[0].split": fields | {"data": fields["data"] | {"sources": [], "eval_sources": [{"path": "x", "split": 1}]}},
    }.items():  # fmt: skip
        with pytest.raises(ValueError, match="newer version") as error:
            overrides.from_dict(changed)
        assert f"unknown field {name}:" in str(error.value)
    for broken in ([], fields | {"model": 3}, fields | {"model": {}}):
        with pytest.raises(ValueError, match="not a saved configuration"):
            overrides.from_dict(broken)  # type: ignore[arg-type]
