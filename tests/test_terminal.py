"""Tables and status lines."""

import io
import sys

import pytest

from mue_check.terminal import status, text_table


def test_columns_are_aligned_and_nothing_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("FORCE_COLOR", "1")
    rows = [("width of d64", "1.5", "y" * 300), ("[b]", "1234567890.123456", "")]
    assert text_table(("of", "value", "note"), rows, numeric=[1]) == [
        "of                        value  note",
        f"width of d64                1.5  {'y' * 300}",
        "[b]           1234567890.123456",
    ]


def test_an_empty_table_is_its_header() -> None:
    assert text_table(("a", "b"), []) == ["a  b"]


@pytest.mark.parametrize("on_terminal", [True, False])
def test_a_status_is_for_terminals(on_terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stream(io.StringIO):
        def isatty(self) -> bool:
            return on_terminal

    monkeypatch.setenv("TERM", "xterm")
    stream = Stream()
    monkeypatch.setattr(sys, "stderr", stream)
    with status("at first") as update:
        update("and then")
    assert ("and then" in stream.getvalue()) is on_terminal
    if not on_terminal:
        assert stream.getvalue() == ""
