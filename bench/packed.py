"""Records of the packed studies, and the cells that they hold. Shared by the scripts of this folder."""

import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mue_check.records import Cell

REPORTS = Path(__file__).resolve().parents[1] / "reports"


@contextmanager
def unpacked(archive: Path) -> Iterator[Path]:
    """The study in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        yield unpack(archive, Path(folder))


def unpack(archive: Path, folder: Path) -> Path:
    """The study in this folder."""
    with tarfile.open(archive) as packed:
        packed.extraction_filter = getattr(tarfile, "data_filter", None)  # from Python 3.11.4 on
        packed.extractall(folder)  # noqa: S202 (our own archives)
    return folder


def corpus_of(content: Mapping[str, Any]) -> str:
    """The name of the built-in corpus with the recorded fingerprint; docstrings are those of any Python's library."""
    from mue_check import data
    from mue_check.errors import DataError

    # earlier versions, whose code bench/against_commit.py runs, have no pictures
    for name in (*data.CORPORA, *getattr(data, "SOURCES", ())):
        with suppress(DataError):  # pictures, without the packages that ship them
            if data.load_data(name).fingerprint == content["corpus"]:
                return name
    return "docstrings"


def rebuild(content: Mapping[str, Any]) -> "Cell":
    """The cell of a record. Its prescription goes from the model to itself, with the recorded factors."""
    from mue_check.records import Cell
    from mue_check.rules import Factors, HyperParameters, Prescription, Role
    from mue_check.spec import Dense, Experts, ModelSpec, Scenario, TrainSpec

    ffn = content["model"]["feed_forward"]
    model = ModelSpec(**{**content["model"], "feed_forward": (Experts if "total" in ffn else Dense)(**ffn)})
    train = TrainSpec(**content["train"])
    scenario = Scenario.of(model, train)
    factors = {Role(role): Factors(**f) for role, f in content["factors"].items()}
    known = {f.name for f in fields(Cell)}
    return Cell(
        **{
            **{name: tuple(v) if isinstance(v, list) else v for name, v in content.items() if name in known},
            "model": model,
            "train": train,
            "base": HyperParameters(**content["base"]),
            "prescription": Prescription(rule="recorded", reference=scenario, target=scenario, factors=factors),
            "corpus": corpus_of(content),
            "corpus_fingerprint": content["corpus"],
        }
    )
