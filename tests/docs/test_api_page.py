"""docs/api.md and the notebooks, executed from top to bottom."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fenced_blocks import blocks

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.slow
def test_the_page_runs_as_it_stands(tmp_path: Path) -> None:
    """One session in an empty folder, as a reader would type it."""
    code = [block for block in blocks(DOCS / "api.md") if block.language == "python" and block.run]
    assert len(code) >= 9
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(block.text for block in code)],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "pgd20_linf" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.pdf", "runs"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "notebook", sorted((DOCS / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem
)
def test_a_notebook_runs(notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an empty folder; its pictures and tables are there, and so are those that are committed."""
    nbformat = pytest.importorskip("nbformat")
    client = pytest.importorskip("nbclient")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    committed = nbformat.read(notebook, as_version=4)
    fresh = nbformat.read(notebook, as_version=4)
    client.NotebookClient(
        fresh, timeout=800, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    for content in (committed, fresh):
        kinds = [
            kind
            for cell in content.cells
            if cell.cell_type == "code"
            for output in cell.outputs
            for kind in output.get("data", {})
        ]
        assert kinds.count("image/png") == 2
        assert kinds.count("text/html") >= 5
