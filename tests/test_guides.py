"""Every command of docs/guides runs: the `sh` blocks, page after page in the order of its README, in one directory."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

GUIDES = Path(__file__).parents[1] / "docs" / "guides"
# Blocks of a page that continue what the pages before made.
TUTORIAL = re.findall(r"\]\(([a-z-]+\.md)\)", (GUIDES / "README.md").read_text().split("## Other pages")[0])


def blocks(page: str) -> list[str]:
    """The shell blocks of a page in order."""
    return re.findall(r"^```sh\n(.*?)^```", (GUIDES / page).read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.guides
def test_commands_of_the_guides(tmp_path):
    (tmp_path / "configs").symlink_to(GUIDES.parents[1] / "configs")
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "jax_cache"),
    }
    for page in TUTORIAL:
        script = "set -euo pipefail\n" + "\n".join(blocks(page))
        done = subprocess.run(
            ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=540
        )
        assert done.returncode == 0, (
            f"{page}: exit code {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
        )
    # What the pages promise to leave.
    for made in ("refine/report.html", "tokenizer/tokenizer.model", "plan/plan.md", "plan_search/winner.py",
                 "runs/tiny_anneal/config.json", "hf_model/config.json", "profile/profile.md", "sweep/report.md"):  # fmt: skip
        assert (tmp_path / made).is_file(), made


def test_every_page_is_listed():
    listed = set(re.findall(r"\]\(([a-z-]+\.md)\)", (GUIDES / "README.md").read_text()))
    assert {p.name for p in GUIDES.glob("*.md")} - {"README.md"} == listed


@pytest.mark.parametrize("page", TUTORIAL)
def test_pages_have_commands(page):
    assert blocks(page)
