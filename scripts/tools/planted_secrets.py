"""How many planted secrets are found: random ones of each kind, in comments, literals and settings of 20 languages.

    python scripts/tools/planted_secrets.py                    # this code
    python scripts/tools/planted_secrets.py --than=3fe22b2     # beside the code of a commit

A secret is found when it is in the text no more. Each language's lines are real syntax: what is left is parsed again where
there is a grammar, and texts that parsed before and do not after are counted. Values come from a seed.
"""

import argparse
import base64
import importlib.util
import random
import string
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from opencoder_data.refinecode.transform.personal import remove_personal
from opencoder_data.refinecode.transform.regions import Locator

ALPHANUMERIC = string.ascii_letters + string.digits
Remove = Callable[[str, str, str], tuple[str, dict[str, int]]]

# language -> (comment, a statement with a literal); `{}` is the text, `{name}` the variable.
CODE = {
    "python": ("# {}\n", "{name} = '{}'\n"),
    "javascript": ("// {}\n", "const {name} = '{}';\n"),
    "typescript": ("/* {} */\n", "const {name}: string = '{}';\n"),
    "java": ("// {}\n", 'class A {{ String {name} = "{}"; }}\n'),
    "c": ("/* {} */\n", 'static const char *{name} = "{}";\n'),
    "cpp": ("// {}\n", 'const std::string {name} = "{}";\n'),
    "csharp": ("// {}\n", 'class A {{ string {name} = "{}"; }}\n'),
    "go": ("package p\n\n// {}\n", 'package p\n\nvar {name} = "{}"\n'),
    "rust": ("// {}\n", 'const {name}: &str = "{}";\n'),
    "ruby": ("# {}\n", "{name} = '{}'\n"),
    "php": ("<?php\n// {}\n", "<?php\n${name} = '{}';\n"),
    "kotlin": ("// {}\n", 'val {name} = "{}"\n'),
    "scala": ("// {}\n", 'object A {{ val {name} = "{}" }}\n'),
    "swift": ("// {}\n", 'let {name} = "{}"\n'),
    "r": ("# {}\n", '{name} <- "{}"\n'),
    "perl": ("# {}\n", "my ${name} = '{}';\n"),
    "lua": ("-- {}\n", 'local {name} = "{}"\n'),
    "haskell": ("-- {}\n", '{name} = "{}"\n'),
    "shell": ("# {}\n", '{name}="{}"\n'),
    "json": ("", '{{"{name}": "{}"}}\n'),
    "yaml": ("# {}\n", '{name}: "{}"\n'),
}  # fmt: skip
UNQUOTED = {
    "dotenv": "{name}={}\n",
    "java properties": "app.{name} = {}\n",
    "ini": "[a]\n{name} = {}\n",
    "yaml": "a:\n  {name}: {}\n",
    "shell": "export {name}={}\n",
}


def secrets(rng: random.Random) -> Iterator[tuple[str, str, str, str]]:
    """(kind, variable, secret, text around it with `{}` in its place)."""

    def text(size: int, letters: str = ALPHANUMERIC) -> str:
        return "".join(rng.choice(letters) for _ in range(size))

    def mixed(size: int) -> str:
        while True:
            value = text(size)
            if any(c.isdigit() for c in value) and any(c.isalpha() for c in value):
                return value

    first, last = (
        rng.choice(("jane", "omar", "li.wei", "a_roe", "k-braun")),
        rng.choice(("widgets", "uni-ost", "norbit")),
    )
    address = f"{first}{rng.randrange(100)}@{last}.{rng.choice(('com', 'de', 'org', 'co.uk', 'io'))}"
    host = f"{rng.choice((45, 93, 151, 203))}.{rng.randrange(10, 250)}.{rng.randrange(10, 250)}.{rng.randrange(1, 250)}"
    yield "email", "contact", address, "{}"
    yield "email in prose", "note", address, "write to {} about it"
    yield "ipv4", "host", host, "{}"
    yield "ipv4 in url", "base", host, "http://{}:8080/x"
    yield "ipv6", "host", ":".join(["2607", "f8b0", *(text(4, "123456789abcdef") for _ in range(6))]), "{}"
    yield "aws id", "ident", "AKIA" + text(16, string.ascii_uppercase + string.digits), "{}"
    yield "github token", "ident", "ghp_" + mixed(36), "{}"
    yield "password", "password", mixed(rng.randrange(10, 16)), "{}"
    yield "api key", "api_key", text(32, "0123456789abcdef"), "{}"
    yield "secret", "client_secret", mixed(40), "{}"
    yield "url password", "url", mixed(12), "postgres://svc:{}@db.norbit.io/x"
    yield "connection string", "conn", mixed(12), "Server=db;User Id=sa;Password={};Encrypt=true"
    yield "web hook", "hook", mixed(24), "https://hooks.slack.com/services/T02AB3CD4/B05EF6GH7/{}"
    yield "bearer", "header", mixed(40), "Authorization: Bearer {}"
    body = base64.b64encode(rng.randbytes(48 * 4)).decode()
    lines = "\\n".join(body[i : i + 64] for i in range(0, len(body), 64))
    yield "private key", "pem", lines, "-----BEGIN RSA PRIVATE KEY-----\\n{}\\n-----END RSA PRIVATE KEY-----\\n"


def plants(seed: int, rounds: int) -> Iterator[tuple[str, str, str, str]]:
    """(kind, language, secret, text of a file)."""
    rng = random.Random(seed)
    for _ in range(rounds):
        for language, (comment, statement) in CODE.items():
            for kind, name, secret, around in secrets(rng):
                yield kind, language, secret, statement.format(around.format(secret), name=name)
                if comment and kind not in ("password", "api key", "secret", "private key"):
                    yield f"{kind}, comment", language, secret, comment.format(around.format(secret))
        for language, line in UNQUOTED.items():
            for kind, name, secret, around in secrets(rng):
                if around == "{}" and kind in ("password", "api key", "secret", "email", "ipv4"):
                    yield f"{kind}, unquoted", language, secret, line.format(secret, name=name)


def of_commit(commit: str) -> Remove:
    """`remove_personal` of a commit at which it was one module and knew no languages."""
    path = "data/opencoder_data/refinecode/transform/personal.py"
    code = subprocess.run(["git", "show", f"{commit}:{path}"], check=True, capture_output=True).stdout
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory, "personal.py")
        file.write_bytes(code)
        spec = importlib.util.spec_from_file_location("personal_of_commit", file)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return lambda text, path, language: module.remove_personal(text, path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--than", help="commit to compare with")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    codes: dict[str, Remove] = {"this code": remove_personal}
    if options.than:
        codes[options.than] = of_commit(options.than)
    planted, found, broken = Counter(), {name: Counter() for name in codes}, Counter()
    for kind, language, secret, text in plants(options.seed, options.rounds):
        planted[kind] += 1
        for name, remove in codes.items():
            after, _ = remove(text, "src/a", language)
            found[name][kind] += secret not in after
            locator = Locator(language)
            broken[name] += bool(after != text and locator.parses(text.encode()) and not locator.parses(after.encode()))
    print(f"{'kind':32}{'planted':>9}" + "".join(f"{name:>12}" for name in codes))
    for kind in sorted(planted):
        print(f"{kind:32}{planted[kind]:9}" + "".join(f"{found[name][kind] / planted[kind]:12.3f}" for name in codes))
    print(
        f"{'all':32}{planted.total():9}" + "".join(f"{found[name].total() / planted.total():12.3f}" for name in codes)
    )
    print(f"{'parsed before and not after':41}" + "".join(f"{broken[name]:12}" for name in codes))
    return 0


if __name__ == "__main__":
    sys.exit(main())
