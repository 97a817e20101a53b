"""Any model's tokenizer.json behind the interface of our own tokenizer: byte-level, Llama 2's and 3's kinds, ours exported."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from opencoder_data.tokenizer import Tokenizer, load_tokenizer
from opencoder_data.tokenizer.export_gguf import gguf_fields, rate
from opencoder_data.tokenizer.export_hf import export_hf
from opencoder_data.tokenizer.gguf_metadata import write_tokenizer
from opencoder_data.tokenizer.json_file import JsonTokenizer
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

TEXTS = [
    "def f(x):\n\treturn x + 1234567  # déjà vu\r\n",
    "中文 \x00 😀 x = '<s>'\n\n\n",
    "<|im_start|>user\nhi<|im_end|>\n",
    "",
    "  two spaces ",
]
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def save(engine, directory, **settings):
    directory.mkdir(exist_ok=True)
    engine.save(str(directory / "tokenizer.json"))
    if settings:
        (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    return directory


@pytest.fixture(scope="module")
def byte_level():
    """As SmolLM2's: single digits, GPT-2's words, bytes."""
    engine = tokenizers.Tokenizer(models.BPE())
    engine.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    engine.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    engine.train_from_iterator([Path(__file__).read_text()], trainer)
    return engine


@pytest.fixture(scope="module")
def llama2():
    """SentencePiece's kind: a space in front, bytes for what has no token, <s> put in front."""
    words = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), "▁", *"abcdefx", "ab", "▁ab", "abc", "▁x"]
    merges = [("a", "b"), ("▁", "ab"), ("ab", "c"), ("▁", "x")]
    vocab = {word: i for i, word in enumerate(words)}
    engine = tokenizers.Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    engine.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    engine.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    engine.add_special_tokens(["<unk>", "<s>", "</s>"])
    engine.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return engine


def test_ids_are_the_librarys_and_text_comes_back(byte_level, tmp_path):
    tokenizer = load_tokenizer(save(byte_level, tmp_path))
    assert isinstance(tokenizer, JsonTokenizer)
    for text in TEXTS:
        ids = tokenizer.encode(text, allow_special=True)
        assert ids == byte_level.encode(text, add_special_tokens=False).ids
        assert tokenizer.decode(ids) == text
        assert b"".join(map(tokenizer.token_bytes, ids)) == text.encode()
        plain = tokenizer.encode(text)
        assert tokenizer.decode(plain) == text
        assert not set(plain) & set(tokenizer.special_ids.values())
        assert tokenizer.encode_batch([text])[0].tolist() == plain


def test_special_tokens_are_tokens_only_where_allowed(byte_level, tmp_path):
    tokenizer = load_tokenizer(save(byte_level, tmp_path))
    text = "<|im_start|>a<|im_end|>"
    assert tokenizer.special_ids == {name: i for i, name in enumerate(SPECIAL)}
    some = tokenizer.encode(text, allow_special=["<|im_end|>"])
    assert (1 in some, some[-1]) == (False, 2)
    assert tokenizer.decode(tokenizer.encode(text, allow_special=True), skip_special=True) == "a"
    with pytest.raises(ValueError, match="not special tokens"):
        tokenizer.encode(text, allow_special=["<s>"])
    lengths = tokenizer.text_lengths()
    assert lengths[:3].tolist() == [0, 0, 0]
    assert lengths[tokenizer.encode("a")[0]] == 1


def test_settings_beside_it_are_read(byte_level, tmp_path):
    settings = {"eos_token": "<|im_end|>", "pad_token": {"content": "<|endoftext|>"}, "chat_template": "old"}
    save(byte_level, tmp_path, bos_token=None, **settings)
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [7, 2]}')
    tokenizer = load_tokenizer(tmp_path / "tokenizer.json")
    assert tokenizer.chat_template == "{{ messages }}"
    assert tokenizer.end_ids == (7, 2, 0)
    assert (tokenizer.pad_id, tokenizer.endoftext_id, tokenizer.prefix_ids) == (0, 0, ())
    assert (tokenizer.bos_token, tokenizer.eos_token) == (None, "<|im_end|>")
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<eos>"}')
    with pytest.raises(ValueError, match="<eos>"):
        load_tokenizer(tmp_path)


def test_what_a_model_expects_in_front_is_told_and_not_put_there(llama2, tmp_path):
    tokenizer = load_tokenizer(save(llama2, tmp_path, bos_token="<s>", eos_token="</s>"))
    assert tokenizer.prefix_ids == (1,)
    assert tokenizer.encode("ab x") == llama2.encode("ab x", add_special_tokens=False).ids
    for text in ["ab x", "é ab", "x", " ab"]:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == llama2.decode(ids) == text
    assert tokenizer.end_ids == (2,)
    save(llama2, tmp_path, bos_token="<s>", eos_token="</s>", add_bos_token=False)
    assert load_tokenizer(tmp_path).prefix_ids == ()


def test_the_fingerprint_is_of_what_decides_about_ids(byte_level, tmp_path):
    one = load_tokenizer(save(byte_level, tmp_path / "a"))
    two = load_tokenizer(save(byte_level, tmp_path / "b", chat_template="x"))
    assert one.hash == two.hash
    described = json.loads(byte_level.to_str())
    described["model"]["merges"].pop()
    (tmp_path / "b" / "tokenizer.json").write_text(json.dumps(described))
    assert load_tokenizer(tmp_path / "b").hash != one.hash
    assert pickle.loads(pickle.dumps(one)).encode("x = 1") == one.encode("x = 1")


def test_which_of_two_files_counts(byte_level, tokenizer, tmp_path):
    """Our export has both forms of one tokenizer; with a foreign tokenizer.json beside it a tokenizer.model is not ours."""
    export_hf(tokenizer, tmp_path / "ours")
    assert isinstance(load_tokenizer(tmp_path / "ours"), Tokenizer)
    assert load_tokenizer(tmp_path / "ours").hash == tokenizer.hash
    save(byte_level, tmp_path / "theirs")
    (tmp_path / "theirs" / "tokenizer.model").write_bytes(tokenizer.model_bytes)
    assert isinstance(load_tokenizer(tmp_path / "theirs"), JsonTokenizer)
    as_json = load_tokenizer(tmp_path / "ours" / "tokenizer.json")
    for text in TEXTS:
        assert as_json.encode(text) == tokenizer.encode(text)
        assert as_json.encode(text, allow_special=True) == tokenizer.encode(text, allow_special=True)
        assert as_json.decode(tokenizer.encode(text)) == text
    assert as_json.special_ids == tokenizer.special_ids
    assert set(as_json.end_ids) == set(tokenizer.end_ids)
    assert (as_json.pad_id, as_json.endoftext_id, as_json.prefix_ids) == (tokenizer.pad_id, tokenizer.endoftext_id, ())
    assert as_json.chat_template == tokenizer.chat_template


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "neither tokenizer.model"),
        ("version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        ("{}", "not a tokenizer.json"),
        ('{"model": ', "not a tokenizer.json"),
        ("wordpiece", "decoder WordPiece"),
    ],
)
def test_bad_files_are_one_clear_line(byte_level, tmp_path, content, message):
    if content == "wordpiece":
        content = json.dumps(
            json.loads(byte_level.to_str()) | {"decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True}}
        )
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ValueError, match=message) as error:
        load_tokenizer(tmp_path)
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


def test_text_and_ids_that_cannot_be_are_rejected(byte_level, tmp_path):
    tokenizer = load_tokenizer(save(byte_level, tmp_path))
    with pytest.raises(ValueError, match="not valid Unicode"):
        tokenizer.encode("a\ud800")
    with pytest.raises(ValueError, match="outside the vocabulary"):
        tokenizer.decode([tokenizer.vocab_size])
    assert tokenizer.decode(tokenizer.encode("é")[:1]) in ("é", "\ufffd")


@pytest.mark.parametrize("kind", ["byte_level", "llama2"])
def test_gguf_metadata_make_the_same_tokenizer(kind, request, tmp_path):
    """Both of GGUF's forms, written by hand as llama.cpp's converter writes them."""
    engine = request.getfixturevalue(kind)
    described = json.loads(engine.to_str())
    tokens = sorted(described["model"]["vocab"], key=described["model"]["vocab"].get)
    special = {t["content"] for t in described["added_tokens"]}
    fields = {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2}
    if kind == "byte_level":
        fields |= {
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": "smollm",
            "tokenizer.ggml.token_type": [3 if t in special else 1 for t in tokens],
            "tokenizer.ggml.merges": [" ".join(m) for m in described["model"]["merges"]],
            "tokenizer.chat_template": "{{ messages }}",
        }
    else:
        order = ["ab", "▁ab", "abc", "▁x"]
        fields |= {
            "tokenizer.ggml.model": "llama",
            "tokenizer.ggml.scores": [-float(order.index(t)) if t in order else -1e4 for t in tokens],
            "tokenizer.ggml.token_type": [
                2 if t == "<unk>" else 3 if t in special else 6 if t.startswith("<0x") else 1 for t in tokens
            ],
        }
    write_tokenizer(lambda name, default=None: fields.get(name, default), tmp_path, "x.gguf")
    made = load_tokenizer(tmp_path)
    theirs = load_tokenizer(save(engine, tmp_path / "theirs"))
    texts = TEXTS if kind == "byte_level" else ["ab x", "abc é", "xab abcabc"]
    for text in texts:
        assert made.encode(text) == theirs.encode(text)
        assert made.decode(made.encode(text)) == text
    assert made.special_ids.items() >= theirs.special_ids.items() - {("<unk>", 0)}
    assert made.eos_token == tokens[2]
    assert made.prefix_ids == ((1,) if kind == "llama2" else ())


def test_gguf_export_of_a_tokenizer_json_is_its_metadata(byte_level, tmp_path):
    tokenizer = load_tokenizer(save(byte_level, tmp_path, eos_token="<|im_end|>"))
    fields = gguf_fields(tokenizer, tokenizer.vocab_size + 3)
    assert fields["tokenizer.ggml.pre"] == "smollm"
    assert len(fields["tokenizer.ggml.tokens"]) == tokenizer.vocab_size + 3
    assert fields["tokenizer.ggml.eos_token_id"] == fields["tokenizer.ggml.eot_token_id"] == 2
    assert rate(tokenizer, fields, TEXTS).identical == len(TEXTS)
    described = json.loads(byte_level.to_str()) | {"pre_tokenizer": {"type": "Whitespace"}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(described))
    with pytest.raises(ValueError, match="pre_tokenizer"):
        gguf_fields(load_tokenizer(tmp_path), 700)


def test_gguf_export_of_ours_gives_our_ids(tokenizer):
    fields = gguf_fields(tokenizer, tokenizer.vocab_size)
    assert len(fields["tokenizer.ggml.tokens"]) == len(set(fields["tokenizer.ggml.tokens"])) == tokenizer.vocab_size
    measured = rate(tokenizer, fields, [Path(__file__).read_text(), *TEXTS[:1], *TEXTS[2:]])
    assert measured.identical == measured.documents == 5
    assert "5 of 5 documents" in str(measured)
    wrong = fields | {"tokenizer.ggml.merges": fields["tokenizer.ggml.merges"][::-1]}
    assert rate(tokenizer, wrong, [Path(__file__).read_text()]).identical == 0
    assert np.array_equal(tokenizer.encode("<s>"), tokenizer.encode("<s>", allow_special=True))


def test_documents_are_packed_with_it(byte_level, tmp_path):
    from opencoder_data.pack import PackOptions, pack
    from opencoder_data.shard_format import ShardReader

    save(byte_level, tmp_path / "tok", eos_token="<|im_end|>")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.py").write_text("def f(x):\n    return x\n" * 20)
    pack([tmp_path / "in"], tmp_path / "tok", tmp_path / "out", PackOptions(seq_len=32), num_workers=1, progress=False)
    manifests = sorted((tmp_path / "out").rglob("manifest.json"))
    reader = ShardReader(manifests[0].parent)
    tokenizer = load_tokenizer(tmp_path / "tok")
    assert reader.manifest.tokenizer_hash == tokenizer.hash
    assert reader.manifest.vocab_size == tokenizer.vocab_size
    ids = np.asarray(reader[0]) & ((1 << 30) - 1)
    assert tokenizer.decode(ids).startswith("def f(x):\n    return x\n")
