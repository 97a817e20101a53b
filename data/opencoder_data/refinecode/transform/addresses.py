"""IP addresses of hosts, told from versions, coordinates of packages, object identifiers, sections and lists of numbers."""

import ipaddress
import re
from collections.abc import Iterator
from itertools import pairwise

from opencoder_data.refinecode.transform.candidates import Candidate, Hits, Source

PLACEHOLDER = b"<ip_address>"

IPV4 = r"[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}"
IPV6 = r"[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{0,4}){4,7}"
_PUBLIC = frozenset((
    "8.8.8.8", "8.8.4.4", "1.1.1.1", "1.0.0.1", "9.9.9.9", "149.112.112.112", "208.67.222.222", "208.67.220.220",
    "4.2.2.1", "4.2.2.2", "114.114.114.114", "223.5.5.5", "223.6.6.6", "119.29.29.29", "1.2.3.4", "2001:4860:4860::8888",
    "2001:4860:4860::8844", "2606:4700:4700::1111", "2606:4700:4700::1001", "2620:fe::fe", "64.6.64.6", "94.140.14.14",
))  # fmt: skip

# A word right before the number that makes it a version, whatever else the line says.
_VERSION = re.compile(
    rb"(?:version|release|revision|firmware|assembly|(?<![a-z])(?:vers?|v|rev|build|sdk|driver|section|sec|chapter|clause|oid|asn1|"
    rb"rfc|upgrade|update|since|chrome|firefox|safari|gecko|(?:apple)?webkit|edge|opera|msie|mozilla))[\w.]*[\s\"'=:(/<>,~^-]*$",
    re.IGNORECASE,
)
# Words anywhere before it in its line that make a version likely.
_VERSION_WORD = re.compile(
    rb"version|release|\b(?:upgrade[ds]?|updated?|bump(?:s|ed)?|downgraded?|requires?|required|since|until|driver|firmware|bios|uefi|snmp|oids?|iec|iso|"
    rb"ieee|sections?|clauses?|appendix|table|figure|fig|annex|paragraph|patch|changelog|user[-_ ]?agents?|tags?|semver|assembly|sdk|ndk|jdk|"
    rb"toolchain|chapter|spec(?:ification)?|standard|compiler|backport\w*|rpm|deb|nuget|npm|pypi|maven|cocoapods|opencv|cuda|cudnn|chromium|"
    rb"chromedriver|msvc|visual studio|plugins?|librar(?:y|ies)|packages?|artifacts?|dependenc(?:y|ies)|image|chart|min|max|minimum|maximum)\b",
    re.IGNORECASE,
)
_OR_LATER = re.compile(rb"[\s\"',)]*(?:or (?:later|newer|above|higher)|and (?:later|above)|release|version)")
# Words that make it a host's, shortly before it.
_HOST = re.compile(
    rb"(?:(?:^|[^A-Za-z])(?:\w*(?:hosts?|hostname|server|gateway|proxy|addr(?:ess(?:es)?)?)|(?:\w*[_-])?ip(?:s|v4|_?addr\w*)?|(?-i:[a-z]+I[pP])|dns\d?|gw|nameservers?|endpoint|ur[li]|listen|"
    rb"bind|nodes?|peers?|remote|clients?|master|slave|replica|routers?|resolvers?|inet|ping|traceroute|ssh|scp|curl|wget|telnet|nc|nslookup|dig|"
    rb"connect(?:s|ed|ing)?(?:[ _]to)?|upstream|subnet|netmask|allow|deny|ban(?:ned)?|block(?:ed)?|whitelist|blacklist|domain|broker|redis|mongo|mysql|postgres|ntp|smtp|ftp|vpn|machine|vm|instance|attacker|visitor|origin))"
    rb"[\])}]*[\s\"'=:(\[{,>-]{0,8}\Z",
    re.IGNORECASE,
)
# Words that do so where no other speaks for a version.
_PERHAPS_HOST = re.compile(rb"\b(?:from|via|src|dst|source|destination|to|at)[\s\"'=:(\[{,>-]{1,8}\Z", re.IGNORECASE)
_URL = re.compile(rb"(?:://(?:[^\s/@\"'<>]{1,80}@)?|\\\\)\Z")
_ACCOUNT = re.compile(
    rb"\b(?:root|ubuntu|admin|administrator|ec2-user|centos|debian|pi|git|deploy|user|postgres|opc|azureuser|vagrant)@\Z"
)
_PORT = re.compile(rb":\d{2,5}(?![\d.])")
# A plain number or a command of a path right before it: one of a list of numbers.
_NUMBER_BEFORE = re.compile(rb"(?:^|[\s,(\[\"'A-Za-z-])-?\d*\.?\d+[A-Za-z]?[\s,]+-?\Z|[MmLlHhVvCcSsQqTtAaZz]-?\Z")
_NUMBER_AFTER = re.compile(rb"[ ,]+-?\d*\.\d+(?![\d.]*\.\d)")
_OPERATOR = re.compile(rb"(?:[=!<>~^]=|=>|->|[<>~^]|\$Revision:?)\s*[\"']?\Z")
_PATH_DATA = re.compile(
    rb"\b(?:d|points|viewBox|transform|pathData|path)\s*=\s*[\"'{]?[^\"'<>]*\Z|\bpath\(", re.IGNORECASE
)


def ipv4(source: Source, hits: Hits) -> Iterator[Candidate]:
    """Global unicast addresses in dotted form; hits: where `IPV4` matches."""
    if source.fixture:
        return
    for start, end in hits:
        if _is_host(source, start, end):
            yield Candidate(PLACEHOLDER, ((start, end),))


def _is_host(source: Source, start: int, end: int) -> bool:
    data = source.data
    before, after = data[start - 1 : start] if start else b"", data[end : end + 1]
    escaped = before in (b"n", b"r", b"t") and data[start - 2 : start - 1] == b"\\"
    if not escaped and (before.isalnum() or before in (b".", b"-", b"_", b"^", b"~", b"+", b"%", b"#", b"$")):
        return False
    if after.isalnum() or after in (b"-", b"_", b"+", b"%", b"*") or re.match(rb"\.\w", data[end : end + 2]):
        return False
    value = data[start:end].decode()
    try:
        address = ipaddress.IPv4Address(value)
    except ValueError:
        return False
    octets = address.packed
    # Four small numbers are a version, a section or an object identifier more often than a host.
    if not address.is_global or address.is_multicast or value in _PUBLIC or octets[0] == 0:
        return False
    if max(octets) < 32 or max(octets[:3]) < 10:
        return False
    if octets[3] == 0 and octets[2] == 0:
        return False  # a network, not a host
    if len(set(octets)) == 1 or all(len(set(str(octet))) == 1 for octet in octets):
        return False  # 123.123.123.123, 11.22.33.44, 111.222.33.44: made up
    if len({b - a for a, b in pairwise(octets)}) == 1:
        return False  # 101.102.103.104, 40.30.20.10: likewise
    line, rest = source.before(start, 160), source.after(end)
    if _VERSION.search(line[-40:]) or _OPERATOR.search(line):
        return False
    if _URL.search(line) or _ACCOUNT.search(line):
        return True
    return _beside(source, line, rest, octets)


def _beside(source: Source, line: bytes, rest: bytes, octets: bytes) -> bool:
    """What the text on both sides says of four numbers that could be either."""
    host = bool(_HOST.search(line))
    port = bool(_PORT.match(rest))
    versions = bool(_VERSION_WORD.search(line)) or bool(_OR_LATER.match(rest))
    if line.endswith((b"/", b"@")) or (
        rest.startswith((b"/", b"\\")) and not re.match(rb"/\d{1,2}(?!\d)|\\[nrt\"']", rest)
    ):
        return False  # products, paths, packages
    if line.endswith(b":") and not host:
        return False  # coordinates, tags
    if _PATH_DATA.search(line) or _NUMBER_BEFORE.search(line) or _NUMBER_AFTER.match(rest):
        return False
    if host or port:
        return not (source.dependencies and not host)
    if versions or source.dependencies or octets[0] <= 2:  # the arcs of object identifiers are 0, 1 and 2
        return False
    if _PERHAPS_HOST.search(line):
        return True
    if re.search(rb"[\w\])]\s?=\s?\Z", line):  # name=1.2.3.4 without quotes: conda, apt, apk
        return False
    # A minor number or a patch of one digit is a version's more often than a host's.
    return octets[1] >= 10 and octets[2] >= 10


def ipv6(source: Source, hits: Hits) -> Iterator[Candidate]:
    """Global unicast addresses in groups of hexadecimal digits; hits: where `IPV6` matches."""
    data = source.data
    for start, end in hits:
        before, after = data[start - 1 : start] if start else b"", data[end : end + 1]
        if before.isalnum() or before in (b":", b".", b"_", b"-"):
            continue
        if after.isalnum() or after in (b":", b"_", b".", b"-"):
            continue
        value = data[start:end].decode()
        try:
            address = ipaddress.IPv6Address(value)
        except ValueError:
            continue
        groups = value.lower().split(":")
        made_up = (
            sum(len(set(g)) == 1 and len(g) == 4 and g != "0000" for g in groups) > 2
            or "dead" in groups
            or "beef" in groups
        )
        if (
            not made_up
            and address.is_global
            and value.lower() not in _PUBLIC
            and not value.endswith("::")
            and address.packed[0] >> 5 == 1
        ):
            yield Candidate(PLACEHOLDER, ((start, end),))
