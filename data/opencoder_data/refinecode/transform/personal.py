"""Personal data and secrets, replaced by placeholders: ``<email>``, ``<ip_address>``, ``<key>``, ``<token>``,
``<password>``, ``<name>``.

Precision before recall: candidates come from RE2 patterns in one pass each over the bytes; checks in Python then refuse
version numbers, loopback and private addresses, documentation ranges, public resolvers, example domains, package
coordinates, test fixtures and words that only look like secrets. The paper names passwords, e-mail, IP addresses and
names, with ``<name>`` and ``<password>`` as placeholders; its patterns are not published.
"""

import ipaddress
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import re2

Span = tuple[int, int, bytes]

_FIXTURE = re.compile(
    r"(?:^|[/_.-])(?:tests?|testing|spec|specs|fixtures?|testdata|mocks?|examples?|samples?|demo)(?:[/_.-]|\d*$)", re.I
)


def remove_personal(text: str, path: str = "") -> tuple[str, dict[str, int]]:
    """The text with placeholders, and how many of each kind were put in.

    `path` only tells test fixtures, whose passwords stay. Idempotent: a placeholder matches no pattern, and what a
    replacement lays bare (a number that no longer follows a product's name) is looked at again.
    """
    counts: Counter[str] = Counter()
    data, fixture = text.encode("utf-8"), bool(_FIXTURE.search(path))
    found = -1
    while counts.total() != found:
        found = counts.total()
        data = _replace(data, fixture, counts)
    return (data.decode("utf-8"), dict(counts)) if counts else (text, {})


def _replace(data: bytes, fixture: bool, counts: Counter[str]) -> bytes:
    """One pass of every finder."""
    for needed, find in _FINDERS:
        if needed and not any(n in data for n in needed):
            continue
        spans = list(find(data, fixture))
        if not spans:
            continue
        pieces, position = [], 0
        for start, end, placeholder in spans:
            if start < position:
                continue
            pieces += [data[position:start], placeholder]
            position = end
            counts[placeholder.decode()] += 1
        pieces.append(data[position:])
        data = b"".join(pieces)
    return data


def _compile(pattern: str, *, ignore_case: bool = False) -> Any:
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.case_sensitive = not ignore_case
    options.never_nl = False
    options.log_errors = False
    return re2.compile(pattern.encode("latin-1"), options)


def _entropy(value: bytes) -> float:
    """Shannon entropy in bits per byte."""
    return -sum(n / len(value) * math.log2(n / len(value)) for n in Counter(value).values())


_DUMMY = re.compile(
    rb"example|sample|dummy|fake|changeme|placeholder|your|my[_-]?(?:pass|secret|key|token)|xxx|\*\*\*|\.\.\.|foo|bar|12345|abcde"
    rb"|test|todo|none|null|default|redacted|insert|secret|passw|qwert|hunter2|<|>|\$\{|\{\{|%\(|%s|\$\(",
    re.IGNORECASE,
)


def _random_looking(value: bytes, bits: float) -> bool:
    return _entropy(value) >= bits and not _DUMMY.search(value) and not re.search(rb"(.)\1{4,}", value)


# --- e-mail -----------------------------------------------------------------------------------------------------------

_EMAIL = _compile(r"[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}@[A-Za-z0-9](?:[A-Za-z0-9-]{0,62}\.){1,6}[A-Za-z]{2,18}")
_EXAMPLE_DOMAIN = re.compile(
    rb"(?:^|\.)(?:example\.(?:com|org|net|edu)|(?:my|your|some)?(?:domain|company|site|host|server|mail|email)\.(?:com|org|net|tld)"
    rb"|test\.(?:com|org|net)|foo\.(?:com|org|net|bar)|bar\.(?:com|org|net)|acme\.(?:com|org)|email\.address|b\.c|b\.com)$"
    rb"|\.(?:example|invalid|test|localhost|local|localdomain|internal|lan)$|(?:^|\.)noreply\.github\.com$",
    re.IGNORECASE,
)
_EXAMPLE_LOCAL = {
    b"git", b"hg", b"svn", b"user", b"username", b"users", b"name", b"you", b"your", b"your.name", b"youremail", b"your_email",
    b"yourname", b"email", b"mail", b"me", b"someone", b"somebody", b"foo", b"bar", b"test", b"example", b"noreply", b"no-reply",
    b"no_reply", b"donotreply", b"first.last", b"firstname.lastname", b"john.doe", b"johndoe", b"jane.doe", b"joe",
}  # fmt: skip
_GENERIC_DOMAINS = set(
    b"com org net edu gov mil int info biz name pro mobi jobs travel museum aero coop asia tel cat post dev app io ai me tv "
    b"xyz online site tech store blog cloud email space live news world life today agency solutions systems software "
    b"company center digital network academy institute university engineering consulting technology social team group".split()
)
# Country codes, less those that end file names or attribute chains in code far more often than addresses.
_COUNTRIES = set(
    b"ac ad ae af ag al am ao ar at au az ba bb bd be bg bh bi bj bm bn bo br bs bt bw by bz ca cd cf cg ch ci ck cl cm cn co "
    b"cr cu cv cy cz de dj dk dm do dz ec ee eg es et eu fi fj fm fr ga ge gh gi gl gm gn gr gt gy hk hn hr ht hu id ie il im "
    b"in iq ir is it jm jo jp ke kg kh kr kw ky kz la lb li lk lr lt lu lv ly ma mc md mg mk mn mo mr mt mu mv mw mx my mz na "
    b"nc ne ng ni nl no np nu nz om pa pe pg ph pk pl pr ps pt pw qa re ro ru rw sa sc sd se sg si sk sl sm sn sr st su sv sy "
    b"sz tc td tg th tj tk tl tm tn to tr tt tw tz ua ug uk us uy uz va vc ve vg vi vn vu ws ye za zm zw".split()
)


def _emails(data: bytes, fixture: bool) -> Iterator[Span]:
    for match in _EMAIL.finditer(data):
        start, end = match.span()
        address = data[start:end]
        local, _, domain = address.rpartition(b"@")
        top = domain.rpartition(b".")[2].lower()
        if top not in _GENERIC_DOMAINS and top not in _COUNTRIES:
            continue
        # Calls and attributes (`a@b.to(x)`), scp paths (`git@host.org:path`), the tail of a longer word.
        after, before = data[end : end + 1], data[start - 1 : start] if start else b""
        if after.isalnum() or after in (b"(", b"[", b"_", b"@", b"/") or before in (b"@", b"/", b"\\", b"&", b"="):
            continue
        if after == b":" and re.match(rb":[\w~./-]*/", data[end : end + 80]):
            continue
        # Credentials of a URL are another rule's.
        if re.search(rb"://[^\s/@\"']*$", data[max(0, start - 100) : start]):
            continue
        if local.lower() in _EXAMPLE_LOCAL or _EXAMPLE_DOMAIN.search(domain) or b".." in address:
            continue
        yield start, end, b"<email>"


# --- addresses --------------------------------------------------------------------------------------------------------

_IPV4 = _compile(r"[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}")
_IPV6 = _compile(r"[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{0,4}){4,7}")
_VERSION = re.compile(
    rb"(?:version|release|revision|firmware|assembly|(?<![a-z])(?:vers?|v|rev|build|sdk|driver|section|sec|chapter|clause|oid|asn1|"
    rb"rfc|upgrade|update|since|chrome|firefox|safari|gecko|(?:apple)?webkit|edge|opera|msie|mozilla))[\w.]*[\s\"'=:(/<>,~^-]*$",
    re.IGNORECASE,
)
_PUBLIC = {
    "8.8.8.8", "8.8.4.4", "1.1.1.1", "1.0.0.1", "9.9.9.9", "149.112.112.112", "208.67.222.222", "208.67.220.220",
    "4.2.2.1", "4.2.2.2", "114.114.114.114", "223.5.5.5", "223.6.6.6", "119.29.29.29", "1.2.3.4", "2001:4860:4860::8888",
    "2001:4860:4860::8844", "2606:4700:4700::1111", "2606:4700:4700::1001", "2620:fe::fe", "64.6.64.6", "94.140.14.14",
}  # fmt: skip


def _ipv4(data: bytes, fixture: bool) -> Iterator[Span]:
    if fixture:
        return
    for match in _IPV4.finditer(data):
        start, end = match.span()
        before, after = data[start - 1 : start] if start else b"", data[end : end + 1]
        if before.isalnum() or before in (b".", b"-", b"_", b"^", b"~", b"+"):
            continue
        if after.isalnum() or after in (b"-", b"_", b"+") or re.match(rb"\.\w", data[end : end + 2]):
            continue
        value = data[start:end].decode()
        try:
            address = ipaddress.IPv4Address(value)
        except ValueError:
            continue
        octets = address.packed
        # Four small numbers are a version, a section or an object identifier more often than a host.
        if not address.is_global or address.is_multicast or value in _PUBLIC or octets[0] == 0:
            continue
        if max(octets) < 32 or max(octets[:3]) < 10:
            continue
        if octets[3] == 0 and octets[2] == 0:
            continue  # a network, not a host
        if _VERSION.search(data[max(0, start - 40) : start]):
            continue
        yield start, end, b"<ip_address>"


def _ipv6(data: bytes, fixture: bool) -> Iterator[Span]:
    for match in _IPV6.finditer(data):
        start, end = match.span()
        before, after = data[start - 1 : start] if start else b"", data[end : end + 1]
        if (
            before.isalnum()
            or before in (b":", b".", b"_", b"-")
            or after.isalnum()
            or after in (b":", b"_", b".", b"-")
        ):
            continue
        value = data[start:end].decode()
        try:
            address = ipaddress.IPv6Address(value)
        except ValueError:
            continue
        if (
            address.is_global
            and value.lower() not in _PUBLIC
            and not value.endswith("::")
            and address.packed[0] >> 5 == 1
        ):
            yield start, end, b"<ip_address>"


# --- keys, tokens, passwords ------------------------------------------------------------------------------------------

_PRIVATE_KEY = _compile(
    r"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----([A-Za-z0-9+/=\s\\:,.\"'nr-]+?)-----END (?:[A-Z0-9]+ ){0,3}PRIVATE KEY"
)
_TOKENS = _compile(
    r"\b(?:(?:AKIA|ASIA)[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}|glpat-[A-Za-z0-9_-]{20}"
    r"|xox[abeoprs]-[0-9]{6,}-[0-9A-Za-z-]{10,100}|AIza[0-9A-Za-z_-]{35}|[rs]k_live_[0-9a-zA-Z]{20,99}|SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}"
    r"|npm_[A-Za-z0-9]{36}|pypi-AgEIcHlwaS5vcmc[A-Za-z0-9_-]{50,250}|hf_[A-Za-z0-9]{34}|sk-(?:proj-|ant-)?[A-Za-z0-9_-]{40,180}"
    r"|ya29\.[0-9A-Za-z_-]{30,200}|dop_v1_[a-f0-9]{64}|shpat_[a-fA-F0-9]{32}|eyJ[A-Za-z0-9_-]{14,}\.eyJ[A-Za-z0-9_-]{14,}\.[A-Za-z0-9_-]{20,})"
)
_URL_PASSWORD = _compile(r"[a-z][a-z0-9+.-]{1,12}://[A-Za-z0-9._%+-]{1,64}:([^\s/:@\"'<>(){}$]{4,80})@[A-Za-z0-9.\[]")
_ASSIGNED = _compile(
    r"(passw(?:or)?d|passwd|pwd|passphrase|secret|secret_?key|api_?key|apikey|auth_?token|access_?token|access_?key|private_?key|client_?secret)"
    r"[\"']?\s{0,4}(?:=|:|:=|=>)\s{0,4}[\"']([^\s\"'\\<>{}$()]{8,80})[\"']",
    ignore_case=True,
)


def _private_keys(data: bytes, fixture: bool) -> Iterator[Span]:
    for match in _PRIVATE_KEY.finditer(data):
        body = match.group(1)
        if len(re.findall(rb"[A-Za-z0-9+/]", body)) >= 64 and not fixture:
            yield match.start(1), match.end(1), b"\n<key>\n"


def _tokens(data: bytes, fixture: bool) -> Iterator[Span]:
    for match in _TOKENS.finditer(data):
        start, end = match.span()
        value = data[start:end]
        after = data[end : end + 1]
        if after.isalnum() or not _random_looking(value[4:], 3.0):
            continue
        if value.startswith(b"sk-") and not re.search(rb"\d", value):
            continue
        yield start, end, b"<token>"


def _url_passwords(data: bytes, fixture: bool) -> Iterator[Span]:
    for match in _URL_PASSWORD.finditer(data):
        value = match.group(1)
        if not fixture and _random_looking(value, 2.0) and re.search(rb"\d", value):
            yield match.start(1), match.end(1), b"<password>"


def _assigned(data: bytes, fixture: bool) -> Iterator[Span]:
    if fixture:
        return
    for match in _ASSIGNED.finditer(data):
        name, value = match.group(1).lower(), match.group(2)
        # A literal with letters and digits and no word structure; identifiers, paths and prose stay.
        if not (re.search(rb"[A-Za-z]", value) and re.search(rb"\d", value)) or not _random_looking(value, 2.8):
            continue
        if re.fullmatch(
            rb"[A-Za-z]+(?:[._:/-][A-Za-z0-9]+)+\d{0,2}|[A-Za-z]+\d{1,2}|[\w./-]+\.\w{1,5}|\w+\.\w+", value
        ):
            continue
        if re.fullmatch(rb"[0-9a-fA-F-]{8,31}", value):
            continue  # a short hash or an identifier
        yield match.start(2), match.end(2), b"<password>" if name.startswith(b"pass") or name == b"pwd" else b"<key>"


# --- names ------------------------------------------------------------------------------------------------------------

_AUTHOR = None


def _author_patterns() -> tuple[Any, Any]:
    global _AUTHOR
    if _AUTHOR is None:
        word = r"\p{Lu}\p{L}*(?:['-]\p{L}+)*"
        name = rf"({word}(?: \p{{Lu}}\.)?(?: (?:van|von|de|der|den|la|le|da|di|del|dos))?(?: {word}){{1,3}})"
        tag = re2.compile(
            r"(?m)^[ \t]*(?:[*#;%!]+|//+|--+|/\*+|REM)?[ \t]*(?:@author:?|\\author|[Aa]uthors?[ \t]*:|[Ww]ritten by:?|[Cc]reated by:?|"
            r"[Mm]aintainer[ \t]*:|[Cc]ontributors?[ \t]*:)[ \t]+" + name
        )
        dunder = re2.compile(r"(?m)^__(?:author|maintainer|credits)__[ \t]*=[ \t]*[\"']" + name)
        _AUTHOR = tag, dunder
    return _AUTHOR


_NO_NAME = re.compile(r"\b(?:Team|Inc|Ltd|LLC|Corp|Foundation|Project|University|Contributors?|Authors?|Group|The|Visual|Studio|"
                      r"Android|Eclipse|Maven|Apache|Google|Microsoft|Software|Community|Name|Code|Tool|Generator|Date|Version)\b")  # fmt: skip


def _names(data: bytes, fixture: bool) -> Iterator[Span]:
    for pattern in _author_patterns():
        found = [m.span(1) for m in pattern.finditer(data)]
        for start, end in found:
            if not _NO_NAME.search(data[start:end].decode("utf-8", "replace")):
                yield start, end, b"<name>"


def _sorted(find: Callable[[bytes, bool], Iterator[Span]]) -> Callable[[bytes, bool], Iterator[Span]]:
    return lambda data, fixture: iter(sorted(find(data, fixture)))


_FINDERS: tuple[tuple[tuple[bytes, ...], Callable[[bytes, bool], Iterator[Span]]], ...] = (
    ((b"PRIVATE KEY",), _private_keys),
    ((), _tokens),
    ((b"://",), _url_passwords),
    ((), _assigned),
    ((b"@",), _emails),
    ((b".",), _ipv4),
    ((b":",), _ipv6),
    ((b"uthor", b"ritten by", b"reated by", b"aintainer", b"ontributor", b"__credits__"), _sorted(_names)),
)
