"""Tokens, passwords and other secrets: by the form of their issuer, or by a name, an option or an address that says what they are."""

import re
from collections.abc import Iterator

from opencoder_data.refinecode.transform.candidates import (
    Candidate,
    Hits,
    Source,
    compile_latin1,
    entropy,
    random_looking,
    runs,
)

TOKEN, PASSWORD, KEY = b"<token>", b"<password>", b"<key>"

# How tokens begin, and their form from there.
TOKEN_MARKS = (
    r"\b(?:AKIA|ASIA|gh[pousr]_|github_pat_|glpat-|xox[abeoprs]-|AIza|[rs]k_live_|SG\.|npm_|pypi-Ag|hf_|sk-|ya29\.|dop_v1_|shpat_|eyJ"
    r"|[0-9]{8,10}:AA|AGE-SECRET-KEY-|whsec_|EAACEdEose0cBA|dapi[a-f0-9]|key-[a-f0-9]|sq0(?:atp|csp)-|lin_api_|rubygems_|glsa_)"
)
_TOKEN = re.compile(
    rb"(?:AKIA|ASIA)[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}|glpat-[A-Za-z0-9_-]{20}"
    rb"|xox[abeoprs]-[0-9]{6,}-[0-9A-Za-z-]{10,100}|AIza[0-9A-Za-z_-]{35}|[rs]k_live_[0-9a-zA-Z]{20,99}|SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}"
    rb"|npm_[A-Za-z0-9]{36}|pypi-AgEIcHlwaS5vcmc[A-Za-z0-9_-]{50,250}|hf_[A-Za-z0-9]{34}|sk-(?:proj-|ant-)?[A-Za-z0-9_-]{40,180}"
    rb"|ya29\.[0-9A-Za-z_-]{30,200}|dop_v1_[a-f0-9]{64}|shpat_[a-fA-F0-9]{32}|eyJ[A-Za-z0-9_-]{14,}\.eyJ[A-Za-z0-9_-]{14,}\.[A-Za-z0-9_-]{20,}"
    rb"|[0-9]{8,10}:AA[A-Za-z0-9_-]{33}|AGE-SECRET-KEY-1[0-9A-Z]{58}|whsec_[A-Za-z0-9]{32,64}|EAACEdEose0cBA[0-9A-Za-z]{20,}|dapi[a-f0-9]{32}"
    rb"|key-[a-f0-9]{32}|sq0(?:atp|csp)-[0-9A-Za-z_-]{22,43}|lin_api_[A-Za-z0-9]{40}|rubygems_[a-f0-9]{48}|glsa_[A-Za-z0-9]{32}_[a-f0-9]{8}"
)
_MAX_TOKEN = 4000
_URL_PASSWORD = compile_latin1(r"://[A-Za-z0-9._%+-]{0,64}:([^\s/:@\"'<>(){}$]{4,80})@[A-Za-z0-9.\[]")

_PASSWORDS = r"passw(?:or)?d|passwd|pwd|passphrase|passwort|contrase\xc3\xb1a"
_KEYS = (
    r"secret(?:[_-]?key)?(?:[_-]?base)?|api[_-]?key|auth[_-]?token|access[_-]?token|access[_-]?key|private[_-]?key|client[_-]?secret|token"
    r"|encryption[_-]?key|signing[_-]?key|account[_-]?key|shared[_-]?(?:access[_-]?)?key|master[_-]?key|auth[_-]?key|service[_-]?key"
    r"|deploy[_-]?key|app[_-]?key|rediscli_auth"
)
_COMMANDS = r"mysql\w*|mariadb(?:-\w+)?|sshpass|curl|wget|docker|podman|helm|az|oc|buildah|skopeo|crane|redis-cli|7z[a-z]?|openssl|machine|identified"
_HOOKS = (
    r"hooks\.slack\.com/|discord(?:app)?\.com/api/|\.office(?:365)?\.com/webhook|hooks\.zapier\.com/|maker\.ifttt\.com/|chat\.googleapis\.com/"
    r"|(?:feishu\.cn|larksuite\.com)/open-apis/bot/|oapi\.dingtalk\.com/|qyapi\.weixin\.qq\.com/|api\.telegram\.org/bot|[?&]sig=|/hooks/"
)
_HEADERS = r"authorization|x-(?:api|auth|access)-(?:key|token)|private-token|x-vault-token"
# What may precede a secret; the patterns below look at what follows, in Python's syntax.
TRIGGERS = rf"(?i:{_PASSWORDS}|{_KEYS}|\b(?:{_COMMANDS})\b|{_HOOKS}|{_HEADERS})"
_TRIGGER = re.compile(rf"({_PASSWORDS}|{_KEYS})|({_COMMANDS})|({_HOOKS})|({_HEADERS})".encode(), re.IGNORECASE)
_REACH = 400  # bytes after a trigger that are looked at, but for what a value takes

_ASSIGN = rb"(?:=>|:=|=|:|,|<-)"
_QUOTED = re.compile(
    # A closing quote or bracket, a type, an operator (or none: #define), a prefix of the literal.
    rb"[\"']?\]?(?:\[\w{0,8}\])?(?:(?:\s{0,3}:\s{0,3}[&'\w\[\]?.*]{1,30})?\s{0,4}"
    + _ASSIGN
    + rb"\s{0,4}|\s{1,4})[bruBRU@$]{0,2}"
    rb"(?:\"([^\s\"\\<>{}$()]{8,200})\"|'([^\s'\\<>{}$()]{8,200})')"
)
# Settings, shells, query strings, connection strings, XML elements.
_UNQUOTED = re.compile(rb"(?:[ \t]{0,4}(?:=>|:=|=|:)[ \t]{0,4}|>)([^\s\"'\\<>{}$()&;,`|\[\]]{8,200})")
_ELEMENT = re.compile(rb"[\"'][^<>\n]{0,60}>([^\s\"'\\<>{}$()]{8,200})<")
# {"key": NAME, "value": VALUE} and the reverse, in JSON, YAML, HCL, XML.
_FIELD = rb"(?:key|name|id|field|variable|param(?:eter)?(?:_?key)?|property|env(?:_?var)?|option|setting|label)"
_VALUE_FIELD = rb"(?:value|val|default|parametervalue|content|data)"
_COLON = rb"[\"']?\s{0,4}(?:=>|=|:)\s{0,4}[\"']?"
_FIELD_BEFORE = re.compile(rb"(?:^|[^\w])" + _FIELD + _COLON + rb"[\w./-]{0,60}\Z", re.IGNORECASE)
_VALUE_AFTER = re.compile(
    rb"[\"']?\s{0,4}[,;\n]?[\s-]{0,40}[\"']?" + _VALUE_FIELD + _COLON + rb"([^\s\"'\\<>{}$(),]{8,200})", re.IGNORECASE
)
_VALUE_BEFORE = re.compile(
    rb"(?:^|[^\w])"
    + _VALUE_FIELD
    + _COLON
    + rb"([^\s\"'\\<>{}$(),]{8,200})[\"']?\s{0,4}[,;\n]?[\s-]{0,40}[\"']?"
    + _FIELD
    + _COLON
    + rb"[\w./-]{0,60}\Z",
    re.IGNORECASE,
)
_HEADER = re.compile(
    rb"[\"']?\]?\s{0,3}[:=,]\s{0,3}[\"'bf]{0,2}(?:(?:bearer|token|basic|apikey|key)[ \t]+)?([A-Za-z0-9._~+/=-]{16,1000})",
    re.IGNORECASE,
)
_OPTION_NAME = re.compile(rb"(?:^|[\s\"'\[,(])--?(?:[a-z]+-)?\Z")
_OPTION_VALUE = re.compile(rb"(?:[ \t]+|=)([^\s\"'\\<>{}$()-][^\s\"'\\<>{}$()]{6,200})")
# Secrets among the arguments of a command, by its name.
_WORD = rb"([^\s\"'\\<>{}$()]{6,80})"
_ARGUMENTS: dict[bytes, "re.Pattern[bytes]"] = {
    name.encode(): re.compile(pattern)
    for names, pattern in (
        ("mysql mariadb", rb"[^\n|;&]{0,200}?[ \t]-p" + _WORD),
        ("sshpass", rb"[ \t]+-p[ \t]*" + _WORD),
        ("curl wget", rb"[^\n|;]{0,200}?[ \t](?:-u|--user|--proxy-user)[ \t]+[\"']?[A-Za-z0-9._%+@-]{1,64}:" + _WORD),
        ("docker podman helm az oc buildah skopeo crane", rb"[^\n|;]{0,200}?[ \t]-p[ \t]+" + _WORD),
        ("redis-cli", rb"[^\n|;]{0,100}?[ \t]-a[ \t]+" + _WORD),
        ("7z", rb"[^\n|;]{0,100}?[ \t]-p" + _WORD),
        ("openssl", rb"[^\n|;]{0,200}?[ \t:]pass:" + _WORD),
        ("machine", rb"[ \t]+\S{1,80}\s+login[ \t]+\S{1,80}\s+password[ \t]+" + _WORD),
        ("identified", rb"(?i:[ \t]+(?:with[ \t]+\w+[ \t]+)?by)[ \t]+(?:password[ \t]+)?['\"]([^\s\"'\\<>{}$()]{8,80})['\"]"),
    )
    for name in names.split()
}  # fmt: skip
# Web addresses whose path is the secret, from the trigger on.
_WEB_HOOK = re.compile(
    rb"""hooks\.slack\.com/(?:services|workflows|triggers)/[A-Z0-9]{6,14}/(?:[A-Z0-9]{6,16}/)?(?:[0-9]{8,24}/)?([A-Za-z0-9]{16,64})
    |discord(?:app)?\.com/api/(?:v[0-9]{1,2}/)?webhooks/[0-9]{16,21}/([A-Za-z0-9_-]{50,90})
    |\.office(?:365)?\.com/webhook(?:b2)?/([0-9A-Za-z@-]{36,80}/IncomingWebhook/[0-9a-zA-Z]{32}/[0-9a-zA-Z-]{36}(?:/[A-Za-z0-9_-]{20,60})?)
    |hooks\.zapier\.com/hooks/catch/[0-9]{4,10}/([A-Za-z0-9]{5,12})
    |maker\.ifttt\.com/trigger/[A-Za-z0-9_-]{1,60}/(?:json/)?with/key/([A-Za-z0-9_-]{16,60})
    |chat\.googleapis\.com/v1/spaces/[A-Za-z0-9_-]{6,20}/messages\?key=([A-Za-z0-9_%=&-]{30,200})
    |(?:feishu\.cn|larksuite\.com)/open-apis/bot/v2/hook/([0-9a-f-]{32,36})
    |oapi\.dingtalk\.com/robot/send\?access_token=([0-9a-f]{40,64})
    |qyapi\.weixin\.qq\.com/cgi-bin/webhook/send\?key=([0-9a-f-]{32,36})
    |api\.telegram\.org/bot([0-9]{8,10}:[A-Za-z0-9_-]{30,40})
    |[?&]sig=([A-Za-z0-9%_-]{36,80})
    |/hooks/([a-z0-9]{26})\b""",
    re.VERBOSE,
)


def tokens(source: Source, hits: Hits) -> Iterator[Candidate]:
    """Credentials that their issuer's prefix tells; hits: where `TOKEN_MARKS` match."""
    data = source.data
    for start, _ in hits:
        match = _TOKEN.match(data, start, start + _MAX_TOKEN)
        if match is None:
            continue
        value, end = match.group(), match.end()
        if data[end : end + 1].isalnum() or not random_looking(value[4:], 3.0):
            continue
        if value.startswith(b"sk-") and not re.search(rb"\d", value):
            continue
        yield Candidate(TOKEN, ((start, end),))


def url_passwords(source: Source) -> Iterator[Candidate]:
    """Passwords in addresses of the form scheme://user:password@host."""
    for match in _URL_PASSWORD.finditer(source.data):
        value = match.group(1)
        if not source.fixture and random_looking(value, 2.0) and (re.search(rb"\d", value) or _strong(value)):
            yield Candidate(PASSWORD, (match.span(1),))


def announced(source: Source, hits: Hits) -> Iterator[Candidate]:
    """Values that a name, a field, a header, an option or an address calls a secret; hits: where `TRIGGERS` match."""
    data = source.data
    for start, end in hits:
        match = _TRIGGER.fullmatch(data, start, end)
        if match is None:
            continue
        name, command, hook, header = match.groups()
        if hook:
            found = _WEB_HOOK.match(data, start, end + _REACH)
            if (
                found
                and found.lastindex
                and re.search(rb"\d", value := found.group(found.lastindex))
                and random_looking(value, 2.5)
            ):
                yield Candidate(TOKEN, (found.span(found.lastindex),))
        if source.fixture:
            continue
        if name:
            yield from _named(data, start, end, name.lower())
        if command:
            key = re.sub(rb"\A(mysql|mariadb|7z).*", rb"\1", command.lower(), flags=re.DOTALL)
            yield from _argument(_ARGUMENTS[key].match(data, end, end + _REACH))
        if header or (name and data[start - 2 : start].lower() == b"x-"):
            found = _HEADER.match(data, end, end + _REACH + 1000)
            if found and _strong(found.group(1)) and random_looking(found.group(1), 3.0):
                yield Candidate(TOKEN, (found.span(1),))


def _argument(found: "re.Match[bytes] | None") -> Iterator[Candidate]:
    if found and random_looking(found.group(1), 2.5) and _strong(found.group(1)) and not _points(found.group(1)):
        yield Candidate(PASSWORD, (found.span(1),))


def _named(data: bytes, start: int, end: int, name: bytes) -> Iterator[Candidate]:
    """What the name from `start` to `end` is given: beside it, or in the field next to the one that it is in."""
    placeholder = PASSWORD if name.startswith((b"pass", b"pwd", b"contra", b"redis")) else KEY
    directory = name == b"pwd" and _is_directory(data, start)
    line = data[max(0, start - 400) : start]
    found = _QUOTED.match(data, end, end + _REACH)
    if found and not directory:
        # An argument after a quoted name, not a literal after a sentence that ends with the word.
        argument = b"," in data[end : found.start(found.lastindex or 1)]
        if not argument or re.search(rb"[\"'][\w./-]*\Z", line[-80:]):
            yield from _value(name, placeholder, found, found.lastindex or 1, strong=argument)
    found = _UNQUOTED.match(data, end, end + _REACH)
    if found and not directory and data[found.end() : found.end() + 1] not in (b"[", b"(", b"{"):
        yield from _value(name, placeholder, found, 1, strong=True)
    if _OPTION_NAME.search(line[-40:]):
        yield from _argument(_OPTION_VALUE.match(data, end, end + _REACH))
    if _FIELD_BEFORE.search(line[-160:]):
        for pattern in (_VALUE_AFTER, _ELEMENT):
            found = pattern.match(data, end, end + _REACH)
            if found:
                yield from _value(name, placeholder, found, 1, strong=False)
        found = _VALUE_BEFORE.search(line)
        if found:
            offset = max(0, start - 400)
            yield from _value(name, placeholder, found, 1, strong=False, offset=offset)


def _value(
    name: bytes, placeholder: bytes, found: "re.Match[bytes]", group: int, *, strong: bool, offset: int = 0
) -> Iterator[Candidate]:
    """The value of `name` in a group of a match, where it is a secret. strong: without quotes, more is asked of it."""
    value = found.group(group)
    start = found.start(group) + offset
    if strong:
        value = value.rstrip(b".:!?*#-_")
    if len(value) < 8 or not _is_secret(value) or (strong and not _strong(value)):
        return
    if name == b"token" and not (len(value) >= 20 and _strong(value)):
        return
    yield Candidate(placeholder, ((start, start + len(value)),))


def _is_directory(data: bytes, start: int) -> bool:
    """Whether `pwd` at `start` is PWD or OLDPWD, the shell's working directories."""
    before = data[max(0, start - 3) : start]
    return before == b"OLD" or (data[start : start + 3] == b"PWD" and not before[-1:].strip(b" \t\n\r\"';($={:,-"))


def _is_secret(value: bytes) -> bool:
    """A literal with letters and digits and no structure of words; identifiers, paths, selectors and prose stay."""
    if not (re.search(rb"[A-Za-z]", value) and re.search(rb"\d", value)) or not random_looking(value, 2.8):
        return False
    if re.fullmatch(rb"[A-Za-z]+(?:[._:/-][A-Za-z0-9]+)+\d{0,2}|[A-Za-z]+\d{1,2}|[\w./-]+\.\w{1,5}|\w+\.\w+", value):
        return runs(value) < 2.2 and len(value) >= 10 and not re.search(rb"[./:-]", value)
    if re.fullmatch(rb"[0-9a-fA-F-]{8,31}", value):
        return False  # a short hash or an identifier
    return not _points(value)


_POINTER = re.compile(
    rb"""(?:~|\.{0,2}/|[A-Za-z]:[\\/]|%\w+%|\\\\)[\w.@ %-]*(?:[\\/][\w.@ %-]*)*\Z   # a path
    |[a-z][a-z0-9+.-]*://|(?:id|name|css|xpath|class|link|data-[\w-]+)=|//|/{0,2}\w*\[     # an address, a locator
    |[a-z]*[#.][A-Za-z_][\w-]*\Z|[a-z]*\[[\w-]+[~|^$*]?=                                     # a selector
    |\^|.*(?:[a-zA-Z0]-[a-zA-Z9]\]|\\[dws])                                                  # a regular expression
    |[!*&@%][a-z]|ENC\[|vault:|ref\+|arn:|projects/|secret://|op://|env:|file:|base64:\Z""",
    re.VERBOSE,
)


def _points(value: bytes) -> bool:
    """Whether it names a place rather than being a secret: a path, an address, a selector, a pattern, a reference."""
    if not _POINTER.match(value):
        return False
    # Random base64 begins with a slash now and then.
    return not (value.startswith(b"/") and len(value) >= 32 and runs(value) < 1.9)


def _strong(value: bytes) -> bool:
    """Whether random enough to be told without quotes around: short runs of one kind of character, or long hexadecimal."""
    if re.fullmatch(rb"[0-9a-f]{32,}|[0-9A-F]{32,}", value):
        return entropy(value) >= 3.0
    return (
        len(value) >= 8
        and bool(re.search(rb"\d", value))
        and bool(re.search(rb"[A-Za-z]", value))
        and runs(value) <= 3.0
    )
