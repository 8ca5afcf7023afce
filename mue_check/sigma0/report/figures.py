"""Which figures the section on sigma_0 has, with what they show in words."""

from collections.abc import Iterator

from matplotlib.figure import Figure

from mue_check.report.format import bounded_text, interval_text
from mue_check.report.summary import Summary
from mue_check.sigma0.report.gamma_plots import drawn_pairs, plot_gammas, plot_noise
from mue_check.sigma0.report.gamma_tables import mixture_name, router_name
from mue_check.sigma0.report.residual_tables import residual_groups, residual_lines
from mue_check.sigma0.report.shift_plots import plot_forecasts, plot_kappa, plot_residuals
from mue_check.sigma0.report.shift_tables import forecast_text


def sigma0_figures(summary: Summary) -> Iterator[tuple[str, str, Figure]]:
    """(name, words for those who cannot see it, figure)."""
    pairs = drawn_pairs(summary.gammas)
    if pairs:
        said = "; ".join(
            f"{'loads switched' if g.switched else 'trained'}, {router_name(g)}: {bounded_text(g.gammas.pooled.gamma)}"
            for pair in pairs
            for g in pair
        )
        yield "noise", f"Noise-to-signal of each expert against its tokens; gamma {said}", plot_noise(pairs)
    if summary.gammas:
        said = "; ".join(
            f"{mixture_name(g)}, {router_name(g)} on {g.comparison.corpus} {bounded_text(g.gammas.pooled.gamma)}"
            for g in summary.gammas
        )
        yield "gamma", f"Gamma of each mixture. {said}", plot_gammas(summary.gammas)
    groups = residual_groups(summary)
    if groups:
        said = "; ".join(residual_lines(summary))
        yield "residual", f"Residual of sigma_0 against imbalance. {said}", plot_residuals(groups)
    if summary.kappas:
        said = "; ".join(
            f"{s.side.label} {interval_text(s.shift.shift)}, {interval_text(s.drift.interval)}"
            for s in summary.shifts
            if s.drift and s.shift.reason is None
        )
        yield "kappa", f"Drift against the shift of sigma_0. Shift and drift of {said}", plot_kappa(summary.kappas)
    if any(f.forecast and f.drift.reason is None for f in summary.forecasts):
        said = forecast_text(summary)
        yield "forecast", f"Measured against foretold drift. {said}", plot_forecasts(summary.forecasts, said)
