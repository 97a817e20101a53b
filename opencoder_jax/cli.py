"""One command line for everything: `opencoder COMMAND ...`, also as `python -m opencoder_jax COMMAND ...`.

A command is a module that runs as a program; this one only finds it, so that help needs no JAX and no data engine.
`python -m opencoder_jax.train --config=8b` and `opencoder train --config=8b` are the same. Exit codes are the command's own; 2 for
one that does not exist.
"""

from __future__ import annotations

import difflib
import runpy
import sys
from collections.abc import Sequence
from typing import NamedTuple


class Command(NamedTuple):
    """module: runs as a program, with `arguments` before the user's. help: one line."""

    module: str
    help: str
    arguments: tuple[str, ...] = ()


COMMANDS: dict[str, Command] = {
    "train": Command("opencoder_jax.train", "train, resume or anneal a model: --config=8b --data.sources=SHARDS:1"),
    "validate": Command("opencoder_jax.validate", "loss and bits per byte of a checkpoint on held-out shards"),
    "plan": Command("opencoder_jax.perf.plan", "memory, collectives and step time on a target without hardware (AOT)"),
    "sweep": Command("opencoder_jax.perf.sweep.sweep", "one mesh against another, timed"),
    "profile": Command("opencoder_jax.perf.profile", "where the time of a step goes"),
    "generate": Command("opencoder_jax.inference.generate", "complete prompts with a checkpoint"),
    "serve": Command("opencoder_jax.inference.server", "an OpenAI-compatible server over a checkpoint"),
    "export": Command("opencoder_jax.hf.export", "a checkpoint as a Hugging Face directory or a GGUF file"),
    "import": Command("opencoder_jax.hf.importer", "a Hugging Face directory or a GGUF file as a checkpoint"),
    "data refinecode": Command("opencoder_data.refinecode", "raw files to clean documents (RefineCode)"),
    "data split": Command("opencoder_data.split", "documents to training sources and a held-out set"),
    "data pack": Command("opencoder_data.pack", "documents to token shards"),
    "data why": Command("opencoder_data.pipeline.why", "why a file was dropped"),
    "data report": Command("opencoder_data.refinecode.report", "what a RefineCode run kept and dropped, and why"),
    "eval run": Command("opencoder_eval.commands", "a model's scores, with a report", ("run",)),
    "eval generate": Command("opencoder_eval.commands", "a model's samples for benchmarks", ("generate",)),
    "eval score": Command("opencoder_eval.commands", "judge samples in the sandbox", ("score",)),
    "eval likelihood": Command("opencoder_eval.commands", "bits per byte of reference solutions", ("likelihood",)),
    "eval selfcheck": Command("opencoder_eval.commands", "canonical solutions pass, broken ones fail", ("selfcheck",)),
    "eval report": Command("opencoder_eval.commands", "HTML and Markdown of results", ("report",)),
    "eval download": Command("opencoder_eval.commands", "benchmark data by name, checked", ("download",)),
    "eval list": Command("opencoder_eval.commands", "the benchmarks", ("list",)),
    "eval toolchains": Command("opencoder_eval", "which languages the sandbox can run here", ("toolchains",)),
    "tokenizer train": Command("opencoder_data.tokenizer", "train a tokenizer", ("train",)),
    "tokenizer info": Command("opencoder_data.tokenizer", "describe a tokenizer", ("info",)),
}
EXIT_USAGE = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command that `arguments` (default: the process's) begin with; returns 0 for help, 2 for an unknown one."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    words = [a for a in arguments[:2] if not a.startswith("-")]
    name = next((n for n in (" ".join(words), *words[:1]) if n in COMMANDS), None)
    if name is None:
        group = {n: c for n, c in COMMANDS.items() if n.startswith(f"{words[0]} ")} if words else COMMANDS
        if not words or (group and len(words) == 1):
            print(usage(group), file=sys.stdout if not words or "--help" in arguments else sys.stderr)
            return 0 if not words or "--help" in arguments else EXIT_USAGE
        near = difflib.get_close_matches(" ".join(words), COMMANDS, 1, 0.4) or difflib.get_close_matches(
            words[0], COMMANDS, 1, 0.4
        )
        hint = f"did you mean {near[0]}? " if near else ""
        print(f"error: {' '.join(words)}: no such command; {hint}there are: {', '.join(COMMANDS)}", file=sys.stderr)
        return EXIT_USAGE
    from opencoder_data.command import interruptible_imports

    interruptible_imports()
    command = COMMANDS[name]
    sys.argv = [command.module, *command.arguments, *arguments[len(name.split()) :]]
    runpy.run_module(command.module, run_name="__main__", alter_sys=True)
    return 0


def usage(commands: dict[str, Command]) -> str:
    """The commands, a line each."""
    lines = ["usage: opencoder COMMAND [--help] [--field=value ...]", ""]
    return "\n".join([*lines, *(f"  {name:<18}{command.help}" for name, command in commands.items())])


if __name__ == "__main__":
    sys.exit(main())
