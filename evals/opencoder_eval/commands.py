"""`opencoder eval generate | score | run | likelihood | selfcheck | report | list`: from a model to a table of scores.

Results are in `--out`: a directory per benchmark with `samples.jsonl`, `results.jsonl` and `summary.json`, and the report.
Exit codes: 0 done, 1 a self-check failed, 2 rejected (one line says why), 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from opencoder_eval import benchmarks
from opencoder_eval import samples as sample_files
from opencoder_eval.benchmarks.base import MODES, Benchmark
from opencoder_eval.client import Client, Rejected, Sampling
from opencoder_eval.extraction import EXTRACTIONS
from opencoder_eval.generate import check_mode, generate
from opencoder_eval.judging import Runner
from opencoder_eval.sandbox import Sandbox
from opencoder_eval.score import Summary, score

EXIT_FAILED, EXIT_REJECTED, EXIT_INTERRUPTED = 1, 2, 130


class Parser(argparse.ArgumentParser):
    """One line for an error, no abbreviations."""

    def error(self, message: str) -> NoReturn:
        print(f"error: {message} (--help lists the options)", file=sys.stderr)
        raise SystemExit(EXIT_REJECTED)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # pyright: ignore[reportAttributeAccessIssue]
    try:
        options = _parser().parse_args(arguments)
        work: Callable[[argparse.Namespace], int] = options.work
        return work(options)
    except KeyboardInterrupt:
        print("stopped by Ctrl-C; the same command goes on from here", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        return EXIT_REJECTED
    except (ValueError, OSError) as error:
        named = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
        print("error: " + " ".join(named.split("\n")).strip(), file=sys.stderr)
        return EXIT_REJECTED


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="opencoder eval", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, parser_class=Parser)
    for name, work, text, groups in (
        ("generate", _generate, "ask a model for samples", (_which, _model)),
        ("score", _score, "judge samples", (_which, _judging)),
        ("run", _run, "both, and the report", (_which, _model, _judging)),
        ("likelihood", _likelihood, "bits per byte of the reference solutions", (_which, _model)),
        ("selfcheck", _selfcheck, "canonical solutions must pass, broken ones must fail", (_which, _judging)),
        ("report", _report, "HTML and Markdown from results that are there", ()),
    ):
        sub = commands.add_parser(name, help=text, allow_abbrev=False)
        for group in groups:
            group(sub)
        sub.add_argument("--out", type=Path, default=Path("eval-results"), help="directory of the results")
        sub.set_defaults(work=work)
    sub = commands.choices["score"]
    sub.add_argument("--samples", type=Path, help="a file of samples (default: OUT/BENCHMARK/samples.jsonl)")
    for name in ("run", "likelihood"):
        commands.choices[name].add_argument(
            "--checkpoint", help="a run, Hugging Face directory or GGUF file: served while the command runs"
        )
    sub = commands.choices["selfcheck"]
    sub.add_argument(
        "--mutants", action=argparse.BooleanOptionalAction, default=True, help="also judge broken solutions"
    )
    sub = commands.add_parser("list", help="the benchmarks", allow_abbrev=False)
    sub.set_defaults(work=_list)
    return parser


def _which(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--benchmarks", "--benchmark", required=True, help="names or groups, comma-separated; `list` has them"
    )
    sub.add_argument("--limit", type=_positive, default=0, help="only the first N tasks of each (the report says so)")
    sub.add_argument(
        "--extraction", choices=EXTRACTIONS, default="", help="how code is found (default: the benchmark's way)"
    )


def _model(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--endpoint", default="", help="an OpenAI-compatible server: http://HOST:PORT")
    sub.add_argument("--model", default="", help="its name there (default: the one that is served)")
    sub.add_argument("--mode", choices=MODES, default="", help="completion for base models, chat for instruct ones")
    sub.add_argument("--n", type=_positive, default=1, help="samples a task")
    sub.add_argument("--temperature", type=float, default=0.0)
    sub.add_argument("--top-p", type=float, default=1.0)
    sub.add_argument("--max-tokens", type=_positive, default=1024)
    sub.add_argument("--seed", type=int, help="makes samples reproducible where the server supports it")
    sub.add_argument("--concurrency", type=_positive, default=16, help="requests at once")
    sub.add_argument("--timeout", type=float, default=600.0, help="seconds for one answer")
    sub.add_argument("--retries", type=int, default=5, help="how often a failed request is sent again")


def _judging(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--workers", type=int, default=0, help="programs at once (default: one a core)")
    sub.add_argument("--python", help="interpreter for Python programs (BigCodeBench needs one with its libraries)")
    sub.add_argument("--read-only", action="append", default=[], help="a further directory that programs may read")
    sub.add_argument("--k", type=_ks, default=(1, 10, 100), help="of pass@k, comma-separated")
    sub.add_argument("--canonical", action=argparse.BooleanOptionalAction, default=True, help="judge references first")
    sub.add_argument("--judge-endpoint", default="", help="server of the model that judges CodeArena")
    sub.add_argument("--judge-model", default="", help="its name there")
    sub.add_argument("--unsafe-no-sandbox", action="store_true", help="run untrusted programs WITHOUT isolation")


# --- commands ---------------------------------------------------------------------------------------------------------


def _list(_: argparse.Namespace) -> int:
    for name in benchmarks.names():
        benchmark = benchmarks.get(name)
        print(f"{name:<34}{benchmark.title}  [{', '.join(benchmark.modes)}]")
    return 0


def _generate(options: argparse.Namespace) -> int:
    chosen = [benchmarks.get(name) for name in benchmarks.expand(options.benchmarks)]
    if not options.endpoint:
        raise ValueError("give --endpoint=http://HOST:PORT of an OpenAI-compatible server")
    with _client(options, options.endpoint) as client:
        for benchmark in chosen:
            _generate_one(options, benchmark, client, options.out / benchmark.name / "samples.jsonl")
    return 0


def _score(options: argparse.Namespace) -> int:
    chosen = [benchmarks.get(name) for name in benchmarks.expand(options.benchmarks)]
    if options.samples and len(chosen) > 1:
        raise ValueError("--samples is of one benchmark; name one in --benchmarks")
    with _sandbox(options) as sandbox:
        for benchmark in chosen:
            out = options.out / benchmark.name
            path = options.samples or _shared_samples(options.out, benchmark)
            print(_score_one(options, benchmark, path, out, _runner(options, sandbox)).line())
    return _report(options)


def _run(options: argparse.Namespace) -> int:
    from opencoder_eval.serving import served

    chosen = [benchmarks.get(name) for name in benchmarks.expand(options.benchmarks)]
    if bool(options.endpoint) == bool(options.checkpoint):
        raise ValueError("give either --checkpoint=PATH or --endpoint=http://HOST:PORT")
    ready = []
    for benchmark in chosen:  # what is missing is found before hours of generation
        try:
            benchmark.tasks()
            ready.append(benchmark)
        except ValueError as error:
            if options.benchmarks != "all":
                raise
            print(f"{benchmark.name}: not run: {error}", file=sys.stderr)
    with _sandbox(options) as sandbox:
        with served(options.checkpoint, options.endpoint) as endpoint, _client(options, endpoint) as client:
            for benchmark in ready:
                if not options.mode or options.mode in benchmark.modes:
                    path = options.out / benchmarks.prompts_of(benchmark.name) / "samples.jsonl"
                    _generate_one(options, benchmark, client, path)
        for benchmark in ready:
            path = _shared_samples(options.out, benchmark)
            if path.exists():
                summary = _score_one(options, benchmark, path, options.out / benchmark.name, _runner(options, sandbox))
                print(summary.line())
    return _report(options)


def _likelihood(options: argparse.Namespace) -> int:
    from opencoder_eval.likelihood import bits_per_byte
    from opencoder_eval.serving import served

    chosen = [benchmarks.get(name) for name in benchmarks.expand(options.benchmarks)]
    if bool(options.endpoint) == bool(options.checkpoint):
        raise ValueError("give either --checkpoint=PATH or --endpoint=http://HOST:PORT")
    with served(options.checkpoint, options.endpoint) as endpoint, _client(options, endpoint) as client:
        for benchmark in chosen:
            made = bits_per_byte(
                benchmark,
                client,
                options.out / benchmark.name,
                limit=options.limit,
                concurrency=options.concurrency,
                progress=_Progress(f"{benchmark.name}: scoring"),
            )
            rejected = f", {made['rejected']} rejected by the server" if made["rejected"] else ""
            print(f"{benchmark.name}: {made['bits_per_byte']:.4f} bits per byte, {made['tasks']} tasks{rejected}")
    return _report(options)


def _selfcheck(options: argparse.Namespace) -> int:
    from opencoder_eval.selfcheck import selfcheck

    failed = False
    with _sandbox(options) as sandbox:
        for name in benchmarks.expand(options.benchmarks):
            benchmark = benchmarks.get(name)
            if not benchmark.has_canonical:
                print(f"{name}: no canonical solutions")
                continue
            for row in selfcheck(
                benchmark, Runner(sandbox), limit=options.limit, mutants=options.mutants, workers=options.workers
            ):
                print(f"{name}: {row.line()}")
                failed |= not row.ok
    return EXIT_FAILED if failed else 0


def _report(options: argparse.Namespace) -> int:
    from opencoder_eval.report import write_report

    for path in write_report(options.out):
        print(path)
    return 0


# --- parts ------------------------------------------------------------------------------------------------------------


def _generate_one(options: argparse.Namespace, benchmark: Benchmark, client: Client, path: Path) -> None:
    settings = sample_files.Settings(
        benchmark=benchmarks.prompts_of(benchmark.name),
        mode=check_mode(benchmark, options.mode),
        model=client.model,
        samples=options.n,
        sampling=Sampling(options.temperature, options.top_p, options.max_tokens, options.seed),
        limit=options.limit,
    )
    if settings.samples > 1 and not options.temperature > 0:
        raise ValueError("several greedy samples are equal; give --temperature above 0, or --n=1")
    began = time.monotonic()
    asked = benchmarks.get(settings.benchmark)
    made = generate(
        asked,
        client,
        path,
        settings,
        extraction=options.extraction,
        concurrency=options.concurrency,
        progress=_Progress(f"{asked.name}: generating"),
    )
    rejected = f", {made.rejected} rejected by the server" if made.rejected else ""
    print(
        f"{asked.name}: {made.new} samples in {time.monotonic() - began:.0f} s, {made.kept} were there{rejected}: {path}"
    )


def _score_one(options: argparse.Namespace, benchmark: Benchmark, path: Path, out: Path, runner: Runner) -> Summary:
    from opencoder_eval.versions import versions_for

    show = _Progress(f"{benchmark.name}: scoring")
    return score(
        benchmark,
        path,
        runner,
        out=out,
        ks=options.k,
        extraction=options.extraction,
        workers=options.workers,
        canonical=options.canonical,
        versions=versions_for(benchmark, runner),
        progress=lambda what, done, total: show(done, total),
    )


def _shared_samples(out: Path, benchmark: Benchmark) -> Path:
    """The benchmark's own samples, or those of the one with the same prompts."""
    own = out / benchmark.name / "samples.jsonl"
    return own if own.exists() else out / benchmarks.prompts_of(benchmark.name) / "samples.jsonl"


def _client(options: argparse.Namespace, endpoint: str) -> Client:
    return Client(endpoint, model=options.model, timeout=options.timeout, retries=options.retries)


def _runner(options: argparse.Namespace, sandbox: Sandbox) -> Runner:
    if not options.judge_endpoint:
        return Runner(sandbox)
    judge = Client(options.judge_endpoint, model=options.judge_model)
    sampling = Sampling(max_tokens=4096)

    def ask(messages: Sequence[Mapping[str, str]]) -> str:
        try:
            return judge.chat(messages, sampling).text
        except Rejected as error:  # of one question, too long for the judge, say: no label
            return f"rejected: {error}"

    return Runner(sandbox, ask=ask)


def _sandbox(options: argparse.Namespace) -> Sandbox:
    return Sandbox(unsafe=options.unsafe_no_sandbox, python=options.python, read_only=options.read_only)


class _Progress:
    """A line on a terminal, now and then one elsewhere."""

    def __init__(self, what: str):
        self._what, self._last = what, time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if done < total and now - self._last < (0.2 if sys.stderr.isatty() else 30):
            return
        self._last = now
        if sys.stderr.isatty():
            print(f"\r{self._what} {done}/{total}", end="\n" if done == total else "", file=sys.stderr, flush=True)
        elif done < total:
            print(f"{self._what} {done}/{total}", file=sys.stderr, flush=True)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value}: at least 1")
    return value


def _ks(text: str) -> tuple[int, ...]:
    return tuple(_positive(part) for part in text.split(","))


if __name__ == "__main__":
    sys.exit(main())
