"""Stop strings and streams of text: on bytes, for any cut of tokens, characters and blocks."""

from pathlib import Path

import pytest
from opencoder_data.tokenizer import Tokenizer
from opencoder_data.tokenizer.train import train

from opencoder_jax.inference import stops as module
from opencoder_jax.inference.stops import Stops, TextStream


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    texts = [Path(__file__).read_text(), Path(module.__file__).read_text()]
    return Tokenizer(train(texts, 512, tmp_path_factory.mktemp("tokenizer"), num_threads=1, progress=False))


def play(tokenizer, ids, stops, block, **options):
    """The stream and its text after `block` tokens at a time, up to the stop."""
    stream, text = TextStream(tokenizer.token_bytes, Stops(stops), **options), ""
    for at in range(0, len(ids), block):
        text += stream.feed(ids[at : at + block], last=at + block >= len(ids))
        if stream.stopped:
            break
    return stream, text


BYTES = "é→\U0001f600"  # 2, 3 and 4 bytes, none with a piece of its own


@pytest.mark.parametrize("block", [1, 2, 3, 5, 16])
@pytest.mark.parametrize(
    ("text", "stops", "expected"),
    [
        ("def f(x):\n    return x\n\n\ndef g", ["\ndef "], "def f(x):\n    return x\n\n"),
        ("a b c d e f", ["c d"], "a b "),
        ("one two three", ["three", "two"], "one "),  # two stops: the one that begins first
        ("xyz tail", ["y", "xyz"], ""),  # nested: the longer one begins first
        ("xyq tail", ["y", "xyz"], "x"),  # its beginning came to nothing
        ("aab", ["ab"], "a"),  # a false start
        (f"ab{BYTES}cd", ["\U0001f600"], "abé→"),
        (f"ab{BYTES}cd", ["→\U0001f600c", "zz"], "abé"),
        (f"ab{BYTES}cd", ["é"], "ab"),
        (f"ab{BYTES}cd", ["\ufffd"], f"ab{BYTES}cd"),  # half a character is not a replacement character
        ("stop", ["stop"], ""),
        ("no such thing", ["never", "n\n"], "no such thing"),
        ("ends wit", ["with"], "ends wit"),  # only the beginning of a stop
    ],
)
def test_stops_wherever_tokens_and_characters_are_cut(tokenizer, block, text, stops, expected):
    """Text ends before the stop that begins first, for any size of block; tokens are the fewest that hold the text."""
    for ids in (tokenizer.encode(text), [i for c in text for i in tokenizer.encode(c)]):
        stream, got = play(tokenizer, ids, stops, block)
        assert got == expected
        assert stream.stopped == (expected != text)
        tokens = ids[: stream.num_tokens]
        assert tokenizer.decode(tokens).startswith(expected)
        if tokens:
            assert len(tokenizer.decode_bytes(tokens[:-1])) < len(expected.encode())


@pytest.mark.parametrize("block", [1, 2, 7])
def test_a_stream_never_shows_what_it_takes_back(tokenizer, block):
    """At every moment what was shown is a prefix of the final text, and all that is certain is shown."""
    text, stops = f"x = 1\n\nde{BYTES}f\ndef f", ["\ndef ", BYTES[1:] + "Q"]
    ids = [i for c in text for i in tokenizer.encode(c)]
    stream, shown = TextStream(tokenizer.token_bytes, Stops(stops)), ""
    for at in range(0, len(ids), block):
        shown += stream.feed(ids[at : at + block])
        if stream.stopped:
            break
        whole = tokenizer.decode_bytes(ids[: at + block]).decode("utf-8", "ignore")
        assert text.startswith(shown) and "\ufffd" not in shown
        assert len(whole) - len(shown) < max(len(s) for s in stops)
    assert shown == text[: text.index("\ndef ")]


def test_ten_stops_are_ten_stops(tokenizer):
    """Not one sequence of all of them, as in a server that joins them."""
    stops = ["never", *map(str, range(8)), "z"]
    assert play(tokenizer, tokenizer.encode("abc 7 z"), stops, 3)[1] == "abc "
    assert play(tokenizer, tokenizer.encode("abc z 7"), stops, 3)[1] == "abc "


def test_the_stop_itself_may_be_wanted(tokenizer):
    ids = tokenizer.encode("a b c d e f")
    for block in (1, 2, 20):
        stream, text = play(tokenizer, ids, ["c d", "d", "c d e"], block, include_stop=True)
        assert text == "a b c d"
        assert tokenizer.decode(ids[: stream.num_tokens]).startswith("a b c d")


def test_an_empty_stop_is_rejected():
    with pytest.raises(ValueError, match="stop=''"):
        Stops(["a", ""])
