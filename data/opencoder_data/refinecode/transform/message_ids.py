"""Identifiers of messages, articles and calendar entries that are written like e-mail addresses: they name a text, no person."""

import re

# Fields whose values are identifiers, with what of the value comes before this one.
_FIELD = re.compile(
    rb"(?:^|[^\w-])(?:x-|resent-|original-|list-|thread-|obsoletes-)*(?:message|msg|content|parent|thread|article|post|discussion)"
    rb"[-_ ]?ids?\b['\"]?\)?\s*(?:=>|[:=(,]|is\b)?[^\n@]{0,12}(?:<[^\s<>@]+@[^\s<>@]+>[\s,;]*)*[<'\"\[(]*[\w=+$-]*\Z"
    rb"|(?:^|[^\w-])(?:in[-_ ]?reply[-_ ]?to|references?|supersedes|obsoletes)['\"]?\s*(?:=>|[:=,])[^\n@]{0,12}(?:<[^\s<>@]+@[^\s<>@]+>[\s,;]*)*[\s'\"\[(]*<[\w=+$-]*\Z"
    rb"|(?:^|[^\w-])(?:mid|cid|msgid|news|nntp|uid|gmane):\s*(?:/{2,3}[\w./:-]*)?[<'\"]*\Z",
    re.IGNORECASE,
)
# Lines that go on with such a field.
_FOLDED = re.compile(rb"[\s*#;%/!>\"'-]*(?:<[^\s<>@]+@[^\s<>@]+>[\s,;]*)*<\Z")
_FIELD_LINE = re.compile(
    rb"(?:^|[^\w-])(?:[\w-]*(?:message|content|msg)[-_]?ids?|in[-_]reply[-_]to|references)\s*:[^\n]*@?", re.IGNORECASE
)
# As mail programs make them: times, counters, random digits.
_MADE = re.compile(
    r"""(?: (?:19|20)\d{2}[01]\d[0-3]\d(?:T?\d{4,6}Z?)?[._-] | \d{8,}\.(?=.*[A-Za-z\d]) | (?:19|20)\d\d[A-Z][a-z]{2}\d{1,2}\.\d
        | [0-9A-F]{8}\.[0-9A-F]{6,8}$ | CA[A-Za-z0-9_+=-]{24,}$ | (?:Pine|alpine|pine)\.[A-Z]{3,4}\. | \d+\.JavaMail | [0-9A-Fa-f]{24,}$
        | [0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}$
        | .*(?: \.fsf(?:_-_|\d*)$ | \.qmail$ | \.G[A-Z]\d{2,6}$ | -git-send-email- | \$[0-9a-f]{4,}\$ | \.\d{3,}\.\d{3,} ) )""",
    re.VERBOSE,
)  # fmt: skip


def is_message_id(data: bytes, start: int, local: str, line: bytes) -> bool:
    """Whether what looks like an address at `start` is an identifier. line: what is before it on its line, or the end of that."""
    if line.endswith(b"=") and b"<" in line:  # of a local part that is cut there
        local = line[line.rindex(b"<") + 1 :].decode("utf-8", "replace") + local
    if _MADE.match(local) or _FIELD.search(line):
        return True
    if not line.endswith(b"<") or not _FOLDED.fullmatch(line):
        return False
    end = max(0, start - len(line) - 1)
    for _ in range(8):  # lines back to the field
        begin = data.rfind(b"\n", max(0, end - 1_000), end) + 1
        before = data[begin:end]
        if _FIELD_LINE.search(before):
            return True
        if not end or not _FOLDED.fullmatch(before.rstrip(b"\r\n >,;").rsplit(b"@", 1)[0].rsplit(b"<", 1)[0] + b"<"):
            return False
        end = max(0, begin - 1)
    return False
