"""Every mutant is importable by MODULE:NAME, and the committed reports list the mutants that the package holds."""

import importlib
import re
from pathlib import Path

import pytest

from mue_check.errors import SpecError
from mue_check.mutants.mutant import CheckOutcome, Mutant, MutantResult
from mue_check.mutants.routing.examine import RIGHT, candidate
from mue_check.mutants.run import FAMILIES, get_mutant, run
from mue_check.mutants.setups import broken

REPORTS = Path(__file__).parents[2] / "reports"


def first_cells(report: str, column: int) -> list[str]:
    """The names before a colon or a space in a column of the report's tables, without headers."""
    rows = [line.split(" | ") for line in (REPORTS / report).read_text().splitlines() if line.startswith("| ")]
    names = [re.split(r"[: ]", row[column].removeprefix("| "))[0] for row in rows if len(row) > column]
    return [name for name in names if re.fullmatch(r"[A-Za-z]\w*_\w+", name)]


@pytest.mark.parametrize("family", FAMILIES)
def test_names_are_unique_and_known(family: str) -> None:
    names = [mutant.name for mutant in FAMILIES[family]]
    assert len(names) == len(set(names))
    assert [get_mutant(name, family).name for name in names] == names
    with pytest.raises(SpecError, match=f"unknown mutant 'none': allowed are {names[0]}, "):
        get_mutant("none", family)


def test_reports_list_the_mutants_and_the_right_candidates() -> None:
    names = [mutant.name for mutant in FAMILIES["rules"]]
    listed = {report: first_cells(report, 0) for report in ("mutation.md", "mutation_image_low.md")}
    for found in listed.values():
        assert found == [name for name in names if name in found]
    assert set().union(*listed.values()) == set(names)
    assert first_cells("conformance.md", 1) == [mutant.name for mutant in FAMILIES["routing"]]
    listed = first_cells("conformance.md", 0)
    assert listed == [right.name for right in RIGHT if "_" in right.name]


def test_mutants_are_factories_by_module_and_name() -> None:
    for mutant in FAMILIES["setups"]:
        assert getattr(broken, mutant.name) is mutant
    for mutant in FAMILIES["routing"]:
        assert getattr(importlib.import_module(mutant.build.__module__), mutant.build.__name__) is mutant.build
        assert candidate(mutant).claim.kind
        assert mutant.twin not in (None, mutant.build)


def test_a_mutant_is_killed_only_by_the_finding_that_names_it() -> None:
    mutant = Mutant(name="m", summary="", kind="setup", build=dict, caught_by="lr", finding="router")

    def outcome(check: str, *, named: bool, caught: bool = True) -> CheckOutcome:
        return CheckOutcome(check=check, verdict="FAIL", measured=f"{check} {named}", caught=caught, named=named)

    other, right = outcome("lr", named=False), outcome("lr", named=True)
    assert MutantResult(mutant=mutant, outcomes=(other, right)).killed
    assert MutantResult(mutant=mutant, outcomes=(other, right)).measured == "lr True"
    for outcomes in ((), (other,), (outcome("eps", named=True),), (outcome("lr", named=True, caught=False),)):
        assert not MutantResult(mutant=mutant, outcomes=outcomes).killed
    assert MutantResult(mutant=mutant, outcomes=(right, outcome("eps", named=True))).also == ("eps",)


def name_of(mutant: Mutant) -> tuple[CheckOutcome, ...]:
    return (CheckOutcome(check=mutant.caught_by, verdict="", measured=mutant.name, caught=True),)


def test_several_processes_return_the_mutants_in_order() -> None:
    mutants = FAMILIES["setups"][3:6]
    results = list(run(mutants, name_of, workers=2))
    assert [r.measured for r in results] == [r.mutant.name for r in results] == [m.name for m in mutants]
