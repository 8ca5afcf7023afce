"""The tables of gamma: mixture by mixture, matrix by matrix, and the noise of the parts of the model."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from mue_check.report.findings import GammaFinding
from mue_check.report.format import NONE, bounded_text, number_text
from mue_check.report.summary import Summary
from mue_check.report.table import Cells, Table, make_table
from mue_check.sigma0.gamma import GammaFit
from mue_check.sigma0.gammas import EXPERTS, MatrixGamma, Part

_PARTS = {
    "attention": ("attention_",),
    "router's matrix": ("router",),
    "embeddings": ("token_embedding", "position_embedding"),
    "unembedding": ("unembedding",),
    "experts": (EXPERTS,),
}
"""By column, how the names of the kinds of matrix in it begin."""


class _Matrix(NamedTuple):
    """One matrix of one mixture."""

    found: GammaFinding
    matrix: MatrixGamma


class _Setting(NamedTuple):
    """One mixture under one load."""

    found: GammaFinding
    name: str


def gamma_table(summary: Summary, *, natural: bool = False) -> Table:
    """One exponent for all matrices of a mixture; ``natural``: of those whose load is not steered."""
    found = [g for g in summary.gammas if g.natural == natural]
    cells: Cells[GammaFinding] = {
        **_mixture_cells(),
        "loads": loads_text,
        "gamma [95 %]": lambda g: fit_text(g.gammas.pooled),
        "verdict": lambda g: g.gammas.verdict.value if g.comparison.is_control else NONE,
        "ordinary": lambda g: bounded_text(g.gammas.pooled.ordinary),
        "weighted": lambda g: bounded_text(g.gammas.pooled.weighted),
        "robust": lambda g: bounded_text(g.gammas.pooled.robust),
        "raw gradient [95 %]": lambda g: fit_text(g.gammas.pooled_raw),
        "resolved": lambda g: points_text(g.gammas.pooled),
        "seeds": lambda g: str(len(g.gammas.pooled.seeds)),
    }
    if not any(g.comparison.is_control for g in found):
        cells = {name: cell for name, cell in cells.items() if name != "verdict"}
    what = "loads that the routers made" if natural else "steered loads"
    # switched: at frozen weights; ordinary, weighted and robust are fits of the resolved points' logarithms
    caption = f"Gamma of sigma ~ tokens^-gamma, all matrices together, {what} (theory: 1/2)"
    return make_table(caption, found, cells, numeric=("seeds",), note=_note)


def matrix_table(summary: Summary) -> Table:
    """Gamma of every matrix in every layer."""
    rows = [_Matrix(g, m) for g in summary.gammas for m in g.gammas.matrices]
    cells: Cells[_Matrix] = {
        **{name: _of_mixture(cell) for name, cell in _mixture_cells().items()},
        "loads": lambda r: loads_text(r.found),
        "layer": lambda r: str(r.matrix.layer),
        "matrix": lambda r: r.matrix.kind.removeprefix(EXPERTS),
        "gamma [95 %]": lambda r: fit_text(r.matrix.adam),
        "raw gradient [95 %]": lambda r: fit_text(r.matrix.raw),
        "resolved": lambda r: points_text(r.matrix.adam),
        "resolved, raw": lambda r: points_text(r.matrix.raw),
    }
    return make_table("Gamma, matrix by matrix", rows, cells, numeric=("layer",))


def part_table(summary: Summary) -> Table:
    """log2 of sigma of the parts of the model as Adam sees it, and the simple noise scale, setting by setting."""
    rows = [_Setting(g, name) for g in summary.gammas for name in g.gammas.noise_scale]
    cells: Cells[_Setting] = {
        **{name: _of_mixture(cell) for name, cell in _mixture_cells().items()},
        "load": lambda r: r.name,
        **{name: _of_parts(starts) for name, starts in _PARTS.items()},
        "simple noise scale, tokens": lambda r: number_text(r.found.gammas.noise_scale[r.name], 0),
    }
    caption = "log2 sigma of the parts of the model (mean over their matrices), and the batch at which noise is signal"
    return make_table(caption, rows, cells, numeric=(*_PARTS, "simple noise scale, tokens"))


def mixture_name(found: GammaFinding) -> str:
    """16e2a, width 32."""
    return f"{found.experts.notation}, width {found.model.width}"


def router_name(found: GammaFinding) -> str:
    """The mixture's own, with what balances it where nobody steers."""
    balance = found.experts.balance if found.natural else "none"
    return found.experts.router + (f"+{balance}" if balance != "none" else "")


def loads_text(found: GammaFinding) -> str:
    """How the loads came about."""
    if found.natural:
        return "natural"
    return "switched" if found.switched else f"{len(found.comparison.sides)} trained"


def fit_text(fit: GammaFit) -> str:
    """Its gamma, or that there is none."""
    return bounded_text(fit.gamma) if fit.reason is None else NONE


def points_text(fit: GammaFit) -> str:
    """``371 of 384``: points whose signal is known to be positive. The dead are among those that are not."""
    total = len(fit.points) + len(fit.unresolved)
    return f"{len(fit.points)} of {total}" if fit.reason is None else f"{total - len(fit.unresolved)} of {total}"


def _mixture_cells() -> Cells[GammaFinding]:
    return {"mixture": mixture_name, "router": router_name, "corpus": lambda g: g.comparison.corpus}


def _of_mixture(cell: Callable[[GammaFinding], str]) -> Callable[[_Matrix | _Setting], str]:
    return lambda row: cell(row.found)


def _of_parts(starts: tuple[str, ...]) -> Callable[[_Setting], str]:
    return lambda row: _level_text(
        [p for p in row.found.gammas.parts if p.setting == row.name and p.kind.startswith(starts)]
    )


def _note(found: GammaFinding) -> str:
    if found.comparison.is_control:
        return f"control, {found.comparison.expected} expected: experts that differ in their tokens alone must give 1/2"
    return f"no gamma: {found.gammas.pooled.reason}" if found.gammas.pooled.reason else ""


def _level_text(parts: Sequence[Part]) -> str:
    known = [p.adam for p in parts if math.isfinite(p.adam)]
    if not known:
        return NONE
    some = f" ({len(known)} of {len(parts)})" if len(known) < len(parts) else ""
    return f"{sum(known) / len(known):.2f}{some}"
