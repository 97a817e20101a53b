"""Loading a tokenizer."""

from opencoder_data.tokenizer.model import Tokenizer

TextTokenizer = Tokenizer
load_tokenizer = Tokenizer
