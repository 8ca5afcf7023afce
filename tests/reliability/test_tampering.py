"""The campaign of tampering in small: one kind of question, and a part of its fields."""

from pathlib import Path

from tests.reliability.tampering import run


def test_no_change_of_a_file_passes_unseen(tmp_path: Path) -> None:
    found = run(0.03, 0, tmp_path, ["drift"])
    assert found.troubles == []
    assert found.edits["cell", "refused"] > 10
    assert found.resealed["cell", "refused"] > 5
