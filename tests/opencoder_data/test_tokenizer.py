"""Round trip, ids, special tokens, and agreement of all encoders with SentencePiece."""

from __future__ import annotations

import json
import pickle
import random
import subprocess
import sys
import unicodedata

import hypothesis.strategies as st
import numpy as np
import pytest
import regex
from hypothesis import given, settings
from opencoder_data.tokenizer import SPECIAL_TOKENS, Tokenizer
from opencoder_data.tokenizer import fast as fast_module
from opencoder_data.tokenizer.__main__ import main
from opencoder_data.tokenizer.export_hf import export_hf
from opencoder_data.tokenizer.fast import FastEncoder
from opencoder_data.tokenizer.presplit import PATTERN, split_words
from opencoder_data.tokenizer.special_tokens import num_pieces_for, padded_vocab_size
from opencoder_data.tokenizer.train import train

from tests.opencoder_data.snippets import SNIPPETS

# What tokenizers get wrong: separators of all kinds, SentencePiece's space sign, private use, unfinished emoji.
AWKWARD = [
    *(
        "\x00",
        "\x00\x00a",
        "\u2581",
        " \u2581 a\u2581b",
        "\ue000\uf8ff\U000f0000\U0010ffff",
        "\ufeff",
        "\ufffd",
        "\u2585",
    ),
    *("\r", "\r\n", "\n\r\n \r", "\t \t\n", "\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0", "\u1680\u2000\u2028\u2029\u3000"),
    *("'s'T'ſ'LL'Ve", "1234567890½٣Ⅷ", " " * 200, "\n" * 200, "\t" * 200, "a" * 500, "=" * 500, "中" * 200),
    *("e\u0301\u0301", "👩‍👩‍👧‍👦🇩🇪👍🏽", "<0x41><unk><s></s><pad>", "".join(SPECIAL_TOKENS), "\U00010ff0\U0010ff02"),
]

any_text = st.text(st.characters(exclude_categories=("Cs",)), max_size=60)
code_like = st.lists(
    st.sampled_from(
        [*"abzAZ019 \t\n\r_.(){}'\"<|>", "  ", "\r\n", "\u2581", "中", "é", "\x00", "self", "return", "'s"]
    ),
    max_size=40,
).map("".join)
texts = st.one_of(any_text, code_like)


@pytest.fixture(scope="module")
def encoder(tokenizer, python_texts) -> FastEncoder:
    return FastEncoder(tokenizer, python_texts[:10], engine="gigatoken")


@pytest.fixture(scope="module")
def hf(tokenizer, tmp_path_factory):
    import tokenizers

    directory = tmp_path_factory.mktemp("hf")
    export_hf(tokenizer, directory)
    loaded = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
    # As transformers does with split_special_tokens=True: compare plain encoding.
    loaded.encode_special_tokens = True
    return loaded


def assert_all_agree(text: str, tokenizer, encoder, hf) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert all(0 <= i < tokenizer.num_pieces for i in ids)
    assert encoder.encode_batch([text])[0].tolist() == ids
    assert hf.encode(text).ids == ids
    assert hf.decode(ids, skip_special_tokens=False) == text


@settings(max_examples=600, deadline=None)
@given(text=texts)
def test_round_trip_and_agreement_on_random_text(tokenizer, encoder, hf, text):
    assert_all_agree(text, tokenizer, encoder, hf)


@pytest.mark.parametrize("text", AWKWARD)
def test_awkward_text(tokenizer, encoder, hf, text):
    assert_all_agree(text, tokenizer, encoder, hf)


@pytest.mark.parametrize("language", SNIPPETS)
def test_snippets_in_many_languages(tokenizer, encoder, hf, language):
    text = SNIPPETS[language]
    for variant in (text, text.replace("\n", "\r\n"), text.replace("    ", "\t"), text + text[::-1]):
        assert_all_agree(variant, tokenizer, encoder, hf)


def test_a_million_characters_of_real_code(tokenizer, encoder, hf, python_texts):
    total = 0
    for text, fast in zip(python_texts, encoder.encode_batch(python_texts), strict=True):
        ids = tokenizer.encode(text)
        assert fast.tolist() == ids
        assert hf.encode(text).ids == ids
        assert tokenizer.decode(ids) == text
        total += len(text)
    assert total > 1_000_000


def test_every_code_point_round_trips_and_agrees(tokenizer, encoder):
    characters = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    random.Random(0).shuffle(characters)
    chunks = ["".join(characters[i : i + 4096]) for i in range(0, len(characters), 4096)]
    for chunk, fast in zip(chunks, encoder.encode_batch(chunks), strict=True):
        ids = tokenizer.encode(chunk)
        assert tokenizer.decode(ids) == chunk
        assert fast.tolist() == ids


@settings(max_examples=500, deadline=None)
@given(text=st.one_of(any_text, code_like))
def test_split_equals_the_published_pattern(text):
    words = split_words(text)
    assert "".join(words) == text
    # `regex` follows a newer Unicode than Python's tables: compare where both know the characters.
    if all(unicodedata.category(char) != "Cn" for char in text):
        assert words == regex.findall(PATTERN, text)


def test_digits_split_in_groups_of_three(tokenizer):
    assert split_words("x = 1234567") == ["x", " =", " ", "123", "456", "7"]


def test_no_token_crosses_a_word(tokenizer, python_texts):
    for text in python_texts[:20]:
        ends = np.cumsum([len(word.encode()) for word in split_words(text)])
        token_ends = np.cumsum([len(tokenizer.token_bytes(i)) for i in tokenizer.encode(text)])
        assert np.isin(ends, token_ends).all()


def test_published_sizes():
    assert num_pieces_for(96_640) == 96_499
    assert padded_vocab_size(96_499) == 96_640 == 755 * 128
    ids = {token: 96_499 + i for i, token in enumerate(SPECIAL_TOKENS)}
    published = {"<|start|>": 96499, "<|pad|>": 96505, "<|endoftext|>": 96506, "<fim_prefix>": 96507}
    published |= {"<repo_name>": 96510, "<jupyter_script>": 96519, "<pr>": 96523, "<|im_end|>": 96539}
    published |= {"<|im_start|>": 96540, "<pr_diff_hunk_comment_line>": 96538, "<empty_output>": 96520}
    assert published.items() <= ids.items()
    assert len(ids) == 42


def test_ids_of_bytes_pieces_and_special_tokens(tokenizer):
    assert tokenizer.vocab_size == 2_048
    assert tokenizer.num_pieces == 2_048 - 42
    assert [p.piece for p in tokenizer.proto.pieces[:4]] == ["<unk>", "<s>", "</s>", "<pad>"]
    assert [tokenizer.token_bytes(4 + b) for b in range(256)] == [bytes([b]) for b in range(256)]
    assert tokenizer.special_ids["<|im_start|>"] == 2_047
    assert tokenizer.text_lengths()[tokenizer.num_pieces :].sum() == 0


def test_special_tokens_only_where_allowed(tokenizer):
    text = "<|im_start|>user\nx<|endoftext|>"
    assert not set(tokenizer.encode(text)) & set(tokenizer.special_ids.values())
    allowed = tokenizer.encode(text, allow_special=True)
    assert allowed[0] == tokenizer.special_ids["<|im_start|>"]
    assert allowed[-1] == tokenizer.endoftext_id
    assert tokenizer.decode(allowed) == text
    assert tokenizer.decode(allowed, skip_special=True) == "user\nx"
    only = tokenizer.encode(text, allow_special=["<|endoftext|>"])
    assert only[-1] == tokenizer.endoftext_id
    assert tokenizer.special_ids["<|im_start|>"] not in only
    # Rejected tokens are plain text, words and all.
    assert only[:-1] == tokenizer.encode("<|im_start|>user\nx")
    with pytest.raises(ValueError, match="no_such"):
        tokenizer.encode(text, allow_special=["<no_such>"])


def test_lone_surrogates_are_rejected(tokenizer, encoder):
    for encode in (tokenizer.encode, lambda text: encoder.encode_batch([text])):
        with pytest.raises(ValueError, match="not valid Unicode"):
            encode("a\ud800b")


def test_decode_of_a_cut_character_and_of_unknown_ids(tokenizer):
    ids = tokenizer.encode("\U0001f600")
    assert len(ids) == 4
    assert tokenizer.decode(ids[:2]) == "\ufffd"
    with pytest.raises(ValueError, match="outside the vocabulary"):
        tokenizer.decode([tokenizer.vocab_size])


def test_pickles_with_its_hash(tokenizer):
    assert pickle.loads(pickle.dumps(tokenizer)).hash == tokenizer.hash


def test_training_is_reproducible_and_changes_the_hash(tokenizer, tmp_path, python_texts):
    kept = [
        Tokenizer(train(python_texts[:20], 1_024, tmp_path / name, num_threads=n, progress=False))
        for name, n in (("a", 1), ("b", 2))
    ]
    assert kept[0].model_bytes == kept[1].model_bytes
    assert kept[0].hash == kept[1].hash != tokenizer.hash


def test_indentation_and_newlines_are_single_tokens(tokenizer):
    for word in ("        ", "\n\n", " self", ":\n", "\t"):
        assert len(tokenizer.encode(word)) == 1, word


def test_released_model_with_a_dummy_prefix_is_read_without_it(tokenizer, tmp_path):
    proto = type(tokenizer.proto).FromString(tokenizer.model_bytes)
    proto.normalizer_spec.add_dummy_prefix = True
    proto.normalizer_spec.remove_extra_whitespaces = True
    path = tmp_path / "tokenizer.model"
    path.write_bytes(proto.SerializeToString())
    released = Tokenizer(path)
    assert released.encode("a  b ") == tokenizer.encode("a  b ")


def test_wrong_files_are_named(tokenizer, tmp_path):
    path = tmp_path / "tokenizer.model"
    with pytest.raises(ValueError, match=r"tokenizer\.model"):
        Tokenizer(path)
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ValueError, match="Git LFS pointer"):
        Tokenizer(path)
    proto = type(tokenizer.proto).FromString(tokenizer.model_bytes)
    proto.normalizer_spec.precompiled_charsmap = b"x"
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(ValueError, match="normalises"):
        Tokenizer(path)
    proto.trainer_spec.model_type = 1
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(ValueError, match="only BPE"):
        Tokenizer(path)


def test_an_engine_that_differs_is_not_used(tokenizer, monkeypatch):
    right = fast_module._ByteLevelBpe.encode_batch
    monkeypatch.setattr(
        fast_module._ByteLevelBpe,
        "encode_batch",
        lambda self, texts: [np.append(ids, np.uint32(5)) for ids in right(self, texts)],
    )
    with pytest.warns(UserWarning, match="differ from SentencePiece"):
        encoder = FastEncoder(tokenizer)
    assert encoder.engine == "sentencepiece"
    assert encoder.encode_batch(["ab 中"])[0].tolist() == tokenizer.encode("ab 中")
    with pytest.raises(ValueError, match="cannot be used"):
        FastEncoder(tokenizer, engine="gigatoken")


def test_memory_is_bounded_by_building_the_engine_anew(tokenizer, monkeypatch, python_texts):
    encoder = FastEncoder(tokenizer, engine="gigatoken")
    before = encoder._bpe._tokenizer
    expected = [ids.tolist() for ids in encoder.encode_batch(python_texts[:5])]
    assert encoder._bpe._tokenizer is before
    monkeypatch.setattr(fast_module, "_MAX_GROWTH_BYTES", -(1 << 40))
    assert [ids.tolist() for ids in encoder.encode_batch(python_texts[:5])] == expected
    assert encoder._bpe._tokenizer is not before


def test_user_defined_pieces_fall_back_to_sentencepiece(tokenizer, tmp_path):
    proto = type(tokenizer.proto).FromString(tokenizer.model_bytes)
    proto.pieces[-1].piece, proto.pieces[-1].type = "zqzq", 4
    path = tmp_path / "tokenizer.model"
    path.write_bytes(proto.SerializeToString())
    changed = Tokenizer(path)
    with pytest.warns(UserWarning, match="user-defined"):
        encoder = FastEncoder(changed)
    assert changed.decode(encoder.encode_batch(["a zqzq b"])[0]) == "a zqzq b"
    with pytest.raises(ValueError, match="user-defined"):
        export_hf(changed, tmp_path / "hf")


def test_export_files(tokenizer, tmp_path):
    import tokenizers

    files = export_hf(tokenizer, tmp_path, model_max_length=512)
    assert {f.name for f in files} == {
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "tokenizer.model",
    }
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert "auto_map" not in config
    assert config["eos_token"] == "<|im_end|>"
    assert config["model_max_length"] == 512
    assert Tokenizer(tmp_path).hash == tokenizer.hash
    loaded = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    text = "<|im_start|>user\nx = '<s>'<|im_end|>\n"
    assert loaded.encode(text).ids == tokenizer.encode(text, allow_special=True)
    with pytest.raises(ValueError, match="eos_token"):
        export_hf(tokenizer, tmp_path, eos_token="</s>")


def test_command_line(tmp_path, python_texts, capsys):
    (tmp_path / "in").mkdir()
    for i, text in enumerate(python_texts[:10]):
        (tmp_path / "in" / f"{i}.py").write_bytes(text.encode())
    (tmp_path / "in" / "x.png").write_bytes(b"\x89PNG\xff\xfe")
    arguments = ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out")]
    assert main(["train", *arguments, "--vocab_size", "640"]) == 0
    assert "left out 1 documents: not valid UTF-8" in capsys.readouterr().out
    assert main(["info", str(tmp_path / "out")]) == 0
    assert "vocab_size 640" in capsys.readouterr().out
    for size, message in (("1000", "multiple of 128"), ("256", "384 or more"), ("128000", "too large")):
        assert main(["train", *arguments, "--vocab_size", size]) == 2
        assert message in capsys.readouterr().err


def test_importing_the_tokenizer_needs_no_data_extra():
    code = (
        "import sys; import opencoder_data.tokenizer\n"
        "bad = {'gigatoken', 'tokenizers', 'regex', 'pyarrow', 'tensorflow', 'seqio', 'jax'} & set(sys.modules)\n"
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
