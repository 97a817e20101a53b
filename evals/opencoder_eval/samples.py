"""Files of samples: one JSON object a line, in EvalPlus' form, so that the official tools can score them.

`task_id` and `solution` are what EvalPlus reads; beside them `sample` (index among those of the task), `benchmark`, `mode`,
`prompt`, `answer` (as the model gave it), `finish_reason`, and `rejected` where the server would not answer. The settings
that made them are in `FILE.settings.json`: samples of other settings are never mixed with them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from opencoder_eval.client import Sampling


@dataclass(frozen=True)
class Settings:
    """All that decides the samples of a run. limit: only the first tasks, 0 for all."""

    benchmark: str
    mode: str
    model: str
    samples: int = 1
    sampling: Sampling = field(default_factory=Sampling)
    limit: int = 0

    def to_json(self) -> dict[str, Any]:
        """Nested dictionaries."""
        return asdict(self)


def settings_path(samples: Path) -> Path:
    """Where the settings of a file of samples are."""
    return samples.with_name(samples.name + ".settings.json")


def read_settings(samples: Path) -> dict[str, Any] | None:
    """The recorded settings, None for a file that other tools made. Raises: ValueError for a broken one."""
    path = settings_path(samples)
    if not path.exists():
        return None
    try:
        return dict(json.loads(path.read_text()))
    except ValueError as error:
        raise ValueError(f"{path}: {error}; delete it and the samples, and generate again") from error


def check_settings(samples: Path, settings: Settings) -> None:
    """Records the settings with a new file of samples, or compares. More samples or tasks than before are not difference.

    Raises: ValueError that names the fields that differ.
    """
    new, old = settings.to_json(), read_settings(samples)
    if old is not None:
        flat_new, flat_old = _flat(new), _flat(old)
        differ = [
            f"{k} ({flat_old.get(k)!r}, now {v!r})"
            for k, v in flat_new.items()
            if k not in ("samples", "limit") and flat_old.get(k) != v
        ]
        if differ:
            raise ValueError(f"{samples} was made with another {', '.join(differ)}; give another --out")
    elif samples.exists() and samples.stat().st_size:
        raise ValueError(f"{samples} exists without {settings_path(samples).name}; give another --out")
    samples.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(settings_path(samples), json.dumps(new, indent=1) + "\n")


def write_atomically(path: Path, text: str) -> None:
    """The file appears whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def drop_torn_line(path: Path) -> None:
    """A writer that was killed leaves part of a line at the end of a JSONL file; it is cut off."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        at = size
        while at > 0:
            step = min(1 << 16, at)
            file.seek(at - step)
            newline = file.read(step).rfind(b"\n")
            if newline >= 0:
                at = at - step + newline + 1
                break
            at -= step
        if at < size:
            file.truncate(at)


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The samples, `sample` filled in by order where other tools left it out.

    Raises: ValueError that names the file, the line and what is wrong with it.
    """
    counts: dict[str, int] = {}
    if not path.is_file():
        raise ValueError(f"{path}: no such file of samples; run `opencoder eval generate` first")
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ValueError(
                    f"{path}:{number}: {error}; delete that line and run the same command again"
                ) from error
            if not isinstance(row, dict) or not isinstance(row.get("task_id"), str | int):
                raise ValueError(f"{path}:{number}: not a sample: it has no task_id")
            if not any(isinstance(row.get(f), str) for f in ("solution", "completion", "answer")) and not row.get(
                "rejected"
            ):
                raise ValueError(f"{path}:{number}: not a sample: it has neither solution, completion nor answer")
            row["task_id"] = str(row["task_id"])
            index = counts.get(row["task_id"], 0)
            counts[row["task_id"]] = index + 1
            row.setdefault("sample", index)
            yield row


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in values.items():
        out |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return out
