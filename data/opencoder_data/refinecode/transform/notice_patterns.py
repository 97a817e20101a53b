"""Patterns of notices, and of comment lines that programs read. RE2: linear in the text, whatever the text.

Blanks in a pattern are layout; `\\s` means one that counts.
"""

import re

import re2


def _compile(pattern: str, ignore_case: bool = True) -> re2._Regexp:
    options = re2.Options()
    options.max_mem = 64 << 20
    options.case_sensitive = not ignore_case
    options.log_errors = True
    return re2.compile(re.sub(r"\s+", "", pattern), options)


# Cheap: a comment without one of these holds no notice.
MARKER = _compile(
    r"copyright|licen[sc]e|\(c\)|©|rights\sreserved|warrant|spdx|free\ssoftware|redistribut|permission|public\sdomain"
)

_LICENCES = r"""(?:apache|mit|bsd|isc|gnu\s+(?:lesser\s+|library\s+|affero\s+)?(?:general\s+)?public|[al]?gpl|mpl|epl|
    (?:mozilla|eclipse|common|zope|microsoft)\s+public|boost\s+software|zlib|common\s+development\s+and\s+distribution|
    creative\s+commons|artistic|unlicense|wtfpl|academic\s+free|open\s+software|ms|(?:bsd|mit)[\s-]style|x11|psf|
    python\s+software\s+foundation|w3c)"""

# A sentence with one of these is a notice.
STRONG = _compile(
    rf"""
      \bcopyright(?:ed)?\s*(?:\(c\)|©|&copy;|\d\d\d\d|:|by\b|[^\w\s]\s*\d\d\d\d)
    | ^\W*(?:copyright|copyleft|licen[sc]e|licensing|legal\s+notice|copyright\s+notice|all\s+rights\s+reserved)\W*$
    | ^\W*(?:portions\s+|parts\s+)?copyright\s+[<"({{] | ^\W*copyright\s+file=
    | \bcopyright\s+(?:and|-)\s | \bcopyright\s+(?:holders?|owners?)\s+(?:and|or|be|have|has|nor|who|\(c\)|\d\d\d\d)
    | \b(?:above|this)\s+copyright\s+notice\b | \bcopyright\s+notices?\s+and\b
    | \bthe\s+copyright\s+(?:holders?|owners?|notice)\b.{{0,40}}\b(?:and|license|is|shall|all|may|not)\b
    | \(c\)\s*(?:copyright|\d\d\d\d) | ©\s*(?:copyright\s*)?\d\d\d\d | \(c\)\s+by\b
    | \ball\s+rights?\s+reserved\b
    | ^\W*spdx-(?:license|(?:file)?copyright)
    | \blicen[sc]ed\s+(?:under|to\s+the\s+apache|to\s+you|by|for\s+use\s+under|as\s+described\s+in)\b
    | \b(?:under|subject\s+to)\s+(?:the\s+)?(?:terms|conditions)(?:\s+and\s+conditions)?\s+of\s+(?:the|this|either|version|an?)\b.*\blicen[sc]e\b
    | \b(?:released|distributed|available|published|provided|placed|covered|protected|governed)\s+(?:under|by|in)\b.*\b(?:licen[sc]e|public\s+domain|gpl|copyright)\b
    | \b{_LICENCES}(?:[\s,(v-]+(?:version\s+)?[\d.]+(?:[\s-]clause)?\)?,?|\s+(?:style|type|new|simplified|like)|\s+software|-style|-like)?[\s,'"]*licen[sc]e\b
    | \bpermission\s+(?:is\s+)?(?:hereby\s+|also\s+)?(?:granted|to\s+use,\s+copy) | \bpermission\s+notice\s+(?:shall\s+be|appear)
    | \bredistributions?\s+(?:and\s+use\s+in|of\s+source\s+code|in\s+binary\s+form)\b
    | \bprovided\s+(?:``|"|''|“)?as[\s-]is\b | ["'`“]as[\s-]is["'”] | \bavailable\s+as[\s-]is\b
    | \bmakes?\s+no\s+(?:\w+\s+(?:or\s+)?)?(?:\w+\s+(?:or\s+)?)?(?:warrant|representation)
    | \bwithout\s+(?:even\s+the\s+implied\s+|any\s+|express\s+or\s+implied\s+)?warrant(?:y|ies)\b | \babsolutely\s+no\s+warranty\b
    | \bwarranties\s+or\s+conditions\s+of\s+any\s+kind\b | \bmerchantab(?:ility|le)\b
    | \bin\s+no\s+event\s+(?:shall|will)\b
    | \byou\s+should\s+have\s+received\s+a\s+copy\s+of\b
    | \byou\s+may\s+(?:not\s+)?(?:use\s+(?:this|the|it)\b.*\blicen[sc]e|obtain\s+a\s+copy\s+of)
    | \bunless\s+required\s+by\s+applicable\s+law\b
    | \bneither\s+the\s+names?\s+of\b
    | \b(?:is|are)\s+(?:licensed\s+)?(?:free|open[\s-]source)\s+software\b
    | \bsee\s+(?:the\s+)?(?:(?:accompanying|enclosed|included|top-level|files?)\s+)*["'`<(]*[./\w-]*(?:licen[sc]e|copying|copyright(?:\s+(?:and\s+licen[sc]e\s+)?notice)?|notice)(?:[./]\w+)?["'`>)]*
        (?:\s+files?)?(?:\s+(?:for|in|that|which|at|distributed|included|or)\b|\s*[.,;)]|\s*$)
    | \bto\s+whom\s+the\s+software\s+is\s+furnished\b
    | \bgoverned\s+by\s+(?:an?|the)\b.*\blicen[sc]e\b
    | ^\W*licen[sc]es?(?:[\s-]+(?:text|url|identifier|type|ref))?\s*:\s | ^\W*licen[sc]e\s*=?\s*\W?\W?\W?(?:apache|mit|bsd|isc|[al]?gpl|mpl|gnu)\b
    | ^\W*@(?:licen[sc]e|copyright|preserve|lic)\b
    | \b(?:begin|end|start)\s+(?:of\s+)?(?:gpl\s+|lgpl\s+|apache\s+)?(?:licen[sc]e|copyright)\s+(?:block|header|notice|text)\b
    | \b(?:in|into|to)\s+the\s+public\s+domain\b | ^\W*public\s+domain\b | \bis\s+public\s+domain\b
    | \blicen[sc]e\s+that\s+can\s+be\s+found\b
    | \bdistributed\s+under\s+(?:the|an?)\b.*\blicen[sc]e\b
    | \bunpublished\b.*\b(?:work|source|proprietary) | \b(?:company|trade)\s+(?:confidential|secrets?)\b | \bproprietary\s+(?:and|or)\s+confidential\b
    | \bconfidential\s+and\s+proprietary\b
    """
)
# "Copyright Acme", not "Copyright headers are checked here": anchored, and asked only of what begins so.
COPYRIGHT_OF = re.compile(
    r"\W*(?:(?:portions|parts)\s+)?copyright\s+(?!(?:headers?|comments?|lines?|checks?|strings?|texts?|checker|data|file|fields?)\b)\w",
    re.I,
)

# What a program does with notices is none.
ABOUT = re.compile(
    r"\W*(?:(?:this|the|an?)\s+[\w.-]+(?:\s+\w+)?\s+)?(?:will\s+)?(?:checks?|verif(?:y|ies)|adds?|inserts?|parses?|detects?|scans?|generates|updates|"
    r"lists|removes?|strips?|prints|extracts?|validates?|tests|finds|enforces?|manages|prepends?|reads|shows|collects?|compares?)\b"
    r"(?!.*(?:\b(?:licen[sc]ed|distributed|released)\s+under|rights\s+reserved|\(c\)|©|copyright\s+\d{4}))",
    re.I,
)

# In a paragraph with a notice, sentences with one of these belong to it.
WEAK = _compile(
    r"""
      licen[sc]|copyright|\bredistribut|\bwarrant|\bliab(?:le|ility)|\bdisclaim|\bpermission|\bpermitted\b|\bspdx-
    | \b(?:is|are|be)\s+part\s+of\b | \bfree\s+software\b | \bpublic\s+domain\b | \bsource\s+form\b | \bpatents?\b
    | \bsource\s+code\s+must\b | \bbinary\s+form\b | \bwithout\s+modification\b | \bwithout\s+fee\b | \bfree\s+of\s+charge\b
    | \bgnu\s+(?:lesser|library|affero|general|public|gpl|lgpl|free)\b | \b(?:gplv?\d?|lgpl|agpl|mpl|cddl|fsf)\b
    | \bfranklin\s+st|\btemple\s+place\b | \bmass(?:\s+ave|achusetts\s+ave) | \bboston,?\s+ma\b | \bcambridge,\s+ma\b
    | \bgnu\.org/licen | \bopensource\.org | \bapache\.org/licen | \bmozilla\.org/mpl | \bcreativecommons\.org
    | \bcontributors?\s*(?:\(s\))?\s*: | \binitial\s+developer\b | \boriginal\s+code\b | \bcontents\s+of\s+this\s+file\b | \bversion:?\s+mpl\b
    | \brights?\s+(?:and|reserved|to)\b | \ball\s+copies\b | \bendorse\s+or\s+promote\b | \btrademarks?\b
    | \b(?:remove|retain|keep|preserve)\s+this\s+(?:notice|header|copyright)
    | \bsee\s(?-i:[^.]*\b(?:AUTHORS|CONTRIBUTORS|CREDITS|COPYING|LICEN[SC]E\S*|NOTICE|COPYRIGHT|MAINTAINERS)\b)
    | \bas[\s-]is\b | \bhold\s+harmless\b | \bindemnif | \bsubject\s+to\s+(?:the\s+|these\s+)?(?:following|terms|conditions)
    | \b(?:following|these)\s+(?:conditions|terms|restrictions)\b | \bterms\s+(?:and|of)\b | \backnowledg
    | \bopen[\s-]source\b | \bproprietary\b | \bconfidential\b | \bintellectual\s+property\b | \bexport\s+control
    | \bconsequential\b | \bincidental\b | \bdamages?\b | \bfitness\s+for\b | \bimplied\b | \bnoninfringement\b
    | \bat\s+your\s+option\b | \bany\s+later\s+version\b
    | \bthe\s+(?:software|work)\s+(?:is|shall)\b
    | \bany\s+purpose\b | \bmust\s+not\s+be\s+(?:misrepresented|removed|used) | \baltered\s+source\s+versions\b | \bapplicable\s+law\b
    | ^\W*(?:portions|parts)\s+(?:of|by|created|are)\b | ^\W*(?:see\s+)?<?https?://\S+>?\W*$ | ^\W*\(c\)\s
    """
)

# Beside a paragraph with a notice, what consists of these belongs to it.
PART_OF = re.compile(r"\W*(?:this\s+(?:\w+\s+){1,2}(?:is|are)\s+(?:a\s+)?part\s+of\b|\(c\)\s+\w)", re.I)

_TOOLS = r"""(?:eslint|jshint|jslint|jscs|tslint|stylelint|csslint|htmlhint|prettier|istanbul|c8|v8|biome|oxlint|deno|ts|flowlint|dprint|rome|
    sourceMappingURL|webpack\w*|pylint|flake8|mypy|pyright|ruff|isort|yapf|fmt|black|pytype|type|noqa|nopep8|nosec|pragma|coverage|bandit|cython|
    distutils|numpydoc|doctest|sphinx|autopep8|rubocop|frozen[_-]string[_-]literal|warn[_-]indent|shareable[_-]constant[_-]value|typed|steep|
    sorbet|standardrb|reek|simplecov|shellcheck|hadolint|yamllint|ansible-lint|checkov|tflint|tfsec|trivy|kics|markdownlint|cspell|
    spell-?checker|codespell|textlint|vale|editorconfig|nolint|NOLINT\w*|clang-format|IWYU|rustfmt|clippy|swiftlint|swiftformat|sourcery|ktlint|
    detekt|scalafmt|scalastyle|CHECKSTYLE|noinspection|PMD|NOPMD|NOSONAR|phpcs|psalm|phpstan|codingStandardsIgnore\w*|credo|dialyzer|hlint|
    ormolu|fourmolu|stan|perlcritic|perltidy|luacheck|selene|stylua|lintr|styler|nocov|verilator|verilint|synopsys|synthesis|vsg|vhdl-linter|
    cppcheck|cpplint|coverity|lint|LINT|splint|lcov|gcov|gcovr|jscpd|dependabot|renovate|snyk|semgrep|gitleaks|buf|protolint|api-linter|tsp|
    sqlfluff|pgformatter|squawk|nixfmt|alejandra|statix|deadnix)"""
_FIELDS = r"""(?:chkconfig|processname|config|pidfile|probe|description|summary|keywords|package-requires|maintainer|title|subtitle|slug|layout|
    (?:template|plugin|theme|module|extension)\s+name|text\s+domain|provides|required-start|required-stop|should-start|should-stop|default-start|
    default-stop|short-description|yaml-language-server|swift-tools-version|language|syntax|escape|check|RUN|CHECK(?:-\w+)?|REQUIRES|XFAIL|
    UNSUPPORTED|DEFINE|OPTIONS|COMPILE|cabal|kate|jEdit|emacs|sublime|atom)"""

# Comment lines, from their mark on, that a program reads whatever stands around them.
MACHINE = _compile(
    rf"""
      -\*-.*-\*- | \b(?:vi|vim|ex):[\s\w] | \bcoding[:=]\s*[\w.-] | \bLocal\s+Variables: | ^\W*End:\s*$
    | ^\#(?:SBATCH|PBS|BSUB|COBALT|FLUX|PJM|OAR|MSUB|QSUB|DW|BB|LSF)\b | ^\#[$@%&\\] | ^\#:\S | ^\#\s@\s*\w+\s*(?:=|$) | ^\#[A-Z]{{2,12}}\s+-
    | ^\#(?:compdef|autoload|[Rr]equires|REQUIRES|region|endregion|lang|reader|use|perl|n$) | ^\#\s*[Rr]equires?\s+-
    | ^\#\s*(?:line\s+\d|\d+\s+")
    | ^[!cC*d][A-Za-z]*\*?\$ | ^[!cC*]\s?f2py\b | ^[!cC*](?:DIR|DEC|GCC|IBM|PGI|NEC|OCL|CDIR)\b
    | ^//\s*(?:go:|\+build|export\s|line\s|\#) | ^//(?:DEPS|JAVA|SOURCES|FILES|JAVA_OPTIONS|REPOS|KOTLIN|GAV|MAIN|JAVAC_OPTIONS|NATIVE_OPTIONS|CDS|PREVIEW|
        DESCRIPTION|MANIFEST|JAVAAGENT|GROOVY|MODULE|NOINTEGRATIONS|RUNTIME_OPTIONS|DOCS)\b
    | ^///usr/ | ^//\$ | ^///\s*<(?:reference|amd-|summary|remarks|param|returns|example|value|include|inheritdoc) |
        ^//\s*<auto-generated | ^///?\s*script\b
    | ^--!\w | ^--\s*\+ | ^--\s*(?:migrate|goose|dbmate|liquibase|changeset|preconditions|rollback|name|atlas|sqlc)\b:?
    | ^%%?! | ^%&\w | ^%\s*(?:!\s*TEX|arara:|!BIB) | ^%\s*\#
    | ^'\\"\s*[a-z]+\s*$
    | ^\W*{_TOOLS}\s*[:=(] | ^\W*{_TOOLS}-\w | ^\W*(?:nolint|noqa|NOLINT|NOSONAR|NOPMD)\W*$
    | ^\W*(?:globals?|exported)\s+\w+\s*(?:[,:]|\W*$) | ^\W*{_FIELDS}\s*:\s*\S | ^\W*(?:dependencies|requires-python)\s*=\s
    | ^\W*stack\s+(?:--|script|runghc|exec|ghc) | \$schema
    | ^\W*\.(?:SYNOPSIS|DESCRIPTION|PARAMETER|EXAMPLE|INPUTS|OUTPUTS|NOTES|LINK|COMPONENT|ROLE|FUNCTIONALITY|VERSION|GUID)\b
    | ^\W*\[(?:if|endif) | ^\#\s*\{{?%
    | ^;;;\s+\S+\s+---?\s | ^;;;?\s*(?:Code|Commentary|Change\s?Log|News|Todo|History|Keywords|URL|Homepage|X-\w+|Created|Compatibility|Version|Package-\w+)\s*:
    | \bends\s+here\b | ^\W*!?(?:strict|nonstrict|nocheck|native)\W*$
    """,
    ignore_case=False,
)
# A tag of a documentation or pragma comment, but for the legal ones.
TAG = re.compile(r"\W*?[@\\](?!(?:licen[sc]e|copyright|preserve|lic|authors?)\b)[A-Za-z][\w-]*")
# From a row with the first to one with the second all rows are read by a program.
RANGES = (
    (re.compile(r"^#\s///\s\w"), re.compile(r"^#\s///\s*$")),
    (re.compile(r"^#{1,4}\s*BEGIN\s+INIT\s+INFO"), re.compile(r"^#{1,4}\s*END\s+INIT\s+INFO")),
    (re.compile(r"==(\w+)==\s*$"), re.compile(r"==/\w+==\s*$")),
    (re.compile(r"\bLocal\s+Variables:"), re.compile(r"\bEnd:")),
)
RANGE_MARKER = re.compile(r"# ///|BEGIN INIT|==\s*$|Local Variables:", re.MULTILINE)
# Blocks that a program reads as a whole, by their first words.
WHOLE = re.compile(
    r"\s*(?:(?:stack|cabal)\b(?:\s*:|\s+(?:script|runghc|exec|--)|\s*\n)|PSScriptInfo\b|globals?\s|exported\s|"
    r"(?:[*#/;%\s]{0,40})(?:plugin|theme|template|module|extension)\s+name\s*:|\[if\b|ko\s|#include|esi\b|@cc_on)",
    re.I,
)
