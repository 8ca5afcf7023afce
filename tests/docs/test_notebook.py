"""The notebook runs from top to bottom, and its cells print the verdicts that the text announces."""

from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


@pytest.mark.filterwarnings("ignore")  # the kernel's libraries warn in this process
def test_the_notebook_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient", reason="needs the extra docs: nbclient")
    pytest.importorskip("ipykernel", reason="needs the extra docs: ipykernel")
    import nbformat

    monkeypatch.setenv("PYTHONPATH", str(EXAMPLES.parents[1]))
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    notebook = nbformat.read(EXAMPLES / "first_verdicts.ipynb", as_version=4)
    assert all(not cell.outputs for cell in notebook.cells if cell.cell_type == "code"), "commit it without outputs"
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(EXAMPLES)}}).execute()
    shown = [
        "".join(str(output.get("text", output.get("data"))) for output in cell.outputs)
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]
    assert "failed  bias-selection" in shown[0]
    assert "at:" in shown[1]
    assert "expert_down" in shown[2]
    assert "FAIL: is the optimum that of 4" in shown[3]
    assert "image/png" in shown[4]
