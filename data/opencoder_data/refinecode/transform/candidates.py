"""What the finders share: a file with what its name and language say, and the candidates found in it."""

import math
import re
from collections import Counter
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import re2

Hits = list[tuple[int, int]]  # byte ranges where a finder may look


class Candidate(NamedTuple):
    """Something to replace: `placeholder` goes in the place of each piece (byte ranges, in order)."""

    placeholder: bytes
    pieces: tuple[tuple[int, int], ...]


class Source:
    """UTF-8 bytes of a file, its language and path."""

    def __init__(self, data: bytes, language: str | None, path: str):
        self.data, self.language, self.path = data, language, path

    @cached_property
    def fixture(self) -> bool:
        """Whether its path is one of tests or examples."""
        return bool(_FIXTURE.search(self.path))

    @cached_property
    def dependencies(self) -> bool:
        """Whether it lists versions of packages."""
        return self.language in _DEPENDENCY_LANGUAGES or bool(_DEPENDENCIES.search(self.path))

    def before(self, position: int, size: int = 100) -> bytes:
        """Up to `size` bytes of the line that end at `position`."""
        start = max(0, position - size)
        return self.data[max(start, self.data.rfind(b"\n", start, position) + 1) : position]

    def after(self, position: int, size: int = 60) -> bytes:
        """Up to `size` bytes of the line that begin at `position`."""
        end = self.data.find(b"\n", position, position + size)
        return self.data[position : end if end >= 0 else position + size]


_FIXTURE = re.compile(
    r"(?:^|[/_.-])(?:tests?|testing|spec|specs|fixtures?|testdata|mocks?|examples?|samples?|demo)(?:[/_.-]|\d*$)", re.I
)
# Files that name packages and their versions, in every ecosystem, and logs of changes.
_DEPENDENCIES = re.compile(
    r"""(?:^|/)(?:
      [^/]*requirements?[^/]*\.(?:txt|in|pip) | constraints[^/]*\.txt | setup\.(?:py|cfg) | pyproject\.toml | pipfile | environment[^/]*\.ya?ml
    | conda[^/]*\.ya?ml | meta\.ya?ml | package\.json | [^/]*lock\.(?:json|ya?ml) | npm-shrinkwrap\.json | bower\.json | \.tool-versions
    | (?:build|settings|dependencies|versions?|deps)\.(?:gradle|sbt|sc|py|rb|bzl|props|targets|properties|toml|json|ya?ml|txt)(?:\.kts)?
    | gradle\.properties | gradle-wrapper\.properties | [^/]+\.(?:gradle|gradle\.kts|versions\.toml|sbt|csproj|vbproj|fsproj|vcxproj|props|targets|nuspec|gemspec|podspec
    | cabal|opam|lock|resolved|ebuild|apkbuild|nix|rockspec|wxs|iss|nsi|rc|manifest|deps|spec)
    | (?:[^/]*\.)?pom(?:\.[^/]*)?\.xml | pom\.xml | ivy\.xml | build\.xml | packages\.config | [a-z]+\.config | directory\.[a-z]+\.props | global\.json | project\.json
    | paket\.[a-z]+ | nuget\.config | cargo\.toml | gemfile[^/]* | podfile | cartfile[^/]* | package\.swift | brewfile | [^/]*dockerfile[^/]*
    | docker-compose[^/]*\.ya?ml | chart\.ya?ml | values\.ya?ml | conanfile\.(?:txt|py) | conandata\.yml | vcpkg(?:-configuration)?\.json | go\.(?:mod|sum|work)
    | mix\.exs | rebar\.config | pubspec\.ya?ml | composer\.json | cpanfile | meta\.json | makefile\.pl | description | project\.toml | manifest\.toml
    | project\.clj | deps\.edn | shard\.yml | dub\.(?:json|sdl) | elm\.json | [^/]*\.nimble | v\.mod | spack\.ya?ml | package\.py | stack\.ya?ml
    | pkgbuild | apkbuild | workspace(?:\.bazel)? | module\.bazel | repositories\.bzl | versions?(?:\.[a-z]+)? | assemblyinfo\.[a-z]+ | app\.manifest
    | (?:changelog|changes|history|news|releases?|release[-_]?notes|whatsnew|upgrading|versions?)[^/]* )$""",
    re.IGNORECASE | re.VERBOSE,
)
_DEPENDENCY_LANGUAGES = frozenset((
    "pip requirements", "go module", "go checksums", "go workspace", "gemfile.lock", "maven pom", "gradle", "gradle kotlin dsl", "cabal config",
    "dockerfile", "rpm spec", "debian package control file", "opam", "npm config", "ant build system", "jar manifest", "record jar", "easybuild",
))  # fmt: skip


def words(text: str) -> frozenset[str]:
    """The words of a table."""
    return frozenset(text.split())


def compile_latin1(pattern: str, *, ignore_case: bool = False) -> Any:
    """An RE2 pattern over bytes: linear time on any input."""
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.case_sensitive = not ignore_case
    options.never_nl = False
    options.log_errors = False
    return re2.compile(pattern.encode("latin-1"), options)


def entropy(value: bytes) -> float:
    """Shannon entropy in bits per byte."""
    return -sum(n / len(value) * math.log2(n / len(value)) for n in Counter(value).values())


# A value with one of these is a template or a pointer to the secret, whatever else it holds.
_TEMPLATE = re.compile(rb"<|>|\$\{|\{\{|%\(|%s|\$\(|\*\*\*|\.\.\.|#\{|xxxx|XXXX|(.)\1{4,}")
_DUMMY = re.compile(
    rb"example|sample|dummy|fake|changeme|change_me|placeholder|your|my[_-]?(?:pass|secret|key|token)|xxx|foo|bar|1234567890|123456|12345|abcdef|abcde|abc123|123abc"
    rb"|test|todo|none|null|default|redacted|insert|secret|passw(?:or)?d?|qwert\w?|hunter2|replace|token|api|key",
    re.IGNORECASE,
)
_HEX = re.compile(rb"(?:[0-9A-Fa-f]{2})+")
_WORD = re.compile(rb"[A-Z]?[a-z]+|[A-Z]+|\d+|[^A-Za-z\d]+")


def random_looking(value: bytes, bits: float) -> bool:
    """Whether `value` has `bits` of entropy per byte and is not a dummy. Random text may hold a dummy's word by chance: then
    what is left without it must still be long and random."""
    if entropy(value) < bits or _TEMPLATE.search(value):
        return False
    strong = [m for m in _DUMMY.finditer(value) if m.group().lower() not in (b"token", b"api", b"key")]
    if not strong:
        return not _sequential(value)
    rest = _DUMMY.sub(b"", value)
    return (
        len(rest) >= max(12, 0.7 * len(value)) and entropy(rest) >= 3.2 and runs(rest) <= 2.2 and not _sequential(rest)
    )


def _sequential(value: bytes) -> bool:
    """Whether much of it counts up or down: `0123456789abcdef`, `000102030405`, `1A2B3C4D5E`."""
    pairs = [value[i : i + 2] for i in range(0, len(value), 2)]
    counted = sum(b - a == 1 for a, b in pairwise(int(p, 16) for p in pairs)) if _HEX.fullmatch(value) else 0
    if counted * 2 > len(pairs):
        return True
    if sum(abs(a - b) == 1 for a, b in pairwise(value)) * 2 > len(value):
        return True
    parts = re.sub(rb"[^0-9]", b"", value), re.sub(rb"[^A-Za-z]", b"", value)
    return all(len(part) > 3 and all(b - a == 1 for a, b in pairwise(part)) for part in parts)


def runs(value: bytes) -> float:
    """Mean length of the runs of letters of one case, digits or marks: random text has short ones, words have long ones."""
    return len(value) / max(1, len(_WORD.findall(value)))
