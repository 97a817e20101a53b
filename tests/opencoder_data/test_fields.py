"""Fields of nested dataclasses on a command line: every kind of value, there and back; help; what is not a value."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import pytest
from opencoder_data import fields


@dataclass(frozen=True)
class Pair:
    SYNTAX: ClassVar[str] = "A/B"
    SEPARATOR: ClassVar[str] = ";"

    a: int
    b: int

    def __str__(self) -> str:
        return f"{self.a}/{self.b}"

    @classmethod
    def parse(cls, text: str) -> Pair:
        a, b = text.split("/")
        return cls(int(a), int(b))


@dataclass(frozen=True)
class Part:
    size: Annotated[int, "from 1"] = 3
    """Size of it,
    in bytes."""
    # a comment is not help
    bare: bool = False


@dataclass(frozen=True)
class Whole:
    name: str
    """Its name."""
    part: Part = field(default_factory=Part)
    pairs: tuple[Pair, ...] = ()
    one: Pair | None = None
    words: tuple[str, ...] = ("x", "y")
    rate: float = 1e-3
    limit: int | None = None


BASE = Whole("n")


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("part.size", "1_000", 1000),
        ("part.size", "1e3", 1000),
        ("part.bare", "yes", True),
        ("part.bare", "False", False),
        ("pairs", "1/2;3/4", (Pair(1, 2), Pair(3, 4))),
        ("pairs", "", ()),
        ("one", "5/6", Pair(5, 6)),
        ("one", "", None),
        ("limit", "none", None),
        ("limit", "7", 7),
        ("words", "a,b", ("a", "b")),
        ("rate", "2e-4", 2e-4),
        ("name", "none", "none"),
    ],
)
def test_text_becomes_a_value_of_the_fields_type_and_back(name, text, value):
    changed = fields.set_fields(BASE, {name: text})
    assert dict(fields.leaves(changed))[name] == value
    assert type(dict(fields.leaves(changed))[name]) is type(value)
    again = fields.set_fields(BASE, {name: fields.written(value)})
    assert again == changed
    others = {n: v for n, v in fields.leaves(changed) if n != name}
    assert others == {n: v for n, v in fields.leaves(BASE) if n != name}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"part.size": "1.5"}, "--part.size=1.5: not an int"),
        ({"part.size": "nan"}, "--part.size=nan: not an int"),
        ({"part.size": "1e999"}, "--part.size=1e999: not an int"),
        ({"part.bare": "maybe"}, "--part.bare=maybe: not a true or false"),
        ({"pairs": "1/2;3"}, "--pairs=3: not a A/B"),
        ({"one": "5"}, "--one=5: not a A/B"),
        ({"rate": "fast"}, "--rate=fast: not a float"),
        ({"part.sze": "1"}, "--part.sze: no such field; did you mean --part.size?"),
        ({"searhc": "1"}, "did you mean --search?"),
        ({"size": "1"}, "did you mean --part.size?"),
        ({"part": "1"}, "--part: no such field"),
        ({"rate": None}, "--rate: needs a value, --rate=..."),
    ],
)
def test_what_is_not_a_value_is_one_line(values, said):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        fields.set_fields(BASE, values, own=["search"])
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_help_is_the_string_below_a_field():
    assert fields.help_texts(Part) == {"size": "Size of it, in bytes."}
    shown = fields.describe(Whole).splitlines()
    assert shown[:4] == [
        "  --name=str",
        "      Its name.",
        "  --part.size=int, from 1 (default 3)",
        "      Size of it, in bytes.",
    ]
    assert "  --pairs=A/B;A/B" in shown
    assert "  --words=str,str (default x,y)" in shown
    assert "  --one=A/B" in shown


@pytest.mark.parametrize(
    ("saved", "built"),
    [
        ({"name": "a", "pairs": [{"a": 1, "b": 2}]}, Whole("a", pairs=(Pair(1, 2),))),
        ({"name": "a", "pairs": "1/2", "one": "3/4"}, Whole("a", pairs=(Pair(1, 2),), one=Pair(3, 4))),
        ({"name": "a", "pairs": "", "one": ""}, Whole("a")),
        ({"name": "a", "one": None, "part": {"size": 9}}, Whole("a", part=Part(9))),
        ({"name": "a", "words": ["q"]}, Whole("a", words=("q",))),
    ],
)
def test_saved_values_are_built_also_from_strings_of_older_versions(saved: dict[str, Any], built):
    assert fields.build(Whole, saved) == built


@pytest.mark.parametrize(
    ("saved", "said"),
    [
        ({"name": "a", "part": {"new": 1}}, "unknown field part.new: saved by a newer version"),
        ({}, "name missing"),
        ({"name": "a", "part": 3}, "part: not a saved configuration"),
        ({"name": "a", "pairs": 3}, "pairs: not a saved configuration"),
        ([], "the whole: not a saved configuration"),
    ],
)
def test_what_was_not_saved_by_this_program_is_one_line(saved, said):
    with pytest.raises(ValueError, match=said):
        fields.build(Whole, saved)
