"""Runs untrusted programs in isolation: `with Sandbox() as sandbox: sandbox.run_python(program, tests=tests)`."""

from opencoder_eval.sandbox.languages import LANGUAGES, Language
from opencoder_eval.sandbox.results import Execution, Limits, Outcome, SandboxError
from opencoder_eval.sandbox.sandbox import Sandbox
from opencoder_eval.sandbox.toolchains import ToolchainStatus, toolchains

__all__ = [
    "LANGUAGES",
    "Execution",
    "Language",
    "Limits",
    "Outcome",
    "Sandbox",
    "SandboxError",
    "ToolchainStatus",
    "toolchains",
]
