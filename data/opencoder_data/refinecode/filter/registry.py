"""The table of signals: name -> function, per profile, with what the report says of it."""

from collections.abc import Callable
from dataclasses import dataclass

from .document_view import View

Value = float | None
PRECISION = 8

LANGUAGE_OF_PREFIX = {
    "qsc_codecpp_": "cpp",
    "qsc_codecsharp_": "csharp",
    "qsc_codec_": "c",
    "qsc_codego_": "go",
    "qsc_codehtml_": "html",
    "qsc_codejava_": "java",
    "qsc_codejavascript_": "javascript",
    "qsc_codepython_": "python",
}


@dataclass(frozen=True)
class Signal:
    """A named number of a document. `family`: 'text', 'code' or a language. `published`: one of the 118."""

    name: str
    family: str
    about: str
    compute: Callable[[View], Value]
    published: bool


_DEFAULT: dict[str, Signal] = {}
_COMPAT: dict[str, Signal] = {}


def family_of(name: str) -> str:
    """Family a signal's name puts it into."""
    for prefix, language in LANGUAGE_OF_PREFIX.items():
        if name.startswith(prefix):
            return language
    if name.startswith(("qsc_code_", "x_code_")):
        return "code"
    return "text"


def signal(*names: str, profile: str = "both", about: str | None = None):
    """Register a function as the signal(s) `names`. profile: 'both', 'default' or 'compat'; a compat entry replaces
    the shared one there. Names beginning with `qsc_` are published ones."""

    def register(fn: Callable[[View], Value]):
        for name in names:
            entry = Signal(name, family_of(name), about or " ".join((fn.__doc__ or "").split()), fn, name[:4] == "qsc_")
            if profile in ("both", "default"):
                assert name not in _DEFAULT, name
                _DEFAULT[name] = entry
            if profile in ("both", "compat"):
                assert profile == "compat" or name not in _COMPAT, name
                _COMPAT[name] = entry
        return fn

    return register


def signals(profile: str) -> dict[str, Signal]:
    """All signals of a profile ('default' or 'compat')."""
    from . import _load

    _load()
    if profile not in ("default", "compat"):
        raise ValueError(f"filter profile {profile!r} is unknown; use 'default' or 'compat'")
    return _DEFAULT if profile == "default" else _COMPAT


def ratio(part: float, whole: float) -> Value:
    """part / whole, rounded to eight decimals as published; None when there is nothing to divide by."""
    return round(float(part / whole), PRECISION) if whole else None
