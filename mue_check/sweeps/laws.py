"""What rules and other people say about the exponent that a sweep measured, as far as its columns say which it is, and
the likely causes of a drift (``judge.diagnosis``)."""

import math
from collections.abc import Iterator

from mue_check.judge import diagnosis as signs
from mue_check.judge.diagnosis import suspects
from mue_check.judge.verdict import Verdict
from mue_check.report.exponents import PUBLISHED, Exponent, stated
from mue_check.report.format import in_words
from mue_check.rules import RULES, Role
from mue_check.spec_text import parse_scenario
from mue_check.sweeps.columns import RATES
from mue_check.sweeps.judged import Judged
from mue_check.sweeps.names import meaning_of
from mue_check.sweeps.sweep import Sweep

_REFERENCE = "d=256,L=4,H=256,dh=64,B=1024,T=1024"
_DOUBLED = {
    "width": "d=512,H=512",
    "depth": "L=8",
    "batch_at_fixed_tokens": "B=2048,T=512",
    "batch_at_fixed_steps": "B=2048",
    "duration_at_fixed_batch": "T=2048",
}
"""The reference of the rules with one size doubled, by the ladder of that name."""


def ladder_of(sweep: Sweep) -> str:
    """Which ladder of the suites the arms are, by the names of their column and of what is equal; else empty."""
    arm = meaning_of(sweep.columns.arm or "")
    constant = {name for name in sweep.table if sweep.table[name].map(str).nunique() == 1}
    equal = {meaning_of(str(name)) for name in (*sweep.columns.pair, *constant)}
    if arm == "batch":
        return "batch_at_fixed_tokens" if "tokens" in equal else "batch_at_fixed_steps" if "steps" in equal else ""
    if arm in ("tokens", "steps"):
        return "duration_at_fixed_batch" if "batch" in equal else ""
    return arm if arm in _DOUBLED else ""


def exponents(judged: Judged) -> list[Exponent]:
    """The measured exponent, then those of our rules, then published ones."""
    ladder, columns = ladder_of(judged.sweep), judged.sweep.columns
    name = ladder or str(columns.arm)
    source = f"measured, {judged.exponent.n} {'seeds' if judged.sweep.is_seeded else 'replicates'}"
    rows = [Exponent(name, f"optimum of {columns.x!r}", judged.exponent, source)]
    if ladder and meaning_of(columns.x) in RATES:
        rows += [*_of_rules(ladder), *(each for each in PUBLISHED if each.ladder == ladder)]
    return rows


def _of_rules(ladder: str) -> Iterator[Exponent]:
    """What each rule prescribes for the learning rate of hidden matrices, with rules that agree in one row.

    A base rate that a rule multiplies is to stay: its exponent is 0 under every rule.
    """
    reference = parse_scenario(_REFERENCE)
    target = parse_scenario(_DOUBLED[ladder], default=reference)
    agree: dict[float, list[str]] = {}
    for name, rule in RULES.items():
        factors = rule.prescribe(reference, target)
        agree.setdefault(round(math.log2(factors[Role.FFN_UP].lr), 6), []).append(name)
    for exponent, names in agree.items():
        others = [name for name in RULES if name not in names]
        most = f"every rule{' but ' if others else ''}{', '.join(others)}"
        rules = most if len(names) > len(others) else ", ".join(names)
        yield stated(ladder, f"learning rate of hidden matrices under {rules}", exponent, exponent, "rules")


_AXES = {
    "width": signs.WIDTH,
    "depth": signs.DEPTH,
    "batch": signs.BATCH,
    "tokens": signs.DURATION,
    "steps": signs.DURATION,
    "experts": signs.EXPERTS,
    "top_k": signs.EXPERTS,
    "parameters": signs.SEVERAL,
}


def what_next(judged: Judged) -> list[str]:
    """In order of likelihood, what may make the optimum move; empty unless it does."""
    if judged.verdict is not Verdict.FAIL:
        return []
    columns = judged.sweep.columns
    arm, x = meaning_of(columns.arm or ""), meaning_of(columns.x)
    swept = signs.LR if "rate" in x else signs.drift_of(columns.x)
    known = [signs.UNKNOWN, swept, *([_AXES[arm]] if arm in _AXES else [])]
    return [*_as_prescribed(judged), *map(str, suspects(known))]


def _as_prescribed(judged: Judged) -> Iterator[str]:
    """That a raw rate moves as it should: then nothing is wrong but the question."""
    for row in exponents(judged):
        prescribed = row.interval.mean
        if (
            row.source == "rules"
            and prescribed != judged.law
            and judged.exponent.low <= prescribed <= judged.exponent.high
        ):
            rules = row.what.rpartition(" under ")[2]
            yield (
                f"raw rate: along {in_words(row.ladder)} the optimum moves as {rules} prescribes for hidden matrices, "
                f"which is right if the swept rate is theirs and no base rate. Decide: --law {prescribed:g}"
            )
