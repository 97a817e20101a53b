"""E-mail addresses, told from operators, labels, slots, links, versions and accounts of services that look like them."""

import re
import unicodedata
from collections.abc import Iterator

from opencoder_data.refinecode.transform.candidates import Candidate, Hits, Source, words
from opencoder_data.refinecode.transform.message_ids import is_message_id

PLACEHOLDER = b"<email>"

MARK = r"[A-Za-z0-9._%+\x80-\xff-]@"
_LOCAL = re.compile(rb"[A-Za-z0-9._%+\x80-\xff-]{1,130}\Z")
_DOMAIN = re.compile(r"(?:\w(?:[\w-]{0,62}\w)?\.){1,6}(?:xn--[a-z0-9-]{2,40}|[^\W\d_]{2,18})")

_EXAMPLE_DOMAIN = re.compile(
    r"(?:^|\.)(?:example\.(?:com|org|net|edu)|(?:my|your|some)?(?:domain|company|site|host|server|mail|email)\.(?:com|org|net|tld)"
    r"|test\.(?:com|org|net)|foo\.(?:com|org|net|bar)|bar\.(?:com|org|net)|acme\.(?:com|org)|email\.address|b\.c|b\.com)$"
    r"|\.(?:example|invalid|test|localhost|local|localdomain|internal|lan)$|(?:^|\.)noreply\.github\.com$",
    re.IGNORECASE,
)
_EXAMPLE_LOCAL = words(
    "git hg svn user username users name you your your.name youremail your_email yourname email mail me someone somebody foo bar test "
    "example noreply no-reply no_reply donotreply first.last firstname.lastname john.doe johndoe jane.doe joe"
)
_GENERIC_DOMAINS = words(
    "com org net edu gov mil int info biz name pro mobi jobs travel museum aero coop asia tel cat post dev app io ai me tv "
    "xyz online site tech store blog cloud email space live news world life today agency solutions systems software "
    "company center digital network academy institute university engineering consulting technology social team group"
)
# Country codes, less those that end file names or attribute chains in code far more often than addresses.
_COUNTRIES = words(
    "ac ad ae af ag al am ao ar at au az ba bb bd be bg bh bi bj bm bn bo br bs bt bw by bz ca cd cf cg ch ci ck cl cm cn co "
    "cr cu cv cy cz de dj dk dm do dz ec ee eg es et eu fi fj fm fr ga ge gh gi gl gm gn gr gt gy hk hn hr ht hu id ie il im "
    "in iq ir is it jm jo jp ke kg kh kr kw ky kz la lb li lk lr lt lu lv ly ma mc md mg mk mn mo mr mt mu mv mw mx my mz na "
    "nc ne ng ni nl no np nu nz om pa pe pg ph pk pl pr ps pt pw qa re ro ru rw sa sc sd se sg si sk sl sm sn sr st su sv sy "
    "sz tc td tg th tj tk tl tm tn to tr tt tw tz ua ug uk us uy uz va vc ve vg vi vn vu ws ye za zm zw"
)
_BEYOND_ASCII = words(
    "рф рус укр бел срб мкд мон қаз бг ею ευ ελ გე հայ москва дети онлайн сайт орг ком 中国 中國 香港 澳門 台湾 台灣 新加坡 公司 网络 網絡 "
    "在线 商城 한국 닷컴 닷넷 みんな コム ไทย भारत السعودية امارات مصر الاردن ایران ישראל קום"
)
# Top-level domains that are also names of attributes, methods and tables.
_ATTRIBUTES = words(
    "name id it me is in to at by my no so be am as do pro info net int group store space live digital network team social email cat "
    "post app io tel world life today center company news site online tech software systems re sc st ps tc sh ms pa"
)
# First parts that are code: labels, receivers, slots' owners.
_CODE_LOCAL = words("this super self object obj .object return break continue yield x y z xs f g h a b")
_CODE_DOMAIN = words("self this super np torch tf jnp math object obj")

_SERVICE_DOMAIN = re.compile(
    r"(?:^|\.)(?:gserviceaccount\.com|calendar\.google\.com|appspot\.com|cloudbuild\.com|noreply\.gitlab\.com|openssh\.com|libssh\.org|gnome-shell-extensions\.[a-z.]+|users\.noreply\.[a-z.]+)$"
    r"|\.(?:svc|cluster|svc\.cluster\.local)$",
    re.IGNORECASE,
)
_SERVICE_LOCAL = re.compile(
    r"(?:rabbit|rabbitmq|ejabberd|couchdb|couch|riak|riak_kv|emqx|vernemq|mongooseim|nonode|node|nodes|worker|server|master|slave|erl|antidote)\d*$"
    r"|(?:svc|service)[._-]",
    re.IGNORECASE,
)
# What stands before an account on a machine, a node, a remote table or a package rather than an address.
_NOT_MAIL_BEFORE = re.compile(
    rb"(?:\b(?:ssh|scp|sftp|rsync|sshfs|mosh|autossh|ssh-copy-id|sqlplus|rdesktop|xfreerdp|telnet|mstsc|psql|mysql|ansible|fab|pssh|ssh-keyscan)\b"
    rb"(?![^\n]{0,80}\b(?:e-?mail|contact|mailto)\b)[^\n]*"
    rb"|(?:^|\s)-(?:name|sname|remsh)\s+['\"]?"
    rb"|\b(?:ERL_NODE|NODENAME|NODE_NAME|RELEASE_NODE|erlang|net_adm|net_kernel|Node)\b[^\n]*"
    rb"|\b(?:node|nodes|seed_nodes?|cluster_nodes?|cookie)['\"]?\s*(?:=>|[=:(,])[\s\[{]*['\":]{0,3}"
    rb"|\b(?:select\b[^\n]*\b(?:from|join)|insert\s+into|delete\s+from|merge\s+into|update|join|desc(?:ribe)?|truncate\s+table|"
    rb"create\s+(?:public\s+)?(?:synonym|view|table)\b[^\n]*(?:for|from|as\s+select\b[^\n]*from))\s+(?:[\w$\"]+\.)?"
    rb"|\b(?:uuid|gecko|(?:extension|add-?on|plugin)[-_ ]?id)\b['\"]?\s*[:=,]\s*(?:\{\s*['\"]?id['\"]?\s*:\s*)?['\"]?"
    rb"|\b(?:serviceAccount|serviceAccounts?|service[-_ ]account|principal|npm|jsr|gem|pkg|purl|jdbc:[a-z:]+|cpe|urn|swid|spiffe|oci|docker|git\+ssh|xmpp|jabber|sips?|skype|irc)"
    rb"\s{0,2}[:=]\s{0,2}['\"]?(?:[\w.%+-]{0,60}/)?)\Z",
    re.IGNORECASE,
)
_MAIL_BEFORE = re.compile(
    rb"(?:e-?mails?|mailto:|contacts?|authors?|maintain\w*|owners?|by|from|cc|bcc|reply|reach|write|send|bugs?|report\w*|support|copyright|\(c\)|\xc2\xa9"
    rb"|questions?|feedback|sender|recipients?|committer|signed-off-by|co-authored-by|reviewed-by|thanks|credits?|address|admin\w*|webmaster)"
    rb"\b[^\n@]{0,40}\Z|<\s*\Z",
    re.IGNORECASE,
)
_CODE_BEFORE = re.compile(rb"(?:[-=+*/(\[,{|&!]|\b(?:return|in|if|and|or|not|print|assert|yield))\s*\Z")
_PROSE_BEFORE = re.compile(rb"(?<!\bif)(?<!\bfor)(?<!\bwhile)(?<=\w) \(\Z")
_NAMES_BEFORE = re.compile(rb"\b[A-Z][a-z]+[ ,]+(?:[A-Z]\.? )?[A-Z][a-z'-]+[ ,;:<(-]*\Z")


def emails(source: Source, hits: Hits) -> Iterator[Candidate]:
    """Addresses, as they are in any text; where they are in code is looked at later. hits: where `MARK` matches."""
    data = source.data
    for _, after in hits:
        at = after - 1
        local = _LOCAL.search(data, max(0, at - 130), at)
        domain = _DOMAIN.match(data[at + 1 : at + 400].decode("utf-8", "ignore"))
        if local is None or domain is None:
            continue
        start = _start(data, local.start(), at)
        end = at + 1 + len(domain.group().encode())
        if start < at and _is_address(source, start, at, end, domain.group()):
            yield Candidate(PLACEHOLDER, ((start, end),))


def _start(data: bytes, start: int, at: int) -> int:
    """Where the local part begins, which ends at `at`: letters with case belong to it whatever the script, and others only
    where it has none of ASCII (a sentence in Chinese runs up to an address without a space)."""
    text = data[start:at].decode("utf-8", "ignore")
    ascii_only = text[-1:].isascii()
    keep = len(text)
    while keep and _belongs(text[keep - 1], ascii_only):
        keep -= 1
    text = text[keep:].lstrip("._%+-")
    begin = at - len(text.encode())
    # An escape before it, as in "\nname@...", is none of it.
    if data[begin - 1 : begin] == b"\\" and begin and text[:1] in "nrt" and text[1:2].isalnum():
        begin += 1
    return begin


def _belongs(character: str, ascii_only: bool) -> bool:
    if character.isascii():
        return character.isalnum() or character in "._%+-"
    category = unicodedata.category(character)
    return category in ("Lu", "Ll", "Lt", "Mn", "Mc") or (not ascii_only and category in ("Lo", "Lm"))


def _is_address(source: Source, start: int, at: int, end: int, domain: str) -> bool:
    data = source.data
    local = data[start:at].decode("utf-8", "ignore")
    labels = domain.split(".")
    top = labels[-1]
    lower = top.lower()
    if len(local) > 64 or ".." in local or local.endswith("."):
        return False
    if (
        lower not in _GENERIC_DOMAINS
        and lower not in _COUNTRIES
        and lower not in _BEYOND_ASCII
        and not lower.startswith("xn--")
    ):
        return False
    if top not in (lower, top.upper()) and lower not in ("com", "org", "edu"):  # a property: user@Model.Email
        return False
    before, after = data[start - 1 : start] if start else b"", data[end : end + 1]
    # Calls and attributes (`a@b.to(x)`), scp paths (`git@host.org:path`), ports, the tail of a longer word.
    if after.isalnum() or (
        after in (b"(", b"[", b"_", b"@", b"/", b"{", b"\\")
        and data[end : end + 2] not in (b"\\n", b"\\r", b"\\t", b'\\"', b"\\'")
    ):
        return False
    if before in (b"@", b"/", b"\\", b"&", b"$", b"%", b"}", b"#", b"~", b"!"):
        return False
    if before == b"=" and data[start - 2 : start - 1] in (b"=", b"!", b"<", b">", b"+"):
        return False
    # With three labels a host's name rather than a mail domain's: `user@build.acme.org:docs`.
    path = rb":[\w~./-]" if len(labels) > 2 else rb":(?:\d|[\w~./-]*/)"
    if (after == b":" and re.match(path, data[end : end + 80])) or re.match(rb"\.\w", data[end : end + 2]):
        return False
    numbers = [
        label for label in labels[:-1] if re.fullmatch(r"\d+x?", label)
    ]  # left@3.2.io, icon@2x.app, but not 163.com
    if numbers == labels[:-1] and (len(numbers) > 1 or len(numbers[0]) < 3):
        return False
    if local.lower() in _EXAMPLE_LOCAL or _EXAMPLE_DOMAIN.search(domain):
        return False
    if _SERVICE_DOMAIN.search(domain) or _SERVICE_LOCAL.match(local):
        return False
    line = source.before(start, 160)
    # Credentials of a URL are another rule's.
    if (
        re.search(rb"://[^\s/@\"']*\Z", line)
        or _NOT_MAIL_BEFORE.search(line)
        or is_message_id(data, start, local, line)
    ):
        return False
    return _clear(source, local, labels, line, end)


def _clear(source: Source, local: str, labels: list[str], line: bytes, end: int) -> bool:
    """Whether it is not an expression of a programming language: a receiver, a slot, an operator between two names."""
    if local.lower() in _CODE_LOCAL or labels[0].lower() in _CODE_DOMAIN:
        return bool(re.search(rb"mailto:\Z|\w <\Z", line)) and source.data[end : end + 1] != b"("
    if len(labels) != 2 or labels[1].lower() not in _ATTRIBUTES:
        return True
    if _NAMES_BEFORE.search(line):
        return True
    if re.match(r"[A-Z]\w*[a-z]", labels[0]):  # a type: this@Fragment.id
        return bool(re.search(rb"<\s*\Z|mail", line, re.IGNORECASE))
    if not (re.fullmatch(r"[A-Za-z_]\w*", local) and labels[0].isidentifier()):
        return True
    if _MAIL_BEFORE.search(line) or _PROSE_BEFORE.search(line) or re.fullmatch(rb"[\s/*#;%!\"'`<-]*", line):
        return True
    return len(local) > 2 and not _CODE_BEFORE.search(line)
