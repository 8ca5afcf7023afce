import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mue_check.errors import ClaimError
from mue_check.execute.shipping import Parcel, ship_sources, unpack
from mue_check.models.user_router.loaded import load_router
from mue_check.routing.variants import USER_ROUTERS

ROUTER = """
import torch
from ship_scores import softmax
from ship_pieces.last import normed

class Router(torch.nn.Linear):
    def forward(self, x):
        return normed(softmax(super().forward(x)))
"""
NODE = """
import pickle, sys
from mue_check.execute.shipping import unpack
unpack(pickle.loads(bytes.fromhex(sys.argv[1])))
"""


@pytest.fixture
def author(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a router in a file and in a package, which import a neighbour and a package."""
    folder = tmp_path / "author"
    pieces = folder / "ship_pieces"
    pieces.mkdir(parents=True)
    (folder / "ship_mine.py").write_text(ROUTER)
    (folder / "ship_scores.py").write_text("def softmax(x):\n    return x.softmax(-1)\n")
    (pieces / "__init__.py").write_text("from ship_pieces.rest import SMALLEST\n")
    (pieces / "rest.py").write_text("SMALLEST = 1e-9\n")
    (pieces / "last.py").write_text("from . import SMALLEST\ndef normed(w):\n    return w / (w.sum() + SMALLEST)\n")
    (pieces / "mine.py").write_text(ROUTER)
    monkeypatch.syspath_prepend(folder)
    known = set(USER_ROUTERS)
    yield folder
    for name in [name for name in sys.modules if name.startswith("ship_")]:
        del sys.modules[name]
    for name in set(USER_ROUTERS) - known:
        del USER_ROUTERS[name]


@pytest.mark.parametrize("text", ["ship_mine.py:Router", "ship_mine:Router", "ship_pieces.mine:Router"])
def test_a_node_that_has_the_sources_alone_loads_the_same_router(tmp_path: Path, author: Path, text: str) -> None:
    router = load_router(text, author)
    parcel = ship_sources(tmp_path / "node")[router.name]
    shutil.rmtree(author)
    done = subprocess.run(
        [sys.executable, "-c", NODE, pickle.dumps(parcel).hex()],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "node")},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


def test_a_router_that_is_another_on_the_node_is_one_line(author: Path) -> None:
    router = load_router("ship_mine.py:Router", author)
    claim, file = router.candidate.claim, author / "ship_mine.py"
    with pytest.raises(ClaimError, match=r"ship_mine.py:Router, on a node of the cluster: a library, file or variable"):
        unpack(Parcel(name=f"{router.name[:-8]}00000000", text=f"{file}:Router", claim=claim))
    with pytest.raises(ClaimError, match=r"absent.py:Router, on a node of the cluster: .*no such file"):
        unpack(Parcel(name=router.name, text=f"{author / 'absent.py'}:Router", claim=claim))
