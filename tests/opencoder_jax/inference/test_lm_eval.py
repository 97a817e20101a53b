"""lm-eval through our server gives what its own Hugging Face backend gives on the exported checkpoint."""

import json

import numpy as np
import pytest
from oracle import client

from opencoder_jax.hf.export import export
from tests.opencoder_jax.inference.serving import make_run, served


@pytest.mark.oracle
def test_local_completions_is_the_hf_backend(tmp_path):
    """Log-likelihoods to 1e-4, whether greedy, rolling ones, and generations; with the server's tokenizer alone."""
    run = make_run(tmp_path, whole_characters=True)
    export(run, tmp_path / "hf", dtype="fp32")
    contexts = ["def f(x):\n", "x = [1, 2", "import", "class Stack:"]
    texts = ["    return x\n", ", 3]\n", " os\nimport sys\n", "\n    def __init__(self):\n        pass"]
    prompts = ["def f(x):\n    return", "x", "class Stack:\n    def __init__(self, items=()):\n        self"]
    arrays = {"contexts": np.array(contexts), "texts": np.array(texts), "prompts": np.array(prompts)}
    with served(run) as (url, _):
        ours = client.call("endpoint", tmp_path / "hf", **arrays, steps=12, url=np.array(f"{url}/v1/completions"))
    theirs = client.call("harness", tmp_path / "hf", **arrays, steps=12)
    np.testing.assert_allclose(ours["likelihoods"], theirs["likelihoods"], atol=1e-4, rtol=1e-5)
    np.testing.assert_array_equal(ours["greedy"], theirs["greedy"])
    assert json.loads(str(ours["generated"])) == json.loads(str(theirs["generated"]))
