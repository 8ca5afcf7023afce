"""The section on sigma_0: its tables in their order, and what it says in a few lines."""

from collections.abc import Sequence

from mue_check.report.findings import GammaFinding
from mue_check.report.format import bounded_text
from mue_check.report.summary import Summary
from mue_check.report.table import Table
from mue_check.sigma0.calibration import PACKAGED
from mue_check.sigma0.report.gamma_tables import gamma_table, matrix_table, mixture_name, part_table, router_name
from mue_check.sigma0.report.residual_tables import residual_fit_table, residual_lines, residual_table
from mue_check.sigma0.report.shift_tables import (
    forecast_table,
    forecast_text,
    kappa_table,
    probe_table,
    shift_drift_table,
)

_SOME = 3
"""Mixtures up to this many are named one by one."""


def sigma0_tables(summary: Summary) -> list[Table]:
    """Those that stand open; without those that have no rows."""
    tables = (
        gamma_table(summary),
        gamma_table(summary, natural=True),
        residual_table(summary),
        residual_fit_table(summary),
        shift_drift_table(summary),
        kappa_table(summary),
        forecast_table(summary),
        probe_table(summary),
    )
    return [table for table in tables if table.rows]


def sigma0_details(summary: Summary) -> list[Table]:
    """Those that fold: one row for each matrix, and for each setting."""
    return [table for table in (matrix_table(summary), part_table(summary)) if table.rows]


def sigma0_lines(summary: Summary) -> list[str]:
    """The main number of each question; none without a question."""
    if not summary.has_sigma0:
        return []
    return [
        *_gamma_lines(summary),
        *(f"residual, {line}" for line in residual_lines(summary)),
        *_kappa_lines(summary),
        *filter(None, [forecast_text(summary)]),
        calibration_text(summary),
    ]


def calibration_text(summary: Summary) -> str:
    """Where the numbers of a drift budget are, or why there are none."""
    if summary.calibration is None:
        return "no calibration: that takes gamma of learned and of content-blind routing, and three shifts with drifts"
    return f"calibration: mue_check budget --calibration STUDY/{PACKAGED} --load LOAD --spec SPEC --batch TOKENS"


def _gamma_lines(summary: Summary) -> list[str]:
    lines = []
    trained = [g for g in summary.gammas if not g.switched and not g.natural and g.gammas.pooled.reason is None]
    for blind, name in ((False, "learned"), (True, "content-blind")):
        found = [g for g in trained if (g.experts.router == "content_blind") is blind]
        if found:
            lines.append(f"gamma (theory 0.5), {name} routing: {_gamma_words(found)}")
    for g in summary.gammas:
        if g.comparison.is_control:
            said = bounded_text(g.gammas.pooled.gamma)
            lines.append(f"gamma of the control, {router_name(g)} at frozen weights: {said} {g.gammas.verdict.value}")
    return lines


def _gamma_words(found: Sequence[GammaFinding]) -> str:
    if len(found) <= _SOME:
        return "; ".join(
            f"{bounded_text(g.gammas.pooled.gamma)} ({mixture_name(g)}, {router_name(g)}, {g.comparison.corpus})"
            for g in found
        )
    means = [g.gammas.pooled.gamma.mean for g in found]
    return f"{min(means):.2f} to {max(means):.2f} in {len(found)} mixtures and corpora"


def _kappa_lines(summary: Summary) -> list[str]:
    k = summary.kappas
    if k is None or k.budget.reason is not None:
        return []
    said = f"kappa under loads {bounded_text(k.budget.kappa)} through 0, scatter {k.budget.tau:.2f} octave"
    beside = {"with c0": k.loads, "every ladder": k.every}
    more = [f"{name} {bounded_text(fit.kappa)}" for name, fit in beside.items() if fit.reason is None]
    return ["; ".join([f"{said}, {len(k.budget.points)} points", *more])]
