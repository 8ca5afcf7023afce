"""Figures of gamma: noise against tokens under either routing, and gamma of every mixture."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mue_check.judge.interval import Interval
from mue_check.report.format import bounded_text, in_words, routing_words
from mue_check.report.palette import (
    BAND,
    BAND_ALPHA,
    MARKERS,
    QUIET,
    TARGETS,
    WIDTH,
    draw_interval,
    house_style,
    shorten,
)
from mue_check.sigma0.calibration import routing_of
from mue_check.sigma0.gamma import THEORY, TOLERANCE, GammaFinding
from mue_check.sigma0.ladders import ACTIVATED, BATCHES, BLIND_LOADS, CAPACITIES, HELDOUT_LOADS, LOADS
from mue_check.sigma0.power_law import GammaFit
from mue_check.spec import Experts

BLIND, LEARNED = "content-blind", "learned"
COLORS = {LEARNED: TARGETS[0], BLIND: TARGETS[1]}
"""By the name of the routing."""
_LADDERS = (LOADS, BLIND_LOADS, BATCHES, ACTIVATED, CAPACITIES)


def routing_name(experts: Experts) -> str:
    """Learned or content-blind."""
    return routing_words(routing_of(experts))


def ladder_look(ladder: str) -> tuple[str, str]:
    """(color, marker) of a ladder; loads have the color of their routing."""
    if ladder == HELDOUT_LOADS:
        return TARGETS[0], MARKERS[1]
    at = _LADDERS.index(ladder) if ladder in _LADDERS else len(_LADDERS)
    return TARGETS[at % len(TARGETS)], MARKERS[at % len(MARKERS)]


def short_ladder(ladder: str) -> str:
    """The name of a ladder without that of the axis."""
    return in_words(ladder.removeprefix("sigma0_"))


def cross(
    axes: Axes,
    at: tuple[float, float],
    color: str,
    *,
    x: Interval | None = None,
    y: Interval | None = None,
    marker: str = "o",
    solid: bool = True,
) -> None:
    """A marker with those error bars that are finite."""
    bars = [i.half_width if i and math.isfinite(i.half_width) else 0.0 for i in (x, y)]
    axes.errorbar(*at, xerr=bars[0], yerr=bars[1], color=color, capsize=2.5, linewidth=1.1, alpha=0.75)
    inside = color if solid else "white"
    axes.plot(*at, marker=marker, markersize=6, color=color, markerfacecolor=inside, zorder=4)


_PANELS = 2
_LEGEND = 0.25
"""Share of the panel's height that is kept for its legend."""
_REACH = 1.5
"""How far an interval may widen the axis, times the largest gamma."""


def mixture_name(found: GammaFinding) -> str:
    """16e2a, width 32."""
    return f"{found.experts.notation}, width {found.model.width}"


def router_name(found: GammaFinding) -> str:
    """The mixture's router, with its balancing method where the load is not steered."""
    balance = found.experts.balance if found.is_natural else "none"
    return found.experts.router + (f"+{balance}" if balance != "none" else "")


def loads_text(found: GammaFinding) -> str:
    """How the loads were made: natural, switched at frozen weights, or the number that were trained."""
    if found.is_natural:
        return "natural"
    return "switched" if found.is_switched else f"{len(found.comparison.sides)} trained"


def drawn_pairs(found: Sequence[GammaFinding]) -> list[list[GammaFinding]]:
    """Mixtures that differ only in being content-blind or learned: at frozen weights, and trained."""
    groups: dict[tuple[bool, str, str, int], dict[str, GammaFinding]] = {}
    for g in found:
        if not g.is_natural and g.pooled.reason is None:
            key = (not g.is_switched, g.comparison.corpus, g.experts.notation, g.model.width)
            groups.setdefault(key, {}).setdefault(routing_name(g.experts), g)
    pairs = [[group[name] for name in sorted(group)] for _, group in sorted(groups.items()) if BLIND in group]
    return [pair for pair in pairs if len(pair) > 1][:_PANELS]


def plot_noise(pairs: Sequence[Sequence[GammaFinding]]) -> Figure:
    """log2 sigma of every expert under every load against log2 of its tokens, with the fitted and the theory's power.

    The level of each matrix is subtracted.
    """
    with house_style():
        figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
        first: Axes | None = None
        for at, pair in enumerate(pairs):
            axes = figure.add_subplot(1, len(pairs), at + 1, sharey=first)
            first = first or axes
            for g in pair:
                _points(axes, g)
            _theory(axes, pair[0].pooled)
            axes.set_title(_panel_title(pair), fontsize=9.5)
            axes.set_xlabel("log2(tokens of an expert in a batch)")
            if at == 0:
                axes.set_ylabel("log2 sigma, as Adam sees it\n(each matrix's own level subtracted)")
            axes.legend(fontsize=8.5, loc="upper right")
        if first is not None:
            low, high = first.get_ylim()
            first.set_ylim(low, high + _LEGEND * (high - low))
        figure.suptitle("Gradient noise-to-signal sigma of each expert against its tokens", x=0.01, ha="left")
    return figure


def _points(axes: Axes, found: GammaFinding) -> None:
    fit, routing = found.pooled, routing_name(found.experts)
    color = COLORS[routing]
    x, y = np.array([(p.log2_tokens, p.log2_sigma) for p in fit.points]).T
    marker = "s" if routing == BLIND else "o"
    axes.plot(x, y, linestyle="", marker=marker, markersize=2.8, color=color, alpha=0.3, markeredgewidth=0)
    ends = np.array([x.min(), x.max()])
    label = f"{routing}: gamma {bounded_text(fit.gamma)}"
    axes.plot(ends, fit.intercept - fit.gamma.mean * ends, color=color, linewidth=2.2, label=label)


def _theory(axes: Axes, fit: GammaFit) -> None:
    """A line of gamma 1/2 through the middle of the first points."""
    x = np.array([p.log2_tokens for p in fit.points])
    middle = fit.intercept - fit.gamma.mean * x.mean()
    ends = np.array([x.min(), x.max()])
    y = middle - THEORY * (ends - x.mean())
    axes.plot(ends, y, color=QUIET, linewidth=1.2, linestyle="--", label="theory: gamma 1/2")


def _panel_title(pair: Sequence[GammaFinding]) -> str:
    g = pair[0]
    how = "loads switched at frozen weights" if g.is_switched else "trained under each load"
    verdicts = "".join(f"; control {c.verdict.value}" for c in pair if c.verdict)
    return f"{how}{verdicts}\n{shorten(mixture_name(g), 24)}, {shorten(g.comparison.corpus, 20)}"


def plot_gammas(found: Sequence[GammaFinding]) -> Figure:
    """Gamma of every mixture with its interval, and the theory's 1/2; open markers: loads that are not steered."""
    rows = sorted(found, key=lambda g: (g.comparison.is_control, not g.is_natural, not g.is_switched))
    known = [g for g in rows if g.pooled.reason is None]
    with house_style():
        figure = Figure(figsize=(WIDTH, 1.7 + 0.3 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        axes.axvspan(THEORY - TOLERANCE, THEORY + TOLERANCE, color=BAND, alpha=BAND_ALPHA, linewidth=0)
        axes.axvline(THEORY, color=QUIET, linewidth=1.2, linestyle="--")
        axes.axvline(0, color=QUIET, linewidth=1)
        for row, g in enumerate(rows):
            fit, color = g.pooled, COLORS[routing_name(g.experts)]
            if fit.reason is not None:
                axes.text(THEORY / 2, row, "unresolved", va="center", ha="center", fontsize=8.5, color=color)
                continue
            draw_interval(axes, fit.gamma, row, color, marker="o")
            if g.is_natural:
                axes.plot(fit.gamma.mean, row, marker="o", markersize=4.5, color="white", zorder=6)
        axes.set_xlim(*_limits(known))
        axes.set_yticks(range(len(rows)), [_label(g) for g in rows], fontsize=8.5)
        axes.set_ylim(-0.7, len(rows) - 0.3)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("gamma of sigma ~ tokens^-gamma\n(dashed: theory; band: tolerance of the control)")
        figure.suptitle("; ".join(["Gamma of each mixture", *_title_parts(known)]), x=0.01, ha="left")
        figure.legend(handles=_handles(rows), loc="outside lower center", ncols=3)
    return figure


def _limits(known: Sequence[GammaFinding]) -> tuple[float, float]:
    means = [0.0, THEORY + TOLERANCE, *(g.pooled.gamma.mean for g in known)]
    ends = [end for g in known for end in (g.pooled.gamma.low, g.pooled.gamma.high) if math.isfinite(end)]
    reach = _REACH * max(abs(mean) for mean in means)
    low, high = max(min([*means, *ends]), min(means) - reach), min(max([*means, *ends]), max(means) + reach)
    return low - 0.05, high + 0.05


def _label(found: GammaFinding) -> str:
    control = "control: " if found.comparison.is_control else ""
    how = "switched" if found.is_switched else "natural" if found.is_natural else ""
    parts = [mixture_name(found), router_name(found), found.comparison.corpus, how]
    return shorten(control + ", ".join(part for part in parts if part), 72)


def _title_parts(known: Sequence[GammaFinding]) -> Iterator[str]:
    trained = [g for g in known if not g.is_natural and not g.is_switched]
    learned = [g.pooled.gamma.mean for g in trained if routing_name(g.experts) != BLIND]
    if learned:
        yield f"learned routing {min(learned):.2f} to {max(learned):.2f}, theory {THEORY:g}"
    yield from (f"control {bounded_text(g.pooled.gamma)} {g.verdict.value}" for g in known if g.verdict)


def _handles(rows: Sequence[GammaFinding]) -> list[Line2D]:
    names = dict.fromkeys(routing_name(g.experts) for g in rows)
    handles = [Line2D([], [], color=COLORS[name], marker="o", label=f"{name} routing") for name in names]
    if any(g.is_natural for g in rows):
        mark = Line2D([], [], color=QUIET, marker="o", markerfacecolor="white", linestyle="", label="load not steered")
        handles.append(mark)
    return handles
