"""Reading a load from a file or the command line."""

import json
from pathlib import Path

import pytest

from mue_check import parse_scenario
from mue_check.errors import LoadError
from mue_check.loads import read_load
from mue_check.spec import Experts


@pytest.mark.parametrize(
    "text",
    [
        "4\n2\n1\n1\n",
        "4,2,1,1",
        "4 2 1 1",
        "4, 2,\n1,1,\n",
        "4;2;1;1",
        "[4, 2, 1, 1]",
        "\ufeff.5\r\n0.25\r\n.125\r\n1.25e-1",
        "tokens\n4\n2\n1\n1\n",
        "Expert,Layer,Tokens\n3,0,1\n0,0,4\n1,0,2\n2,0,1\n",
        '"id";"load"\n1;4\n2;2\n3;1\n4;1\n',
        "e0,e1,e2,e3\n4,2,1,1\n",
    ],
)
def test_a_file_may_hold_numbers_in_any_plain_form(tmp_path: Path, text: str) -> None:
    path = tmp_path / "load.txt"
    path.write_text(text, encoding="utf-8")
    assert read_load(path, 4) == pytest.approx([0.5, 0.25, 0.125, 0.125])
    assert read_load(str(path), 4) == pytest.approx([0.5, 0.25, 0.125, 0.125])


def test_a_load_on_the_command_line() -> None:
    assert read_load("1,0,3", 3) == pytest.approx([0.25, 0, 0.75])
    assert read_load("7", 1) == (1.0,)
    assert read_load("1e308,1e308", 2) == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1,-0.5,2", "expert 1 the load -0.5"),
        ("1,2", "2 numbers for 3 experts"),
        ("1,many,2", "'many' as item 2"),
        (",", "'' as item 1"),
        ("1,,2,3", "'' as item 2"),
        ("a,b\n1,2\n3,4\n5,6", "columns a, b"),
        ("expert,load\n0,4\n1,2\n3,1", "lacks expert 2"),
        ("expert,load\n0,4\n1\n2,1", "1 cells in a row under 2 names"),
        ("expert,load\n0,4\n1,much\n2,1", "'much' as item 2"),
        ("no-such-file", "cannot be read: No such file"),
    ],
)
def test_what_is_no_load_is_refused_in_one_line(text: str, says: str) -> None:
    with pytest.raises(LoadError) as error:
        read_load(text, 3)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ("[]", "is empty"),
        ("[1, 2", "begins with a bracket and is not JSON"),
        (json.dumps({"load": [1, 2, 3]}), "not a list of numbers"),
        ("[1, true, 2]", "not a list of numbers"),
        ("[1, NaN, 2]", "expert 1 the load nan"),
        ("expert,load\n0,1", "1 numbers for 3 experts"),
    ],
)
def test_a_file_that_holds_no_load_is_refused_by_its_name(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "load.txt"
    path.write_text(text)
    with pytest.raises(LoadError, match=r"load\.txt") as error:
        read_load(path, 3)
    assert says in str(error.value)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "load.bin"
    path.write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(LoadError, match="is not text"):
        read_load(path, 3)
    with pytest.raises(LoadError, match="cannot be read: Is a directory"):
        read_load(tmp_path, 3)


def test_a_spec_takes_its_target_load_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "load.csv"
    path.write_text("expert 0 is left out of headers\n")
    with pytest.raises(LoadError, match="as item 1"):
        parse_scenario(f"d=32,L=2,4e1a,load={path}")
    path.write_text("40\n30\n20\n10\n")
    experts = parse_scenario(f"d=32,L=2,4e1a,load={path}").model.feed_forward
    assert isinstance(experts, Experts)
    assert experts.target_load == pytest.approx((0.4, 0.3, 0.2, 0.1))
    assert experts.balance == "selection_bias"
    # what it trains on is in the text, so that a record does not hang on a file
    assert str(path) not in str(experts)
