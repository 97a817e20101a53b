"""RefineCode, tokenizer and token shards. Never imports jax."""

import sys

if sys.argv[:1] == ["-m"]:  # what `python -m` has here while it imports the packages of the module that it will run
    from opencoder_data import address_space
    from opencoder_data.command import interruptible_imports

    interruptible_imports()
    address_space.fit()
