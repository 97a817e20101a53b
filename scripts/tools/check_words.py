"""Words that this project does not use, and what to write instead (plain American technical English).

    python scripts/tools/check_words.py [FILE ...]       every file of the checkout unless files are named

Prints `file:line: found -> write` for each; exit code 1 when there are any. Read: names, comments, docstrings and messages
of Python files, and Markdown. Not read: the log (docs/experiments/), which stays as it was written, and test samples.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

# Pattern (case is ignored, whole words) -> what to write.
WORDS: dict[str, str] = {
    r"back[ -]ends?": "backend",
    r"matrix products?": "matmul",
    r"by arithmetic": "analytical estimate",
    r"machines? that (?:is|are) not there|absent (?:machine|GPU|TPU|device|target)s?": "target without hardware (AOT)",
    r"groups? meets? once": "data-parallel all-reduce deferred to the end of accumulation",
    r"cut over": "sharded over",
    r"hand[-_ ]?over|handover": "split",
    r"the way back": "import, inverse",
    r"complaints?": "warnings, errors",
    r"honou?rs?": "supports",
    r"same_everywhere": "assert_equal_across_hosts",
    r"stand[-_ ]?ins?": "fakes",
    r"thin[-_ ]line": "minimal pipeline",
    r"drawn[-_ ]shapes?": "random shapes",
    r"poison(?:ed|s)?": "NaN-filled memory",
    r"rooms": "packages",
    r"damage[ds]?": "corrupt, corruption",
    r"at hand": "available",
    r"under way": "in progress",
    r"(?<!there )(?:is|are|was|were) no (?=[a-z])(?!obstacle|help|time|import|measurements|longer|more|less|better|worse|different|other|such|need|way|point|room|reason|wider|larger|slower|faster|later|earlier|one\b|mesh|value|limit)": "is not a",
    r"stands? (?:in|on|at|for|there|here|beside)": "is in, means",
    r"lies? (?:in|on|at|there|outside|beside|within|under|along|between|where)": "is in",
    r"bears? (?:the|a|its)": "has",
    r"folders?": "directory",
    r"sound (?:checkpoint|file|record|one)s?": "valid",
    r"refus(?:es|ed|al|als)": "unsupported, rejected, an error",
    r"take[sn]? over|took over": "warm start, replace",
}
FIND = re.compile("|".join(f"(?P<w{i}>\\b{pattern}\\b)" for i, pattern in enumerate(WORDS)), re.IGNORECASE)
# `foo_handover_bar` is three words.
SEPARATE = re.compile(r"(?<=[a-z])_(?=[a-z])")
SKIPPED = re.compile(r"^docs/experiments/|/samples/|^scripts/tools/check_words\.py$|^\.github/|^LICENSE$|^uv\.lock$")


def findings(path: Path) -> list[tuple[int, str, str]]:
    """(line, what is written, what to write) of a file."""
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        for match in FIND.finditer(line if "/" in line else SEPARATE.sub(" ", line)):
            index = int((match.lastgroup or "w0")[1:])
            found.append((number, match.group(), list(WORDS.values())[index]))
    return found


def main(arguments: list[str]) -> int:
    names = arguments or subprocess.run(
        ["git", "ls-files", "*.py", "*.md"], capture_output=True, text=True, check=True
    ).stdout.split("\n")
    count = 0
    for name in names:
        if not name or SKIPPED.search(name) or not Path(name).is_file():
            continue
        for line, written, instead in findings(Path(name)):
            print(f"{name}:{line}: {written!r} -> {instead}")
            count += 1
    if count:
        print(f"{count} words to replace", file=sys.stderr)
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
