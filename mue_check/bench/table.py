"""A bench as text: Markdown tables with padded columns, readable as they are."""

from collections.abc import Iterable, Iterator, Sequence

from mue_check.bench.cases import FUSED, WAYS, BenchCase
from mue_check.bench.results import BenchResult, StepRow
from mue_check.bench.timing import Spread

NOT_MEASURED = "not measured"
PUBLISHED = {"capacity": (1.08, 1.20), "granularity": (1.04, 1.67)}
"""Relative to the dense step, as published for an H100."""
WAYS_IN_WORDS = """
captured, eager: all R runs as one stack; compiled: the captured stack after torch.compile; alone: the same code with
one run, run after run; plain: torch.nn and torch.optim.AdamW, run after run, experts as a ModuleList; plain batched:
all experts as one product; vmap: torch.func over stacked parameters, torch.optim.AdamW on the stacks with one learning
rate for all. In brackets: how many times the first. Shares: of the measured ceilings, by the least work of a step.
""".strip()
_CASE = ("model", "tokens", "T", "R", "precision")


def render(result: BenchResult, *, figure: str = "") -> str:
    """The whole bench. ``figure`` is the file name of its figure."""
    parts = [_head(result), *([f"![Step times, mixtures against dense, growth]({figure})"] if figure else [])]
    parts += ["\n".join(part(result)) for part in (_bars, _steps, _latency, _growth, _coordinates)]
    return "\n\n".join(parts) + "\n"


def _head(result: BenchResult) -> str:
    c = result.ceilings
    products = ", ".join(f"{flops / 1e12:.3g} TFLOP/s in {name}" for name, flops in c.flops_per_second.items())
    lines = [
        f"# Bench on {result.device_name}",
        "",
        f"`{result.command}`, torch {result.torch}, {result.threads} thread{'s' * (result.threads != 1)}.",
        "",
        f"Ceilings measured: products {products}; copy {c.bytes_per_second / 1e9:.3g} GB/s.",
        "Times are medians of interleaved rounds in one process, with the lowest and the highest in brackets; ratios",
        "are taken round by round. Ways are timed only after their losses have been compared.",
    ]
    if result.device == "cpu":
        lines += ["", f"Times are CPU time. On a CPU the captured step is the eager one. CUDA: {NOT_MEASURED}."]
    for title, found in (("Problems", result.problems), ("Not measured, out of time", result.not_reached)):
        lines += ["", f"**{title}:**", "", *(f"- {line}" for line in found)] if found else []
    return "\n".join(lines)


def _bars(result: BenchResult) -> Iterator[str]:
    yield from ("## Bars", "")
    reached = {True: "reached", False: "missed", None: ""}
    yield from table(
        ("device", "shape", "bar", "measured", ""),
        [(bar.device, bar.shape, bar.bar, _spread(bar.measured, 1), reached[bar.reached]) for bar in result.bars],
    )


def _steps(result: BenchResult) -> Iterator[str]:
    ways = [way for way in WAYS if any(row.way == way for row in result.steps)]
    yield from ("## Milliseconds per run and step", "", WAYS_IN_WORDS, "")
    rows = []
    for case in dict.fromkeys(row.case for row in result.steps):
        by_way = {row.way: row for row in result.steps if row.case == case}
        fused = next((by_way[way] for way in FUSED if way in by_way and by_way[way].seconds), None)
        shares = [_percent(fused.share_of_matmul), _percent(fused.share_of_bandwidth)] if fused else ["", ""]
        rows.append((*_case(case), *(_time(by_way.get(way)) for way in ways), *shares))
    yield from table((*_CASE, *ways, "of matmul", "of bandwidth"), rows)


def _latency(result: BenchResult) -> Iterator[str]:
    published = ", ".join(f"{name} {low:.2f} to {high:.2f}" for name, (low, high) in PUBLISHED.items())
    yield from ("## A mixture's step against the dense model of its active width", "", f"Published: {published}.", "")
    yield from table(
        ("grows", *_CASE, "way", "dense ms", "mixture ms", "ratio"),
        [
            (row.grows, *_case(row.case), row.way, _ms(row.dense), _ms(row.mixture), row.note or _spread(row.ratio, 2))
            for row in result.latency
        ],
    )


def _growth(result: BenchResult) -> Iterator[str]:
    yield from (
        "## Growth",
        "",
        "A whole fused step as runs R, width d, context T or experts N grow alone: exponent between the two ends.",
        "",
    )
    rows = []
    for row in result.growth:
        sizes, times = ", ".join(map(str, row.sizes)), ", ".join(f"{1e3 * seconds:.3g}" for seconds in row.seconds)
        rows.append((row.grows, row.shape, row.way, sizes, times, f"{row.exponent:.2f}"))
    yield from table(("grows", "shape", "way", "sizes", "ms", "exponent"), rows)


def _coordinates(result: BenchResult) -> Iterator[str]:
    yield from ("## Coordinate check", "", "The same RMS of branches and logits, against mup's get_coord_data.", "")
    rows = []
    for row in result.coordinates:
        seconds = f"{NOT_MEASURED}: {row.note}" if row.note else _spread(row.seconds, 3)
        times = _spread(row.times, 1) if row.times else ""
        rows.append((row.way, " and ".join(row.models), str(row.seeds), str(row.steps), seconds, times))
    yield from table(("way", "models", "seeds", "steps", "seconds", "times ours"), rows)


def _case(case: BenchCase) -> tuple[str, ...]:
    return case.model, str(case.tokens), str(case.context), str(case.runs), case.precision


def _time(row: StepRow | None) -> str:
    if row is None or row.seconds is None:
        return row.note if row else ""
    times = f" ({row.times.median:.2f}x)" if row.times and row.times.high != row.times.low else ""
    return f"{1e3 * row.seconds.median:.3g}{times}"


def _ms(spread: Spread | None) -> str:
    return f"{1e3 * spread.median:.3g}" if spread else ""


def _percent(share: float | None) -> str:
    return f"{100 * share:.1f} %" if share is not None else ""


def _spread(spread: Spread | None, digits: int) -> str:
    if spread is None:
        return NOT_MEASURED
    median, low, high = (f"{value:.{digits}f}" for value in (spread.median, spread.low, spread.high))
    return f"{median} [{low}, {high}]"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Markdown, each column as wide as its widest cell."""
    lines = [list(header), *map(list, rows)]
    widths = [max(3, *(len(line[at]) for line in lines)) for at in range(len(header))]
    lines.insert(1, ["-" * width for width in widths])
    return ["| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |" for line in lines]
