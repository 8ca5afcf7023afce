"""What next: the likely causes of a drift in a sweep, from what its columns say it is (``judge.diagnosis``)."""

from collections.abc import Iterator

from mue_check.judge import diagnosis as signs
from mue_check.judge.diagnosis import suspects
from mue_check.judge.verdict import Verdict
from mue_check.report.format import in_words
from mue_check.sweeps.judged import Judged
from mue_check.sweeps.laws import exponents
from mue_check.sweeps.names import meaning_of

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
