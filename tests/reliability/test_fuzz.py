"""A few cases of the campaign ``fuzz``. ``python -m tests.reliability.fuzz`` runs 5,000."""

from tests.reliability.fuzz import attempt


def test_odd_options_and_files_are_errors_of_one_line() -> None:
    outcomes = [attempt(seed) for seed in range(48)]
    assert [failure for _, failure in outcomes if failure] == []
    assert len({did for did, _ in outcomes}) >= 10, "the cases reach most commands"
