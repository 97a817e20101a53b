"""Which words of a comment are a copyright or licence notice. What is in doubt is none.

A comment's rows are cut into paragraphs (by empty rows and by rows that a program reads), a paragraph into sentences (by
punctuation, by rows that begin something new, by short rows). In a paragraph with an unmistakable notice those sentences
go that speak of rights; descriptions, usage, tags and fields stay.
"""

import re
from typing import NamedTuple

from opencoder_data.refinecode.transform.leading_comments import Row

# Cheap: a comment without one of these holds no notice.
MARKER = re.compile(
    r"copyright|licen[sc]e|\(c\)|©|rights reserved|warrant|spdx|free software|redistribut|permission|public domain", re.I
)

# A sentence with one of these is a notice.
_STRONG = re.compile(
    r"""
      \bcopyright(?:ed)?\s*(?:\(c\)|©|&copy;|\d{4}|:|by\b|\W\s*\d{4})
    | ^\W*(?:portions\s+|parts\s+)?copyright\s+(?!(?:headers?|comments?|lines?|checks?|strings?|texts?|checker|data|file\b(?!=)|fields?)\b)[\w"<({]
    | ^\W*(?:copyright|copyleft|licen[sc]e|licensing|legal\s+notice|copyright\s+notice|all\s+rights\s+reserved)\W*$
    | \bcopyright\s+(?:and|-)\s | \bcopyright\s+(?:holders?|owners?)\s+(?:and|or|be|have|has|nor|who|\(c\)|\d{4})
    | \b(?:above|this)\s+copyright\s+notice\b | \bcopyright\s+notices?\s+and\b
    | \bthe\s+copyright\s+(?:holders?|owners?|notice)\b.{0,40}\b(?:and|license|is|shall|all|may|not)\b
    | \(c\)\s*(?:copyright|\d{4}) | ©\s*(?:copyright\s*)?\d{4} | \(c\)\s+by\b
    | \ball\s+rights?\s+reserved\b
    | ^\W*spdx-(?:license|(?:file)?copyright)
    | \blicen[sc]ed\s+(?:under|to\s+the\s+apache|to\s+you|by|for\s+use\s+under|as\s+described\s+in)\b
    | \bunder\s+(?:the\s+)?(?:terms|conditions)(?:\s+and\s+conditions)?\s+of\s+(?:the|this|either|version|an?)\b.{0,120}?\blicen[sc]e\b
    | \b(?:released|distributed|available|published|provided|placed|covered|protected|governed)\s+(?:under|by|in)\b.{0,80}?
        \b(?:licen[sc]e|public\s+domain|gpl|copyright)\b
    | \b(?:apache|mit|bsd|isc|mozilla\s+public|gnu\s+(?:lesser\s+|library\s+|affero\s+)?(?:general\s+)?public|gpl|lgpl|agpl|mpl|epl|eclipse\s+public|
        boost\s+software|zlib|common\s+development\s+and\s+distribution|common\s+public|creative\s+commons|artistic|unlicense|wtfpl|academic\s+free|
        open\s+software|ms|microsoft\s+public|bsd[- ]style|mit[- ]style|x11|psf|python\s+software\s+foundation|zope\s+public|w3c)
        (?:[\s,(v-]+(?:version\s+)?[\d.]+(?:[-\s]clause)?\)?,?|\s+(?:style|type|new|simplified|like)|\s+software|-style|-like)?[\s,'"]*licen[sc]e\b
    | \bpermission\s+(?:is\s+)?(?:hereby\s+|also\s+)?(?:granted|to\s+use,\s+copy) | \bpermission\s+notice\s+(?:shall\s+be|appear)
    | \bredistributions?\s+(?:and\s+use\s+in|of\s+source\s+code|in\s+binary\s+form)\b
    | \bprovided\s+(?:``|"|''|“)?as[\s-]is\b | ["'`“]as[\s-]is["'”] | \bavailable\s+as[\s-]is\b | \bmakes?\s+no\s+(?:\w+\s+(?:or\s+)?){0,3}(?:warrant|representation)
    | \bwithout\s+(?:even\s+the\s+implied\s+|any\s+|express\s+or\s+implied\s+)?warrant(?:y|ies)\b | \babsolutely\s+no\s+warranty\b
    | \bwarranties\s+or\s+conditions\s+of\s+any\s+kind\b | \bmerchantab(?:ility|le)\b
    | \bin\s+no\s+event\s+(?:shall|will)\b
    | \byou\s+should\s+have\s+received\s+a\s+copy\s+of\b
    | \byou\s+may\s+(?:not\s+)?(?:use\s+(?:this|the|it)\b.{0,60}\blicen[sc]e|obtain\s+a\s+copy\s+of)
    | \bunless\s+required\s+by\s+applicable\s+law\b
    | \bneither\s+the\s+names?\s+of\b
    | \b(?:is|are)\s+(?:licensed\s+)?(?:free|open[\s-]source)\s+software\b
    | \bsee\s+(?:the\s+)?(?:accompanying\s+|enclosed\s+|included\s+|top-level\s+|file\s+|files\s+)*["'`<(]*[./\w-]*(?:licen[sc]e|copying|copyright(?:\s+(?:and\s+licen[sc]e\s+)?notice)?|notice)(?:[./]\w+)?["'`>)]*
        (?:\s+files?)?(?:\s+(?:for|in|that|which|at|distributed|included|or)\b|\s*[.,;)]|\s*$)
    | \bsee\s+["'`<(]?(?:licen[sc]e|copying|copyright|notice)(?:[.]\w+)?["'`>)]?\s+(?:for|in)\b
    | \bto\s+whom\s+the\s+software\s+is\s+furnished\b
    | \bgoverned\s+by\s+(?:an?|the)\b.{0,60}?\blicen[sc]e\b
    | ^\W*licen[sc]es?(?:[\s-]+(?:text|url|identifier|type|ref))?\s*:\s | ^\W*licen[sc]e\s*=?\s*\W{0,3}(?:apache|mit|bsd|isc|[al]?gpl|mpl|gnu)\b
    | ^\W*@(?:licen[sc]e|copyright|preserve|lic)\b
    | \b(?:begin|end|start)\s+(?:of\s+)?(?:gpl\s+|lgpl\s+|apache\s+)?(?:licen[sc]e|copyright)\s+(?:block|header|notice|text)\b
    | \b(?:in|into|to)\s+the\s+public\s+domain\b | ^\W*public\s+domain\b | \bis\s+public\s+domain\b
    | \blicen[sc]e\s+that\s+can\s+be\s+found\b
    | \bdistributed\s+under\s+(?:the|an?)\b.{0,80}?\blicen[sc]e\b
    | \bunpublished\b.{0,40}\b(?:work|source|proprietary) | \b(?:company|trade)\s+(?:confidential|secrets?)\b | \bproprietary\s+(?:and|or)\s+confidential\b
    | \bconfidential\s+and\s+proprietary\b
    """,
    re.IGNORECASE | re.VERBOSE,
)

# In a paragraph with a notice, sentences with one of these belong to it.
_WEAK = re.compile(
    r"""
      licen[sc]|copyright|\bredistribut|\bwarrant|\bliab(?:le|ility)|\bdisclaim|\bpermission|\bpermitted\b|\bspdx-
    | \b(?:is|are|be)\s+part\s+of\b | \bfree\s+software\b | \bpublic\s+domain\b | \bsource\s+form\b | \bpatents?\b
    | \bsource\s+code\s+must\b | \bbinary\s+form\b | \bwithout\s+modification\b | \bwithout\s+fee\b | \bfree\s+of\s+charge\b
    | \b(?:gnu|gplv?\d?|lgpl|agpl|mpl|cddl)\b(?!\s+(?:make|emacs|tar|grep|sed|awk|as|ld|gcc|bison|flex|screen)\b) | \bfsf\b
    | \bfranklin\s+st|\btemple\s+place\b | \bmass(?:\s+ave|achusetts\s+ave) | \bboston,?\s+ma\b | \bcambridge,\s+ma\b
    | \bgnu\.org/licen | \bopensource\.org | \bapache\.org/licen | \bmozilla\.org/mpl | \bcreativecommons\.org
    | \bcontributors?\s*(?:\(s\))?\s*: | \binitial\s+developer\b | \boriginal\s+code\b | \bcontents\s+of\s+this\s+file\b | \bversion:?\s+mpl\b
    | \brights?\s+(?:and|reserved|to)\b | \ball\s+copies\b | \bendorse\s+or\s+promote\b | \btrademarks?\b
    | \b(?:remove|retain|keep|preserve)\s+this\s+(?:notice|header|copyright)
    | \bsee\s+(?-i:[^.]{0,40}?\b(?:AUTHORS|CONTRIBUTORS|CREDITS|COPYING|LICEN[SC]E\S*|NOTICE|COPYRIGHT|MAINTAINERS)\b)
    | \bas[\s-]is\b | \bhold\s+harmless\b | \bindemnif | \bsubject\s+to\s+(?:the\s+|these\s+)?(?:following|terms|conditions)
    | \b(?:following|these)\s+(?:conditions|terms|restrictions)\b | \bterms\s+(?:and|of)\b | \backnowledg
    | \bopen[\s-]source\b | \bproprietary\b | \bconfidential\b | \bintellectual\s+property\b | \bexport\s+control
    | \bconsequential\b | \bincidental\b | \bdamages\b | \bfitness\s+for\b | \bimplied\b
    | \bor\s+\(at\s+your\s+option\)|\bat\s+your\s+option\b | \bany\s+later\s+version\b
    | \bthe\s+(?:software|work)\s+(?:is|shall)\b
    | \bany\s+purpose\b | \bmust\s+not\s+be\s+(?:misrepresented|removed|used) | \baltered\s+source\s+versions\b | \bapplicable\s+law\b
    | ^\W*(?:portions|parts)\s+(?:of|by|created|are)\b | ^\W*(?:see\s+)?<?https?://\S+>?\W*$ | ^\W*\(c\)\s
    """,
    re.IGNORECASE | re.VERBOSE,
)

# Rows, from their mark on, that a program reads whatever stands around them.
_MACHINE = re.compile(
    r"""
      -\*-.*-\*- | \b(?:vi|vim|ex):[\s\w] | \bcoding[:=]\s*[\w.-] | \b(?:kate|jEdit|emacs|sublime|atom):\s*\S | \bLocal\s+Variables: | ^\W*End:\s*$
    | ^\#(?:SBATCH|PBS|BSUB|COBALT|FLUX|PJM|OAR|MSUB|QSUB|DW|BB|LSF|[$@%:&\\])(?!\#) | ^\#\s@\s*\w+\s* (?:=|$) | ^\#[A-Z]{2,12}\s+-
    | ^\#(?:compdef|autoload|requires|region|endregion|lang|reader|use|perl|n$) | ^\#\s*requires?\b\s*-
    | ^\#\s*(?:line\s+\d|\d+\s+") | ^\#\s*(?:language|syntax|escape|check|lint|version|description|chkconfig|processname|config|pidfile)\s*[:=]
    | ^[!cC*d][A-Za-z]{0,5}\*?\$ | ^[!cC*]\s?f2py\b | ^[!cC*](?:DIR|DEC|GCC|IBM|PGI|NEC|OCL|CDIR)\b
    | ^//\s*(?:go:|\+build|export\s|line\s|\#) | ^//[A-Z]+(?:_\w+)?\s+\S+[:/@.]\S*$ | ^///usr/ | ^//\$ | ^///?\s*< | ^/{2,3}\s*(?:script\b|$(?<=///))
    | ^--!\w | ^--\s*\+ | ^--\s*(?:migrate|goose|dbmate|liquibase|changeset|preconditions|rollback|name):? | ^-{2,3}\s*@(?!licen|copyr|author)\w | ^--\s*luacheck
    | ^%%?! | ^%&\w | ^%\s*(?:!\s*TEX|arara:|!BIB) | ^%\s*\#
    | ^'\\"\s*[a-z]+\s*$
    | ^\W*@(?!licen[sc]e|copyright|preserve|lic\b|author|version\s+.*licen)\w[\w-]*
    | ^\W*(?:eslint|jshint|jslint|jscs|tslint|stylelint|csslint|htmlhint|standard|prettier|istanbul|c8|v8|biome|oxlint|deno|ts|flowlint|dprint|rome|globals?|exported|sourceMappingURL|webpack\w*)\b(?=\s|:|-|$)(?!\s+(?:is|and|was)\b)
    | ^\W*(?:pylint|flake8|mypy|pyright|ruff|isort|yapf|fmt|black|pytype|type|noqa|nopep8|nosec|pragma|coverage|bandit|cython|distutils|numpydoc|doctest|sphinx|autopep8)\s*[:=]
    | ^\W*(?:rubocop|frozen[_-]string[_-]literal|warn[_-]indent|shareable[_-]constant[_-]value|typed|steep|sorbet|standardrb|reek|simplecov)\s*:
    | ^\W*(?:shellcheck|hadolint|yamllint|ansible-lint|checkov|tflint|tfsec|trivy|kics|markdownlint|cspell|spell-?checker|codespell|textlint|vale|editorconfig|nolint|NOLINT\w*|clang-format|IWYU|rustfmt|clippy|swiftlint|swiftformat|sourcery|ktlint|detekt|scalafmt|scalastyle|CHECKSTYLE|noinspection|PMD|NOPMD|NOSONAR|phpcs|psalm|phpstan|codingStandardsIgnore\w*|credo|dialyzer|hlint|ormolu|fourmolu|stan|perlcritic|perltidy|no\s+critic|luacheck|selene|stylua|lintr|styler|nocov|verilator|verilint|synopsys|synthesis|vsg|pragma|vhdl-linter|cppcheck|cpplint|coverity|lint|LINT|splint|lcov|gcov|gcovr|jscpd|dependabot|renovate|snyk|semgrep|gitleaks|buf|protolint|api-linter|tsp|sqlfluff|noqa|pgformatter|squawk|nixfmt|alejandra|statix|deadnix)\s*[:=(-]
    | ^\W*swift-tools-version | ^\W*(?:dependencies|requires-python)\s*=\s | ^\W*stack\s+(?:--|script|runghc|exec|ghc)|^\W*cabal\s*: | ^\W*yaml-language-server\s*: | \$schema
    | ^\W*(?:RUN|CHECK(?:-\w+)?|REQUIRES|XFAIL|UNSUPPORTED|DEFINE|PR|TEST|OPTIONS|COMPILE)\s*:\s
    | ^\W*(?:chkconfig|processname|config|pidfile|probe|description|summary|keywords|package-requires|maintainer|title|subtitle|slug|layout|template\s+name|plugin\s+name|theme\s+name|text\s+domain|provides|required-start|required-stop|default-start|default-stop|short-description)\s*:\s*\S
    | ^\W*\.(?:SYNOPSIS|DESCRIPTION|PARAMETER|EXAMPLE|INPUTS|OUTPUTS|NOTES|LINK|COMPONENT|ROLE|FUNCTIONALITY|VERSION|GUID)\b
    | ^\W*jscs:|^\W*\[(?:if|endif)|^\#\s*\{?%|^\W*ko\s
    | ^\W*(?:@|\\)(?:file|brief|module|package|fileoverview|namespace|addtogroup|defgroup|ingroup|page|mainpage|class|description|desc|usage|example|see|since|deprecated|internal)\b
    | ^;;;\s+\S+\s+---?\s | ^;;;?\s*(?:Code|Commentary|Change\s?Log|News|Todo|History|Keywords|URL|Homepage|X-\w+|Created|Compatibility|Package-Version)\s*: | \bends\s+here\b
    | ^\W*(?:DEPS|JAVA|SOURCES|FILES|JAVA_OPTIONS|REPOS|KOTLIN|GAV|MAIN|JAVAC_OPTIONS|NATIVE_OPTIONS|CDS|PREVIEW|DESCRIPTION)\s+\S+(?:\s+\S+)?$(?<=\S)
    | ^\W*!?(?:strict|nonstrict|nocheck|native|optimize)\b\W*\d?$
    """,
    re.VERBOSE,
)  # fmt: skip
# From a row with the first to one with the second all rows are read by a program.
_RANGES = (
    (re.compile(r"^\#\s///\s\w"), re.compile(r"^\#\s///\s*$")),
    (re.compile(r"\#\#\#\s+BEGIN\s+INIT\s+INFO"), re.compile(r"\#\#\#\s+END\s+INIT\s+INFO")),
    (re.compile(r"==(\w+)==\s*$"), re.compile(r"==/\w+==\s*$")),
    (re.compile(r"\bLocal\s+Variables:"), re.compile(r"\bEnd:")),
    (re.compile(r"\bBEGIN\s+(?!LICEN|COPYRIGHT|NOTICE|GPL)[A-Z_ ]+$"), re.compile(r"\bEND\b\s+[A-Z_ ]+$")),
)
# Blocks that a program reads as a whole, by their first words.
_WHOLE = re.compile(
    r"\s*(?:(?:stack|cabal)\b(?:\s*:|\s+(?:script|runghc|exec|--)|\s*\n)|PSScriptInfo\b|global\s|globals\s|exported\s|"
    r"(?:[*#/;%\s]*)(?:plugin|theme|template|module|extension)\s+name\s*:|\[if\b|ko\s|#include|esi\b|@cc_on)",
    re.I,
)

# Begins a sentence, whatever stands before it.
_STARTER = re.compile(
    r"""^\W*(?: copyright\b(?!\s+(?:notice|holder|owner|and|law|in)) | \(c\)\s*\d | © | spdx- | licen[sc]e\s*: | all\s+rights\s+reserved | authors?\s*: | written\s+by\b
      | maintain\w+\s*: )
    | ^[-*•+]\s | ^\(?(?:\d{1,2}|[a-zA-Z]|[ivx]{1,4})[.)]\s | ^[@\\$+!%&:={\[] | ^[\w.+-]+\s*[:=](?!//)\s*\w
    | ^(?!and/or\b|he/she\b|\w+[-/]\w+\s+\w+\s+\w+\s+\w)[^\s,]*\w[-_.:=/]\w[^\s,]*(?:\s|$)""",
    re.IGNORECASE | re.VERBOSE,
)
# Begins one unless the row before it breaks off.
_OPENER = re.compile(
    r"""^\W*(?: copyright\b | licen[sc]ed\b | permission\s+(?:is|to)\b | redistribution | (?:this|the)\s | see\b | use\s+of
      | unless\s+required | you\s+(?:may|should|can)\b | distributed\b | released\b | it\s+is | parts?\s+of | portions\b | based\s+on | neither\b
      | in\s+no\s+event | usage\b | note\b | file\b | created\b | description\b | version\b | date\b )""",
    re.IGNORECASE | re.VERBOSE,
)  # fmt: skip
_COPYRIGHT = re.compile(r"^\W*(?:portions\s+)?(?:copyright|\(c\)|©|spdx-|all\s+rights\s+reserved)", re.I)
_HOLDER = re.compile(
    r"^\W*(?:\d{4}\b|\S+\s*@|.{0,60}(?:@|\bat\b).*[>)]\W*$|(?:and|by)\s|.{0,50}\b(?:inc|ltd|llc|gmbh|corp|corporation|foundation|university|"
    r"institute|laborator(?:y|ies)|contributors?|authors|others|company|co|b\.v|s\.a|ag|all\s+rights\s+reserved|reserved)\b\.?\W*$)",
    re.I,
)
_GOES_ON = re.compile(
    r"(?:[,(-]|\b(?:and|or|the|of|by|to|an?|in|under|with|for|is|are|as|that|this|any|see|from|at|be|which|on|not|may|"
    r"if|your|its|without|no|including|either|version|such|other|all|shall|gnu|public|general|lesser|software|free|following))$",
    re.I,
)
_SENTENCE_END = re.compile(r"[.!?:][\"')\]]*$")
_BOUNDARY = re.compile(r"(?<=[.!?])[\"')\]]?\s+(?=[\"'(\[]?[A-Z©@])")
_ABBREVIATION = re.compile(
    r"(?:\b[A-Za-z]|\b(?:inc|ltd|co|corp|dr|mr|mrs|ms|st|jr|sr|vs|e\.g|i\.e|no|dept|univ|prof|etc|al|ver|vol|llc|cf|fig|sec|bros))\.[\"')\]]?$",
    re.I,
)


class Part(NamedTuple):
    """Some of a row's words: from `left` to `right` in the text."""

    row: int
    left: int
    right: int


def machine_rows(text: str, rows: list[Row]) -> list[bool]:
    """Which rows a program reads."""
    out = []
    inside: re.Pattern[str] | None = None
    for row in rows:
        line = text[row.start : row.wall].strip(" \t\r\n\f")
        if inside is not None:
            out.append(True)
            if inside.search(line):
                inside = None
            continue
        closing = next((c for o, c in _RANGES if o.search(line)), None)
        inside = closing if closing is not None and _closes(text, rows, len(out), closing) else None
        words = text[row.left : row.right]
        out.append(inside is not None or _MACHINE.search(line) is not None or _MACHINE.match(words) is not None)
    return out


def _closes(text: str, rows: list[Row], begin: int, closing: re.Pattern[str]) -> bool:
    return any(closing.search(text[r.start : r.wall].strip()) for r in rows[begin + 1 :])


def read_as_a_whole(inside: str) -> bool:
    """Whether a block comment with this inside is read by a program."""
    return _WHOLE.match(inside) is not None


def notice_parts(text: str, rows: list[Row], machine: list[bool]) -> list[Part]:
    """The parts of the rows that are notices."""
    paragraphs: list[list[list[Part]]] = []
    begin = 0
    for i in range(len(rows) + 1):
        if i == len(rows) or rows[i].left == rows[i].right or machine[i]:
            if i > begin:
                paragraphs.append(_sentences(text, rows, begin, i))
            begin = i + 1
    out: list[Part] = []
    strong = [_strong(text, sentences) for sentences in paragraphs]
    if not any(strong):
        return out
    first, last = strong.index(True), len(strong) - 1 - strong[::-1].index(True)
    for i, sentences in enumerate(paragraphs):
        # Behind a notice, a paragraph that speaks of rights twice goes on with it.
        if i == last + 1 and len(_WEAK.findall(" ".join(_words(text, s) for s in sentences))) > 1:
            last = i
        if first <= i <= last:
            for sentence in _legal_sentences(text, sentences, strong[i]):
                out += sentence
    return out


def _words(text: str, sentence: list[Part]) -> str:
    return " ".join(text[p.left : p.right] for p in sentence)


def _strong(text: str, sentences: list[list[Part]]) -> bool:
    return any(_STRONG.search(_words(text, s)) for s in sentences)


def _legal_sentences(text: str, sentences: list[list[Part]], strong: bool) -> list[list[Part]]:
    words = [_words(text, s) for s in sentences]
    legal = [_STRONG.search(w) is not None or _WEAK.search(w) is not None for w in words]
    if not strong:  # between two paragraphs with notices
        return [s for s, w, yes in zip(sentences, words, legal, strict=True) if yes or w in ("or", "and", "either")]
    for i, w in enumerate(words):
        if legal[i] or not i or not legal[i - 1]:
            continue
        # Fragments that end a notice: a name's second half, an address.
        same_row = sentences[i][0].row == sentences[i - 1][-1].row
        short = len(w.split()) <= 3 if same_row else False
        if short or (_COPYRIGHT.match(words[i - 1]) and _HOLDER.match(w)):
            legal[i] = True
    return [s for s, yes in zip(sentences, legal, strict=True) if yes]


def _sentences(text: str, rows: list[Row], begin: int, end: int) -> list[list[Part]]:
    """The sentences of the rows `begin` to `end`."""
    out: list[list[Part]] = []
    for i in range(begin, end):
        row = rows[i]
        pieces = _pieces(text, i, row)
        if out and i > begin and _continues(text, rows[i - 1], row, out[-1]):
            out[-1].append(pieces[0])
        else:
            out.append([pieces[0]])
        out += [[piece] for piece in pieces[1:]]
    return out


def _pieces(text: str, index: int, row: Row) -> list[Part]:
    out = []
    left = row.left
    words = text[row.left : row.right]
    for boundary in _BOUNDARY.finditer(words):
        if _ABBREVIATION.search(words[: boundary.start()]):
            continue
        out.append(Part(index, left, row.left + boundary.start()))
        left = row.left + boundary.end()
    return [*out, Part(index, left, row.right)]


def _continues(text: str, before: Row, row: Row, sentence: list[Part]) -> bool:
    """Whether a row goes on with the sentence that the row before it ends with."""
    previous, words = text[before.left : before.right], text[row.left : row.right]
    broken_off = _GOES_ON.search(previous) is not None
    if _STARTER.match(words) and not (words[:1].islower() and broken_off and " " in words):
        return False
    if _OPENER.match(words) and not words[:1].islower() and not broken_off:
        return False
    if before.mark != row.mark and before.wall == before.end and {before.mark[:3], row.mark[:3]} & {"///", "//!", "#'", "#:", "#!"}:
        return False
    if _SENTENCE_END.search(previous) and not _ABBREVIATION.search(previous):
        return False
    tail = text[sentence[-1].left : sentence[-1].right]
    if _COPYRIGHT.match(_words(text, sentence)) and len(sentence) == 1 and _COPYRIGHT.match(tail):
        return previous.endswith((",", "&", "-")) or previous.endswith((" and", " by")) or _HOLDER.match(words) is not None
    if " " not in words and not words.endswith((".", ",", ";")) and row.wall > row.right:
        return words[-1:].isalnum() is False or text[row.right : row.wall].strip()[:1] in (".", ",", ";")
    return len(previous) + len(words.split(maxsplit=1)[0]) >= 45 or broken_off
