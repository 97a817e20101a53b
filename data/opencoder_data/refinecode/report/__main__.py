"""Command line: ``python -m opencoder_data.refinecode.report --run DIR [--compare DIR] [--tokenizer MODEL]``."""

import json
from collections.abc import Sequence

from opencoder_data import command
from opencoder_data.refinecode import storage
from opencoder_data.refinecode.report.collect import collect, compare_levels, open_run
from opencoder_data.refinecode.report.embed import pca_png
from opencoder_data.refinecode.report.render import markdown, page
from opencoder_data.refinecode.run import Run


def write_report(output: str, tokenizer: str = "", embedder: str = "hashed", compare: Sequence[str] = ()) -> dict:
    """Writes `report.html`, `report.md` and `report.json` into a finished run; returns the figures.

    `compare`: further runs, whose de-duplication is set beside this one's.
    """
    run = open_run(output)
    per_byte = _tokens_per_byte(run, tokenizer) if tokenizer else None
    report = collect(run, per_byte)
    if compare:
        report["levels"] = compare_levels([run, *map(open_run, compare)], per_byte)
    report["tokens_are"] = "measured on a sample of each language" if tokenizer else "estimated at 3.6 bytes each"
    picture = pca_png(run, embedder) if "filter" in run.config.stages else None
    storage.write_text(storage.join(output, "report.json"), json.dumps(report, indent=1) + "\n")
    storage.write_text(storage.join(output, "report.md"), markdown(report))
    storage.write_text(storage.join(output, "report.html"), page(report, picture))
    return report


def _tokens_per_byte(run: Run, tokenizer: str, files: int = 40) -> dict[str, float]:
    """Measured on the first `files` documents of each language that are met."""
    from opencoder_data.tokenizer import Tokenizer

    model = Tokenizer(tokenizer)
    seen: dict[str, list[int]] = {}
    for part in range(run.num_parts()):
        for batch in run.documents(run.config.stages[-1], part, ["language", "content"]):
            for i, language in enumerate(batch.column("language").to_pylist()):
                total = seen.setdefault(language, [0, 0, 0])
                if total[0] < files:
                    text = batch.column("content")[i].as_py()[:20_000]
                    total[0] += 1
                    total[1] += len(model.encode(text))
                    total[2] += len(text.encode())
    return {language: tokens / size for language, (_, tokens, size) in seen.items() if size}


def main(argv: list[str] | None = None) -> int:
    return command.run(lambda: _main(argv))


def _main(argv: list[str] | None) -> int:
    parser = command.Parser(prog="python -m opencoder_data.refinecode.report", description=__doc__)
    parser.add_argument("--run", required=True, metavar="DIR", help="output directory of a finished run")
    parser.add_argument(
        "--tokenizer", default="", metavar="MODEL", help="counts tokens; without it 3.6 bytes each are assumed"
    )
    parser.add_argument(
        "--embedder",
        default="hashed",
        help="hashed, codebert=DIRECTORY, or module:function from texts to an array [N, D]",
    )
    parser.add_argument(
        "--compare", action="append", default=[], metavar="DIR", help="another run, to set its de-duplication beside"
    )
    arguments = parser.parse_args(argv)
    write_report(arguments.run.rstrip("/"), arguments.tokenizer, arguments.embedder, arguments.compare)
    print(storage.join(arguments.run, "report.html"))
    return 0


if __name__ == "__main__":
    command.end(main())
