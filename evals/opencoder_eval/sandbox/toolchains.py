"""Which toolchains this machine has, and whether their assertions fail as they must."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ToolchainStatus:
    """status `wrong`: installed, but a failing assertion would pass or a feature is missing; detail says what to change."""

    language: str
    status: Literal["installed", "missing", "wrong"]
    version: str = ""
    detail: str = ""


def toolchains() -> list[ToolchainStatus]:
    """One entry per language of the table."""
    raise NotImplementedError
