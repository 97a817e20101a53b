"""Tokens, passwords and other secrets: by the form of their issuer, or by a name, an option or an address that says what they are."""

import re
from collections.abc import Iterator

from opencoder_data.refinecode.transform.candidates import (
    Candidate,
    Source,
    compile_latin1,
    entropy,
    random_looking,
    runs,
)

TOKEN, PASSWORD, KEY = b"<token>", b"<password>", b"<key>"

_TOKENS = compile_latin1(
    r"\b(?:(?:AKIA|ASIA)[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}|glpat-[A-Za-z0-9_-]{20}"
    r"|xox[abeoprs]-[0-9]{6,}-[0-9A-Za-z-]{10,100}|AIza[0-9A-Za-z_-]{35}|[rs]k_live_[0-9a-zA-Z]{20,99}|SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}"
    r"|npm_[A-Za-z0-9]{36}|pypi-AgEIcHlwaS5vcmc[A-Za-z0-9_-]{50,250}|hf_[A-Za-z0-9]{34}|sk-(?:proj-|ant-)?[A-Za-z0-9_-]{40,180}"
    r"|ya29\.[0-9A-Za-z_-]{30,200}|dop_v1_[a-f0-9]{64}|shpat_[a-fA-F0-9]{32}|eyJ[A-Za-z0-9_-]{14,}\.eyJ[A-Za-z0-9_-]{14,}\.[A-Za-z0-9_-]{20,}"
    r"|[0-9]{8,10}:AA[A-Za-z0-9_-]{33}|AGE-SECRET-KEY-1[0-9A-Z]{58}|whsec_[A-Za-z0-9]{32,64}|EAACEdEose0cBA[0-9A-Za-z]{20,}|dapi[a-f0-9]{32}"
    r"|key-[a-f0-9]{32}|sq0(?:atp|csp)-[0-9A-Za-z_-]{22,43}|lin_api_[A-Za-z0-9]{40}|rubygems_[a-f0-9]{48}|glsa_[A-Za-z0-9]{32}_[a-f0-9]{8})"
)
# Web addresses whose path is the secret: its part is the group.
_WEB_HOOKS = tuple(
    compile_latin1(pattern)
    for pattern in (
        r"hooks\.slack\.com/(?:services|workflows|triggers)/[A-Z0-9]{6,14}/(?:[A-Z0-9]{6,16}/)?(?:[0-9]{8,24}/)?([A-Za-z0-9]{16,64})",
        r"(?:discord|discordapp)\.com/api/(?:v[0-9]{1,2}/)?webhooks/[0-9]{16,21}/([A-Za-z0-9_-]{50,90})",
        r"(?:[a-z0-9-]+\.webhook|outlook)\.office(?:365)?\.com/webhook(?:b2)?/([0-9A-Za-z@-]{36,80}/IncomingWebhook/[0-9a-zA-Z]{32}/[0-9a-zA-Z-]{36}(?:/[A-Za-z0-9_-]{20,60})?)",
        r"hooks\.zapier\.com/hooks/catch/[0-9]{4,10}/([A-Za-z0-9]{5,12})",
        r"maker\.ifttt\.com/trigger/[A-Za-z0-9_-]{1,60}/(?:json/)?with/key/([A-Za-z0-9_-]{16,60})",
        r"chat\.googleapis\.com/v1/spaces/[A-Za-z0-9_-]{6,20}/messages\?key=([A-Za-z0-9_%=&-]{30,200})",
        r"(?:feishu\.cn|larksuite\.com)/open-apis/bot/v2/hook/([0-9a-f-]{32,36})",
        r"oapi\.dingtalk\.com/robot/send\?access_token=([0-9a-f]{40,64})",
        r"qyapi\.weixin\.qq\.com/cgi-bin/webhook/send\?key=([0-9a-f-]{32,36})",
        r"api\.telegram\.org/bot([0-9]{8,10}:[A-Za-z0-9_-]{30,40})",
        r"[?&]sig=([A-Za-z0-9%_-]{36,80})",
        r"/hooks/([a-z0-9]{26})\b",
    )
)
_URL_PASSWORD = compile_latin1(
    r"[a-z][a-z0-9+.-]{1,30}://[A-Za-z0-9._%+-]{0,64}:([^\s/:@\"'<>(){}$]{4,80})@[A-Za-z0-9.\[]"
)

_PASSWORDS = r"passw(?:or)?d|passwd|pwd|passphrase|passwort|contrase[nñ]a|pgpassword|rediscli_auth"
_KEYS = (
    r"secret(?:[_-]?key)?(?:[_-]?base)?|api_?key|api-key|apikey|auth[_-]?token|access[_-]?token|access[_-]?key|private[_-]?key|client[_-]?secret|token"
    r"|encryption[_-]?key|signing[_-]?key|account[_-]?key|shared[_-]?(?:access[_-]?)?key|master[_-]?key|auth[_-]?key|service[_-]?key|deploy[_-]?key|app[_-]?key"
)
_NAME = rf"({_PASSWORDS}|{_KEYS})"
_QUOTED_VALUE = r"[\"']([^\s\"'\\<>{}$()]{8,200})[\"']"
# Between a name and its value: a closing quote or bracket, a type, an operator.
_ASSIGN = r"[\"']?\]?(?:\[\w{0,8}\])?(?:\s{0,3}:\s{0,3}[&'\w\[\]?.*]{1,30})?\s{0,4}(?:=|:|:=|=>|,|<-)\s{0,4}"
_ASSIGNED = compile_latin1(
    rf"{_NAME}(?:{_ASSIGN}|\s{{1,4}})[bruBRU@$]{{0,2}}{_QUOTED_VALUE}".replace("ñ", r"\xc3\xb1"), ignore_case=True
)
# Without quotes: settings, shells, query strings, connection strings, XML elements.
_UNQUOTED = compile_latin1(
    rf"{_NAME}(?:[ \t]{{0,4}}(?:=|:|:=|=>)[ \t]{{0,4}}|>)([^\s\"'\\<>{{}}$()&;,`|\[\]]{{8,200}})".replace(
        "ñ", r"\xc3\xb1"
    ),
    ignore_case=True,
)
_NAME_FIELD = r"(?:key|name|id|field|variable|param(?:eter)?(?:_?key)?|property|env(?:_?var)?|option|setting|label)"
_VALUE_FIELD = r"(?:value|val|default|parametervalue|content|data)"
_PAIRED = compile_latin1(
    rf"\b{_NAME_FIELD}[\"']?\s{{0,4}}(?:=>|=|:)\s{{0,4}}[\"']?[\w./-]{{0,60}}?{_NAME}[\"']?\s{{0,4}}[,;\n]?[\s-]{{0,40}}[\"']?{_VALUE_FIELD}[\"']?"
    rf"\s{{0,4}}(?:=>|=|:)\s{{0,4}}[\"']?([^\s\"'\\<>{{}}$(),]{{8,200}})".replace("ñ", r"\xc3\xb1"),
    ignore_case=True,
)
_PAIRED_BACK = compile_latin1(
    rf"\b{_VALUE_FIELD}[\"']?\s{{0,4}}(?:=>|=|:)\s{{0,4}}[\"']?([^\s\"'\\<>{{}}$(),]{{8,200}})[\"']?\s{{0,4}}[,;\n]?[\s-]{{0,40}}[\"']?{_NAME_FIELD}[\"']?"
    rf"\s{{0,4}}(?:=>|=|:)\s{{0,4}}[\"']?[\w./-]{{0,60}}?{_NAME}\b".replace("ñ", r"\xc3\xb1"),
    ignore_case=True,
)
# XML: <entry key="password">value</entry>, <string name="api_key">value</string>
_ELEMENT = compile_latin1(
    rf"\b{_NAME_FIELD}=[\"'][\w./-]{{0,60}}?{_NAME}[\"'][^<>]{{0,60}}>([^\s\"'\\<>{{}}$()]{{8,200}})<".replace(
        "ñ", r"\xc3\xb1"
    ),
    ignore_case=True,
)
# The group is the secret.
_BEARER = compile_latin1(
    r"(?:authorization|proxy-authorization|x-(?:api|auth|access)-(?:key|token)|private-token|x-vault-token)[\"']?\]?\s{0,3}[:=,]\s{0,3}[\"'bf]{0,2}"
    r"(?:(?:bearer|token|basic|apikey|key)[ \t]+)?([A-Za-z0-9._~+/=-]{16,1000})",
    ignore_case=True,
)
_OPTIONS = tuple(
    compile_latin1(pattern)
    for pattern in (
        r"\b(?:mysql|mysqldump|mysqladmin|mysqlimport|mysqlcheck|mariadb|mariadb-dump|mariadb-admin)\b[^\n|;&]{0,200}?[ \t]-p([^\s\"'\\<>{}$()]{6,80})",
        r"\bsshpass[ \t]+-p[ \t]*([^\s\"'\\<>{}$()]{6,80})",
        r"--?(?:password|passwd|pass|pwd|db-password|admin-password|storepass|keypass|secret|token|api-key|auth-token|requirepass)(?:[ \t]+|=)([^\s\"'\\<>{}$()-][^\s\"'\\<>{}$()]{6,200})",
        r"\b(?:curl|wget|http|httpie)\b[^\n|;]{0,200}?[ \t](?:-u|--user|-a)[ \t]+[\"']?[A-Za-z0-9._%+@-]{1,64}:([^\s\"'\\<>{}$()]{6,80})",
        r"\b(?:docker|podman|helm|az|oc|buildah|skopeo|crane)\b[^\n|;]{0,200}?[ \t]-p[ \t]+([^\s\"'\\<>{}$()]{6,80})",
        r"\bredis-cli\b[^\n|;]{0,100}?[ \t]-a[ \t]+([^\s\"'\\<>{}$()]{6,80})",
        r"\b7z[a-z]?\b[^\n|;]{0,100}?[ \t]-p([^\s\"'\\<>{}$()]{6,80})",
        r"\b(?:pass|passin|passout)[:=]?pass:([^\s\"'\\<>{}$()]{6,80})",
        r"(?i:identified[ \t]+by|with[ \t]+(?:encrypted[ \t]+)?password|user[ \t]+\w+[ \t]+password)[ \t]+'([^\s\"'\\<>{}$()]{8,80})'",
        r"\bmachine[ \t]+\S{1,80}\s+login[ \t]+\S{1,80}\s+password[ \t]+([^\s\"'\\<>{}$()]{6,80})",
    )
)


def tokens(source: Source) -> Iterator[Candidate]:
    """Credentials that their issuer's prefix tells, and the secret part of web hooks."""
    data = source.data
    for match in _TOKENS.finditer(data):
        start, end = match.span()
        value = data[start:end]
        if data[end : end + 1].isalnum() or not random_looking(value[4:], 3.0):
            continue
        if value.startswith(b"sk-") and not re.search(rb"\d", value):
            continue
        yield Candidate(TOKEN, ((start, end),))
    if b"://" in data or b"hooks" in data:
        for pattern in _WEB_HOOKS:
            for match in pattern.finditer(data):
                if random_looking(match.group(1), 2.5) and re.search(rb"\d", match.group(1)):
                    yield Candidate(TOKEN, (match.span(1),))


def url_passwords(source: Source) -> Iterator[Candidate]:
    """Passwords in addresses of the form scheme://user:password@host."""
    for match in _URL_PASSWORD.finditer(source.data):
        value = match.group(1)
        if not source.fixture and random_looking(value, 2.0) and (re.search(rb"\d", value) or _strong(value)):
            yield Candidate(PASSWORD, (match.span(1),))


def assigned(source: Source) -> Iterator[Candidate]:
    """Values that a name, a field, a header or an option calls a secret."""
    if source.fixture:
        return
    data = source.data
    for pattern, quoted in ((_ASSIGNED, True), (_ELEMENT, True), (_PAIRED, True), (_UNQUOTED, False)):
        for match in pattern.finditer(data):
            start, end = match.span(2)
            yield from _value(data, match.start(1), match.group(1), start, end, quoted)
    for match in _PAIRED_BACK.finditer(data):
        yield from _value(data, match.start(2), match.group(2), match.start(1), match.end(1), True)
    for match in _BEARER.finditer(data):
        if _strong(match.group(1)) and random_looking(match.group(1), 3.0):
            yield Candidate(TOKEN, (match.span(1),))
    for pattern in _OPTIONS:
        for match in pattern.finditer(data):
            start, end = match.span(1)
            if random_looking(match.group(1), 2.5) and _strong(match.group(1)) and not _points(match.group(1)):
                yield Candidate(PASSWORD, ((start, end),))


def _value(data: bytes, name_start: int, name: bytes, start: int, end: int, quoted: bool) -> Iterator[Candidate]:
    value = data[start:end]
    name = name.lower()
    if not quoted:
        stripped = value.rstrip(b".:!?*/#-_=" if len(value) < 24 else b".:!?*#-_")
        value, end = stripped, start + len(stripped)
    if len(value) < 8 or _is_directory(data, name_start, name) or not _is_secret(value):
        return
    if not quoted and not _strong(value):
        return
    if name == b"token" and not (len(value) >= 20 and _strong(value)):
        return
    yield Candidate(PASSWORD if re.match(rb"pass|pwd|pgpass|contra|redis", name) else KEY, ((start, end),))


def _is_directory(data: bytes, start: int, name: bytes) -> bool:
    """PWD and OLDPWD, the shell's working directories."""
    return (
        name == b"pwd"
        and data[start : start + 3] == b"PWD"
        and not data[max(0, start - 1) : start].strip(b" \t\n\r\"';($={:,-")
    ) or (name == b"pwd" and data[max(0, start - 3) : start] == b"OLD")


def _is_secret(value: bytes) -> bool:
    """A literal with letters and digits and no structure of words; identifiers, paths, selectors and prose stay."""
    if not (re.search(rb"[A-Za-z]", value) and re.search(rb"\d", value)) or not random_looking(value, 2.8):
        return False
    if re.fullmatch(rb"[A-Za-z]+(?:[._:/-][A-Za-z0-9]+)+\d{0,2}|[A-Za-z]+\d{1,2}|[\w./-]+\.\w{1,5}|\w+\.\w+", value):
        return runs(value) < 1.9 and len(value) >= 20 and b"." not in value
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
        and runs(value) <= 2.3
    )
