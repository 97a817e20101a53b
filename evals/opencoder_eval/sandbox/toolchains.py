"""Which toolchains this machine has, and whether their assertions fail as they must."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from opencoder_eval.sandbox.language_checks import CHECKS
from opencoder_eval.sandbox.languages import LANGUAGES
from opencoder_eval.sandbox.results import Limits
from opencoder_eval.sandbox.sandbox import Sandbox


@dataclass(frozen=True)
class ToolchainStatus:
    """status `wrong`: installed, but it does not run, or a failing assertion passes; detail says what to change."""

    language: str
    status: Literal["installed", "missing", "wrong"]
    version: str = ""
    detail: str = ""


def toolchains(
    sandbox: Sandbox | None = None, languages: Iterable[str] | None = None, *, workers: int = 2
) -> list[ToolchainStatus]:
    """One entry per language (default: all of the table), each tried with the two programs of `language_checks`.

    Raises: KeyError for an unknown language, SandboxError.
    """
    names = list(LANGUAGES) if languages is None else list(languages)
    for name in names:
        LANGUAGES[name]
    sandbox = sandbox or Sandbox()
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(lambda name: status(sandbox, name), names))


def status(sandbox: Sandbox, language: str) -> ToolchainStatus:
    """Of one language."""
    how, check = LANGUAGES[language], CHECKS[language]
    hello = sandbox.run_language(language, check.hello)
    if hello.outcome == "not_run":
        remedy = f"apt-get install {' '.join(how.apt)}" if how.apt else "not in Debian: install it from its makers"
        return ToolchainStatus(language, "missing", detail=f"{hello.detail}; {remedy}")
    version = version_of(sandbox, language)
    if not hello.ok or ("hello" in check.hello and b"hello" not in hello.stdout):
        said = hello.detail or f"printed {hello.stdout[:60]!r}"
        return ToolchainStatus(language, "wrong", version, f"a program that prints hello does not work: {said}")
    if check.failing:
        failing = sandbox.run_language(language, check.failing)
        if failing.ok:
            return ToolchainStatus(language, "wrong", version, f"a failing check passes: {how.without_assertions}")
    return ToolchainStatus(language, "installed", version)


def version_of(sandbox: Sandbox, language: str) -> str:
    """The first line that the toolchain says of itself; empty if it is missing."""
    how = LANGUAGES[language]
    if not how.version or sandbox.which(how.version[0]) is None:
        return ""
    stdin = b"puts [info patchlevel]\n" if how.version == ("tclsh",) else b""
    limits = Limits(
        cpu_seconds=20, wall_seconds=60, memory_bytes=how.limits.memory_bytes, processes=how.limits.processes
    )
    seen = sandbox.run(how.version, stdin=stdin, limits=limits)
    lines = (seen.stdout + b"\n" + seen.stderr).decode("utf-8", "replace").strip().splitlines()
    return next((line.strip()[:70] for line in lines if line.strip() and "warning" not in line), "")
