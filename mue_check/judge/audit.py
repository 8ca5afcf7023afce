"""Compare the values that the optimizer applied to each parameter with those that the rule prescribes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import pandas as pd

from mue_check.judge.verdict import Verdict
from mue_check.rules import Row

AUDITED = ("init_std", "lr", "weight_decay", "eps", "beta1", "beta2")
RELATIVE_TOLERANCE = 0.02
"""Float32 probes are more accurate than this. An init std may also be off by 4 of its standard errors."""


@dataclass(frozen=True, kw_only=True)
class Offence:
    """One value of one parameter that differs from the prescribed one."""

    parameter: str
    role: str
    value: str
    measured: float
    prescribed: float

    def __str__(self) -> str:
        times = f", {self.measured / self.prescribed:.3g} times" if self.prescribed else ""
        return (
            f"{self.parameter} ({self.role}): {self.value} {self.measured:.4g}, prescribed {self.prescribed:.4g}{times}"
        )


@dataclass(frozen=True, kw_only=True)
class Audit:
    """The values that differ, out of all ``parameters``."""

    parameters: int
    offences: tuple[Offence, ...]

    @property
    def verdict(self) -> Verdict:
        """FAIL if any value differs, PASS if none does, INCONCLUSIVE if nothing was measured."""
        if not self.parameters:
            return Verdict.INCONCLUSIVE
        return Verdict.FAIL if self.offences else Verdict.PASS

    def __str__(self) -> str:
        if not self.parameters:
            return "no parameter was measured"
        if not self.offences:
            return f"{self.parameters} parameters, all as prescribed"
        first = "; ".join(map(str, self.offences[:3]))
        return f"{len(self.offences)} values are not as prescribed: {first}"


def judge_audit(table: pd.DataFrame, prescribed: Sequence[Row]) -> Audit:
    """Compare a measured ``optimizer`` table with the rows that the rule prescribes."""
    rows: Mapping[str, Row] = {row.role: row for row in prescribed}
    offences = []
    for found in table.to_dict("records"):
        expected = asdict(rows[found["role"]])
        for value in AUDITED:
            slack = RELATIVE_TOLERANCE
            if value == "init_std":
                slack += 4 / math.sqrt(2 * found["numbers"])
            zero = 0.0 if value == "eps" else 1e-12  # an eps may be as small, and is never 0
            if not math.isclose(found[value], expected[value], rel_tol=slack, abs_tol=zero):
                offences.append(
                    Offence(
                        parameter=found["parameter"],
                        role=found["role"],
                        value=value,
                        measured=found[value],
                        prescribed=expected[value],
                    )
                )
    return Audit(parameters=len(table), offences=tuple(offences))
