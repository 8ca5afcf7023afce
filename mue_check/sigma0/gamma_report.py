"""The report of gamma: mixture by mixture, matrix by matrix, and the noise of the other parts of the model."""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import ClassVar

from mue_check.questions.case import Case, Options, Scope
from mue_check.questions.question import JudgedKind
from mue_check.questions.summary import Summary
from mue_check.records import Store
from mue_check.report.format import NONE, bounded_text, number_text
from mue_check.report.section import Fold, Part, Picture, Section
from mue_check.report.table import Cells, Table, make_table
from mue_check.sigma0.calibrate import RULES_OWN
from mue_check.sigma0.gamma import EXPERTS, GammaFinding, MatrixGamma, MatrixNoise, judge_stored_gamma
from mue_check.sigma0.gamma_plots import (
    BLIND,
    LEARNED,
    drawn_pairs,
    loads_text,
    mixture_name,
    plot_gammas,
    plot_noise,
    router_name,
    routing_name,
)
from mue_check.sigma0.power_law import GammaFit
from mue_check.study.comparison import Comparison

_PARTS = {
    "attention": ("attention_",),
    "router's matrix": ("router",),
    "embeddings": ("token_embedding", "position_embedding"),
    "unembedding": ("unembedding",),
    "experts": (EXPERTS,),
}
"""By column, the beginnings of the kinds of matrix in it."""
_FEW = 3
"""Up to this many mixtures are named one by one."""
_NOISE_SCALE = "simple noise scale, tokens"


def _noise_ladders(options: Options, scope: Scope) -> list[Case]:
    """Every mixture on the first corpus; on the others those of the rule's own routing with steered loads."""
    if not scope.is_selected(options):
        return []
    return [
        Case(corpus=corpus, ladder=ladder)
        for at, corpus in enumerate(options.corpora)
        for ladder in options.ladders(scope.axis, corpus, "noise")
        if at == 0 or ladder.steered_router == RULES_OWN
    ]


def _switched_ladders(options: Options, scope: Scope) -> list[Case]:
    """The control, and the rule's own routing for comparison: the first mixture of each."""
    found: dict[str, Case] = {}
    for case in _noise_ladders(options, scope):
        if (router := case.ladder.steered_router) in ("content_blind", RULES_OWN):
            found.setdefault(router, case)
    return list(found.values())


class GammaKind(JudgedKind[GammaFinding]):
    """Gamma of mixtures, with content-blind routing at frozen weights as a control."""

    kind = "gamma"
    measurement = "gradient_noise"
    label = "gamma"
    cases: ClassVar = {"noise_case": _noise_ladders, "switched_case": _switched_ladders}

    def judge(self, store: Store, comparison: Comparison) -> GammaFinding:
        """Fit the exponents."""
        return judge_stored_gamma(store, comparison)

    def sections(self, summary: Summary) -> Iterator[Section]:
        """The tables of steered and natural loads, with their figures; matrices and parts fold."""
        found = summary.of(GammaFinding)
        if not found:
            return
        tables = (gamma_table([g for g in found if g.is_natural is natural], natural) for natural in (False, True))
        folds = (Fold(title=t.caption, tables=(t,)) for t in (matrix_table(found), noise_table(found)) if t.rows)
        yield Section(
            part=Part.ANSWERS,
            anchor="gamma",
            title="sigma_0: gradient noise of experts",
            text="sigma, the ratio of gradient noise to signal, falls with the tokens that an expert sees: sigma ~ "
            "tokens^-gamma. The theory has gamma = 1/2.",
            lines=tuple(_lines(found)),
            tables=tuple(table for table in tables if table.rows),
            pictures=tuple(_pictures(found)),
            folds=tuple(folds),
        )

    def headlines(self, summary: Summary) -> list[str]:
        """Gamma of either routing, and of the control."""
        return [f"sigma_0: {line}" for line in _lines(summary.of(GammaFinding))]


GAMMA = GammaKind()


def gamma_table(found: Sequence[GammaFinding], natural: bool = False) -> Table:
    """One exponent for all matrices of a mixture."""
    cells: dict[str, Callable[[GammaFinding], str]] = {
        "mixture": mixture_name,
        "router": router_name,
        "corpus": lambda g: g.comparison.corpus,
        "loads": loads_text,
        "gamma [95 %]": lambda g: _fit_text(g.pooled),
        "verdict": lambda g: g.verdict.value if g.verdict else NONE,
        "ordinary": lambda g: bounded_text(g.pooled.ordinary),
        "weighted": lambda g: bounded_text(g.pooled.weighted),
        "robust": lambda g: bounded_text(g.pooled.robust),
        "raw gradient [95 %]": lambda g: _fit_text(g.pooled_raw),
        "resolved": lambda g: _points_text(g.pooled),
        "seeds": lambda g: str(len(g.pooled.seeds)),
    }
    if not any(g.comparison.is_control for g in found):
        del cells["verdict"]
    loads = "loads that the routers produce" if natural else "steered loads"
    caption = f"Gamma of sigma ~ tokens^-gamma, all matrices together, {loads} (theory: 1/2)"
    return make_table(caption, found, cells, numeric=("seeds",), note=_note)


def matrix_table(found: Sequence[GammaFinding]) -> Table:
    """Gamma of every matrix in every layer."""
    cells: Cells[tuple[GammaFinding, MatrixGamma]] = {
        "mixture": lambda r: mixture_name(r[0]),
        "router": lambda r: router_name(r[0]),
        "corpus": lambda r: r[0].comparison.corpus,
        "loads": lambda r: loads_text(r[0]),
        "layer": lambda r: str(r[1].layer),
        "matrix": lambda r: r[1].kind.removeprefix(EXPERTS),
        "gamma [95 %]": lambda r: _fit_text(r[1].adam),
        "raw gradient [95 %]": lambda r: _fit_text(r[1].raw),
        "resolved": lambda r: _points_text(r[1].adam),
        "resolved, raw": lambda r: _points_text(r[1].raw),
    }
    rows = [(g, m) for g in found for m in g.matrices]
    return make_table("Gamma, matrix by matrix", rows, cells, numeric=("layer",))


def noise_table(found: Sequence[GammaFinding]) -> Table:
    """log2 sigma of the parts of the model as Adam sees it, and the simple noise scale, setting by setting."""

    def level(setting: tuple[GammaFinding, str], kinds: tuple[str, ...]) -> str:
        noise = [n for n in setting[0].noise if n.setting == setting[1] and n.kind.startswith(kinds)]
        return _level_text(noise)

    cells: Cells[tuple[GammaFinding, str]] = {
        "mixture": lambda r: mixture_name(r[0]),
        "router": lambda r: router_name(r[0]),
        "corpus": lambda r: r[0].comparison.corpus,
        "load": lambda r: r[1],
        **{part: partial(level, kinds=kinds) for part, kinds in _PARTS.items()},
        _NOISE_SCALE: lambda r: number_text(r[0].noise_scale[r[1]], 0),
    }
    caption = "log2 sigma of the parts of the model (mean over their matrices), and the batch at which noise is signal"
    rows = [(g, name) for g in found for name in g.noise_scale]
    return make_table(caption, rows, cells, numeric=(*_PARTS, _NOISE_SCALE))


def _level_text(noise: Sequence[MatrixNoise]) -> str:
    known = [n.log2_sigma for n in noise if math.isfinite(n.log2_sigma)]
    if not known:
        return NONE
    some = f" ({len(known)} of {len(noise)})" if len(known) < len(noise) else ""
    return f"{sum(known) / len(known):.2f}{some}"


def _fit_text(fit: GammaFit) -> str:
    return bounded_text(fit.gamma) if fit.reason is None else NONE


def _points_text(fit: GammaFit) -> str:
    """``371 of 384``: the points that are resolved."""
    return f"{len(fit.points)} of {len(fit.points) + fit.unresolved}"


def _note(found: GammaFinding) -> str:
    if found.comparison.is_control:
        expected = found.comparison.expected
        return f"control, {expected} expected: experts that differ only in their tokens must give 1/2"
    return f"no gamma: {found.pooled.reason}" if found.pooled.reason else ""


def _lines(found: Sequence[GammaFinding]) -> Iterator[str]:
    trained = [g for g in found if not g.is_switched and not g.is_natural and g.pooled.reason is None]
    for routing in (LEARNED, BLIND):
        if chosen := [g for g in trained if routing_name(g.experts) == routing]:
            yield f"gamma (theory 0.5), {routing} routing: {_range_text(chosen)}"
    for g in found:
        if g.verdict:
            gamma = bounded_text(g.pooled.gamma)
            yield f"gamma of the control, {router_name(g)} at frozen weights: {gamma} {g.verdict.value}"


def _range_text(found: Sequence[GammaFinding]) -> str:
    if len(found) <= _FEW:
        return "; ".join(
            f"{bounded_text(g.pooled.gamma)} ({mixture_name(g)}, {router_name(g)}, {g.comparison.corpus})"
            for g in found
        )
    means = [g.pooled.gamma.mean for g in found]
    return f"{min(means):.2f} to {max(means):.2f} in {len(found)} mixtures and corpora"


def _pictures(found: Sequence[GammaFinding]) -> Iterator[Picture]:
    if pairs := drawn_pairs(found):
        gammas = "; ".join(
            f"{'loads switched' if g.is_switched else 'trained'}, {router_name(g)}: {bounded_text(g.pooled.gamma)}"
            for pair in pairs
            for g in pair
        )
        alt = f"Noise-to-signal of each expert against its tokens; gamma {gammas}"
        yield Picture.of(("sigma0", "noise"), alt, plot_noise, pairs)
    gammas = "; ".join(
        f"{mixture_name(g)}, {router_name(g)} on {g.comparison.corpus} {bounded_text(g.pooled.gamma)}" for g in found
    )
    yield Picture.of(("sigma0", "gamma"), f"Gamma of each mixture. {gammas}", plot_gammas, found)
