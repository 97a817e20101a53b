"""RefineCode, tokenizer and token shards. Never imports jax."""
