"""The audit of optimizer values: what differs from the prescription is named, and nothing measured is no PASS."""

import math

import pandas as pd
import pytest

from mue_check.judge.audit import AUDITED, judge_audit
from mue_check.judge.verdict import Verdict
from mue_check.rules import HyperParameters, Row, get_rule
from mue_check.spec import Dense, ModelSpec, Scenario, TrainSpec

MODEL = ModelSpec(width=32, depth=1, feed_forward=Dense(hidden=32))
SCENARIO = Scenario.of(MODEL, TrainSpec(steps=10, batch=2))
ROWS = get_rule("complete_mue").prescribe(SCENARIO, SCENARIO).values(HyperParameters())
NUMBERS = 800
"""4 standard errors of an init std are then 4 / sqrt(1600) = 10 %, beside the 2 % that any value may be off."""


def measured(rows: list[Row] = ROWS) -> pd.DataFrame:
    """Every role has one parameter, with exactly the prescribed values."""
    return pd.DataFrame(
        [
            {"role": row.role, "parameter": f"p.{row.role}", "numbers": NUMBERS}
            | {value: getattr(row, value) for value in AUDITED}
            for row in rows
        ]
    )


def test_values_as_prescribed_pass() -> None:
    found = judge_audit(measured(), ROWS)
    assert found.verdict is Verdict.PASS
    assert str(found) == f"{len(ROWS)} parameters, all as prescribed"


OFF = [(value, off, False) for value in AUDITED[1:] for off in (0.981, 1.019)]
OFF += [(value, off, True) for value in AUDITED[1:] for off in (0.979, 1.021)]
OFF += [("init_std", 0.89, False), ("init_std", 1.13, False), ("init_std", 0.87, True), ("init_std", 1.14, True)]


@pytest.mark.parametrize(("value", "off", "fails"), OFF)
def test_a_value_may_be_off_by_two_percent_and_an_init_std_by_its_error_too(
    value: str, off: float, fails: bool
) -> None:
    table = measured()
    at = next(at for at, row in enumerate(ROWS) if getattr(row, value))
    table.loc[at, value] *= off
    found = judge_audit(table, ROWS)
    role = ROWS[at].role
    assert [(o.parameter, o.role, o.value) for o in found.offences] == [(f"p.{role}", role, value)] * fails
    assert found.verdict is (Verdict.FAIL if fails else Verdict.PASS)


@pytest.mark.parametrize("value", AUDITED)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_value_that_is_not_finite_fails(value: str, bad: float) -> None:
    table = measured()
    table.loc[0, value] = bad
    assert judge_audit(table, ROWS).verdict is Verdict.FAIL


def test_a_constant_that_was_drawn_fails() -> None:
    table = measured()
    at = next(at for at, row in enumerate(ROWS) if row.init_std == 0)
    table.loc[at, "init_std"] = 0.01
    (offence,) = judge_audit(table, ROWS).offences
    assert str(offence) == f"p.{ROWS[at].role} ({ROWS[at].role}): init_std 0.01, prescribed 0"
    table.loc[at, "init_std"] = 1e-13  # rounding
    assert not judge_audit(table, ROWS).offences


def test_an_offence_says_how_many_times_and_the_first_three_are_listed() -> None:
    found = judge_audit(measured().assign(eps=3e-8), ROWS)
    assert len(found.offences) == len(ROWS) > 3
    first = found.offences[0]
    assert (first.measured, first.prescribed) == (3e-8, 1e-8)
    assert str(first) == f"p.{first.role} ({first.role}): eps 3e-08, prescribed 1e-08, 3 times"
    assert str(found) == f"{len(ROWS)} values are not as prescribed: " + "; ".join(map(str, found.offences[:3]))


def test_nothing_measured_is_inconclusive() -> None:
    found = judge_audit(measured([]), ROWS)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert str(found) == "no parameter was measured"
