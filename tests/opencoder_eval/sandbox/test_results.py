import pytest
from opencoder_eval.sandbox import Execution


@pytest.mark.parametrize("outcome", ["failed", "timeout", "memory", "output_limit", "compile_error", "not_run"])
def test_only_the_outcome_ok_passes(outcome):
    assert Execution("ok").ok and not Execution(outcome).ok
