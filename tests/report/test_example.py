"""The committed example is what the README says of it, judged again by today's code."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from bench.packed import unpack
from mue_check.catalog import summarize
from mue_check.judge.agreement import fit_agreement
from mue_check.judge.verdict import Verdict
from mue_check.questions.display import grouped
from mue_check.questions.drift import DriftFinding
from mue_check.questions.question import Findings
from mue_check.questions.sensitivity import Sensitivity, point_of, predicted_drifts, sensitivities
from mue_check.questions.summary import Summary
from mue_check.questions.values import ValuesFinding
from mue_check.questions.what_next import WhatNextKind, what_next
from mue_check.report.format import in_words, interval_text, signed_text

ROOT = Path(__file__).parents[2]
TOLD = (
    *("width", "depth", "batch_at_fixed_tokens", "duration_at_fixed_batch", "activated_experts", "capacity"),
    *("shared_experts", "routing_hybrids", "bridge_1", "bridge_2", "heldout"),
)


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> Summary:
    folder = tmp_path_factory.mktemp("example") / "example"
    unpack(ROOT / "reports" / "example" / "records.tar.xz", folder)
    return summarize(folder)


def readme_rows(rows: Sequence[Sensitivity]) -> Iterator[str]:
    """The README's table: for each ladder where a drift shows a mistake, what the right rule does, and the mistake."""
    for (ladder,), found in grouped(rows, lambda row: (row.ladder,)):
        right = next((row for row in found if row.is_right), None)
        if right is None:
            continue
        told = [drift for row in found if not row.is_right for drift in row.drifts if drift.verdict is Verdict.FAIL]
        worst = max(told, key=lambda d: (abs(d.comparison.predicted or 0.0), d.comparison.rule), default=None)
        if worst:
            mistake = [worst.comparison.rule, signed_text(worst.comparison.predicted), drift_cell(worst)]
            yield f"| {' | '.join([in_words(ladder), drift_cell(right.overall), drift_cell(right.group), *mistake])} |"


def drift_cell(found: DriftFinding | None) -> str:
    return "" if found is None else f"{found.side.label}: {interval_text(found.drift.interval)} {found.drift.verdict}"


def test_the_readme_quotes_the_example(summary: Summary) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    for row in readme_rows(sensitivities(summary)):
        assert row in readme, row
    text, found = " ".join(readme), predicted_drifts(summary)
    fit = fit_agreement([point_of(drift) for drift in found])
    assert fit is not None
    slope, at_zero = fit.slope, fit.intercept
    assert f"Over {len(found)} drifts" in text
    assert f"slope {slope.mean:.2f} [{slope.low:.2f}, {slope.high:.2f}]" in text
    assert f"zero at {interval_text(at_zero)}" in text


def test_a_drift_tells_wrong_rules_apart_in_the_example(summary: Summary) -> None:
    rows = sensitivities(summary)
    for ladder in TOLD:
        own = [row for row in rows if row.ladder == ladder]
        assert any(row.fails_by_a_drift for row in own if not row.is_right), ladder
        assert not any(row.fails_by_a_drift for row in own if row.is_right), ladder
    assert all(verdict.value == expected for verdict, expected in summary.verdicts["control"])


EXPERTS = ("activated_experts", "capacity", "granularity", "shared_experts", "routing_hybrids", "bridge")
BRANCH = {"expert multipliers"}
RATE = {"hidden rate"}
TRUE_CAUSES = {
    **dict.fromkeys(("hidden_lr_unscaled", "down_by_own_fan_in", "experts_by_their_batch"), RATE),
    "scheduler_overwrites_groups": {"schedule"},
    "attention_by_root_of_head_width": {"attention scale"},
    "weight_decay_not_compensated": {"decay convention"},
    "unembedding_forms_mixed": {"readout"},
    "router_in_unscaled_group": {"router rate"},
    **dict.fromkeys(("A_missing", "R_missing", "R_on_shared_branch", "A_from_all_experts"), BRANCH),
    "groups_summed_with_R_a": BRANCH,
    "down_init_missing": {"down init"},
    "down_init_twice": {"down init"},
}


def true_causes(ladder: str, rule: str) -> set[str]:
    """What is wrong with a rule or mutant on a ladder, by its definition."""
    if rule in TRUE_CAUSES:
        return TRUE_CAUSES[rule]
    if ladder.startswith(("batch", "duration")):
        return {"batch factors"}
    if ladder == "depth":
        return {"residual multiplier"}
    if ladder.startswith(EXPERTS):  # neither A and R, nor the down-projection's init
        return {"expert multipliers", "down init"}
    if ladder == "heldout":
        return {"expert multipliers", "residual multiplier"}
    return {"attention scale"} if ladder == "width_of_heads" else {"base shapes", "hidden rate"}


@pytest.mark.parametrize(("values", "least"), [(True, 58), (False, 50)])
def test_the_true_cause_of_every_failure_is_named_first_or_second(summary: Summary, values: bool, least: int) -> None:
    """From drifts, laws and values; and from drifts and laws alone, since the values say which one is wrong."""
    known = tuple(f for f in summary.findings.found if values or not isinstance(f, ValuesFinding))
    found = what_next(replace(summary, findings=Findings(known)))
    missed = [
        (each.ladder, each.rule, [s.cause.name for s in each.suspects])
        for each in found
        if not true_causes(each.ladder, each.rule) & {s.cause.name for s in each.suspects[:2]}
    ]
    assert not missed
    assert len(found) >= least
    assert not any(each.surprising for each in found)
    assert WhatNextKind().headlines(summary) == []
