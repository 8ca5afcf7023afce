"""A study of a user's own model on a Ray cluster: the records of one process, though a node's process dies."""

import importlib.util
from pathlib import Path

import pytest

from mue_check.cli import main
from mue_check.cluster import ClusterInfo
from mue_check.own_model import Plan, Study, check_model
from mue_check.own_model.candidate import ModelError, Recipe
from mue_check.own_model.library import find
from mue_check.own_model.transfer import ask_transfer
from tests.studies import records

pytestmark = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed (extra: cluster)")
VALLEY = Path(__file__).parents[1] / "own_model" / "valley.py"
DIES = """
import os

def dies_once():
    if "RAY_RAYLET_PID" in os.environ and not os.path.exists({flag!r}):
        with open({flag!r}, "x") as file:
            file.write(__file__)
        os._exit(1)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A model whose neighbor ends the first process of a node that trains it."""
    folder = tmp_path / "author"
    folder.mkdir()
    text = VALLEY.read_text()
    body = text.replace("        with torch.no_grad():\n", "        dies_once()\n        with torch.no_grad():\n")
    assert body != text
    (folder / "own_valley.py").write_text(f"from own_valley_neighbor import dies_once\n{body}")
    (folder / "own_valley_neighbor.py").write_text(DIES.format(flag=str(tmp_path / "died")))
    return folder / "own_valley.py"


def test_a_study_is_that_of_one_process(
    found: ClusterInfo, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    user = find(Recipe(name=f"{file}:drifts", axis="width", base=0, rule="", values=None))
    quiet, there = tmp_path / "quiet", tmp_path / "there"
    ask_transfer(user, "width", (32, 64), Study(root=quiet, plan=Plan(steps=1), lr=0.5, ask=("drift",)))
    command = ["model", f"{file}:drifts", "--sizes", "32,64", "--steps", "1", "--lr", "0.5", "--ask", "drift"]
    command += ["--study", str(there), "--cluster"]
    assert main([*command, found.address]) == 1
    assert "optimal learning rate ~ width^+1.00" in capsys.readouterr().out
    assert "runtime_resources" in (tmp_path / "died").read_text()  # the neighbor that was sent
    assert records(there) == records(quiet) != {}
    assert not list((there / "runs").iterdir())
    assert main([*command, "nowhere"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "write local, or HOST:PORT" in line


def test_a_model_without_a_name_is_refused(found: ClusterInfo, tmp_path: Path) -> None:
    from tests.own_model.valley import right

    study = Study(root=tmp_path, plan=Plan(steps=1), lr=0.5, cluster=found.address)
    with pytest.raises(ModelError, match="a cluster needs the model by name"):
        check_model(right, sizes=(32, 64), study=study, seeds=(2,), base=0)
