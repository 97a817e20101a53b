"""What the tests of sandbox and benchmarks share."""

import os
import shutil
import sys
from pathlib import Path

import pytest
from opencoder_eval.__main__ import SMALL
from opencoder_eval.judging import Runner
from opencoder_eval.sandbox import LANGUAGES, Sandbox, SandboxError

sys.path.insert(0, str(Path(__file__).parent))
import made_up

REQUIRED = "OPENCODER_REQUIRE_SANDBOX"
REQUIRED_PROGRAMS = {program for name in SMALL for program in LANGUAGES[name].programs()}


@pytest.fixture(scope="session")
def sandbox():
    """A sandbox that holds here; skips with the reason, except where OPENCODER_REQUIRE_SANDBOX=1 asks for one."""
    try:
        with Sandbox() as made:
            yield made
    except SandboxError as error:
        if os.environ.get(REQUIRED) == "1":
            raise
        pytest.skip(f"no sandbox here: {error}")


@pytest.fixture(scope="session")
def needs(sandbox):
    """`needs("lua")`: skips where programs in the sandbox do not find that executable."""

    def check(*programs):
        missing = [program for program in programs if shutil.which(program, path="/usr/bin:/bin") is None]
        if missing:
            if os.environ.get(REQUIRED) == "1" and set(missing) & REQUIRED_PROGRAMS:
                pytest.fail(
                    f"{', '.join(missing)} not installed, and {REQUIRED}=1: scripts/tools/toolchains.sh --small"
                )
            pytest.skip(f"{', '.join(missing)} not installed")

    return check


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OPENCODER_BENCHMARKS", str(tmp_path))
    return made_up.write_data(tmp_path)


@pytest.fixture
def runner(sandbox: Sandbox) -> Runner:
    return Runner(sandbox)
