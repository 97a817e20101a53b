"""Makes `scripts/` importable: the oracle's client and the models it is asked about live there."""

import sys
from pathlib import Path

import pytest

from opencoder_jax import watch

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT / "scripts") not in sys.path:
    sys.path.append(str(ROOT / "scripts"))


@pytest.fixture(autouse=True, scope="session")
def commands_in_this_process_do_not_end_it_later():
    """`watch.end` ends the process for certain some time later, which in a test is pytest's."""
    watch.EXIT_GRACE = 86_400.0
