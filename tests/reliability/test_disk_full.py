"""The campaign of full disks in small."""

from pathlib import Path

from tests.reliability.disk_full import run


def test_a_full_disk_is_one_line_and_harms_no_record(tmp_path: Path) -> None:
    found = run(3, tmp_path)
    assert (found.places, found.troubles) == (3, [])
