"""What can be served: a run, its Hugging Face directory, its GGUF file."""

import pytest

from opencoder_jax.hf.export import export
from opencoder_jax.inference.engine import Request
from opencoder_jax.inference.load import load, mesh_of
from opencoder_jax.inference.sampling import Sampling
from tests.opencoder_jax.inference.serving import make_run


def answer(model) -> list[int]:
    engine = model.engine(slots=1, capacity=128)
    row = engine.add(Request(model.text.prompt("def f(x):"), Sampling(30)))
    list(engine.run())
    return row.drawn


def test_a_run_and_its_release_answer_alike(tmp_path):
    run = make_run(tmp_path)
    expected = answer(load(run, dtype="float32"))
    released = load(export(run, tmp_path / "released", dtype="fp32"), dtype="float32")
    assert released.name == "released"
    assert answer(released) == expected
    assert released.text.chat([{"role": "user", "content": "x"}]) == load(run).text.chat(
        [{"role": "user", "content": "x"}]
    )
    assert answer(load(tmp_path / "released", run, dtype="float32")) == expected  # the run's tokenizer
    for file in tmp_path.glob("released/*tokenizer*"):
        file.unlink()
    for file in tmp_path.glob("released/sentencepiece*"):
        file.unlink()
    with pytest.raises(ValueError, match="--tokenizer"):
        load(tmp_path / "released")
    with pytest.raises(ValueError, match="nowhere"):
        load(tmp_path / "nowhere")


@pytest.mark.parametrize("text", ["tensor=x", "context=2", "tensor=0", "tensor", "data=4096"])
def test_meshes_that_cannot_be(text):
    with pytest.raises(ValueError, match="mesh="):
        mesh_of(text)
