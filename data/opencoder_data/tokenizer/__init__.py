"""The tokenizer: SentencePiece BPE with byte fallback over a cl100k-style split, and OpenCoder's special tokens.

`load_tokenizer(path)` takes such a model or any model's tokenizer.json. `Tokenizer(path)` needs numpy and sentencepiece; `train`, `fast` and `export_hf` need the extra [data].
"""

from opencoder_data.tokenizer.interface import TextTokenizer, load_tokenizer
from opencoder_data.tokenizer.model import Tokenizer
from opencoder_data.tokenizer.special_tokens import SPECIAL_TOKENS

__all__ = ["SPECIAL_TOKENS", "TextTokenizer", "Tokenizer", "load_tokenizer"]
