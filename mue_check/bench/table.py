"""A bench in text: Markdown tables whose columns stand flush, so that they can be read as they are."""

from collections.abc import Iterable, Iterator, Sequence

from mue_check.bench.cases import Case
from mue_check.bench.results import Result, StepRow
from mue_check.bench.timing import Spread
from mue_check.bench.ways import FUSED, WAYS

NOT_MEASURED = "not measured"
PUBLISHED = {"capacity": (1.08, 1.20), "granularity": (1.04, 1.67)}
"""Of the dense step, as published for an H100."""


def render(result: Result, *, figure: str = "") -> str:
    """The whole bench. ``figure`` is the name of the picture beside it."""
    parts = [_head(result), *([f"![Step times, mixtures against dense, growth]({figure})"] if figure else [])]
    parts += ["\n".join(part) for part in (_bars(result), _steps(result), _latency(result), _growth(result))]
    parts += ["\n".join(_coordinates(result))]
    return "\n\n".join(parts) + "\n"


def _head(result: Result) -> str:
    c = result.ceilings
    products = ", ".join(f"{flops / 1e12:.3g} TFLOP/s in {name}" for name, flops in c.flops_per_second.items())
    lines = [
        f"# Bench on {result.device_name}",
        "",
        f"`{result.command}`, torch {result.torch}, {result.threads} thread{'s' * (result.threads != 1)}.",
        "",
        f"Ceilings measured: products {products}; copy {c.bytes_per_second / 1e9:.3g} GB/s.",
        "Times are medians of interleaved rounds in one process, with the lowest and the highest in brackets; ratios",
        "are taken round by round. Before anything was timed, the losses of all ways were the same.",
    ]
    if result.device == "cpu":
        lines += ["", f"Times are CPU time. On a CPU the captured step is the eager one. CUDA: {NOT_MEASURED}."]
    return "\n".join(lines)


def _bars(result: Result) -> Iterator[str]:
    yield from ("## Bars", "")
    rows = []
    for bar in result.bars:
        reached = {True: "reached", False: "missed", None: ""}[bar.reached]
        rows.append((bar.device, bar.shape, bar.bar, _spread(bar.measured, 1), reached))
    yield from table(("device", "shape", "bar", "measured", ""), rows)


def _steps(result: Result) -> Iterator[str]:
    ways = [way for way in WAYS if any(row.way == way for row in result.steps)]
    yield from (
        "## Milliseconds per run and step",
        "",
        "captured, eager: all R runs as one stack; alone: the same code with one run, run after run; plain: torch.nn",
        "and torch.optim.AdamW, run after run, experts as a ModuleList; plain batched: all experts as one product;",
        "vmap: torch.func over stacked parameters, torch.optim.AdamW on the stacks with one learning rate for all.",
        "Behind a time: how many times the first. Shares: of the measured ceilings, by the least that a step must do.",
        "",
    )
    rows = []
    for case in dict.fromkeys(row.case for row in result.steps):
        by_way = {row.way: row for row in result.steps if row.case == case}
        fused = next((by_way[way] for way in FUSED if way in by_way and by_way[way].seconds), None)
        shares = [_percent(fused.share_of_matmul), _percent(fused.share_of_bandwidth)] if fused else ["", ""]
        rows.append((*_case(case), *(_time(by_way.get(way)) for way in ways), *shares))
    yield from table((*_CASE, *ways, "of matmul", "of bandwidth"), rows)


def _latency(result: Result) -> Iterator[str]:
    published = ", ".join(f"{name} {low:.2f} to {high:.2f}" for name, (low, high) in PUBLISHED.items())
    yield from ("## A mixture's step against the dense model of its active width", "", f"Published: {published}.", "")
    yield from table(
        ("grows", *_CASE, "way", "dense ms", "mixture ms", "ratio"),
        [
            (row.grows, *_case(row.case), row.way, _ms(row.dense), _ms(row.mixture), row.note or _spread(row.ratio, 2))
            for row in result.latency
        ],
    )


def _growth(result: Result) -> Iterator[str]:
    yield from (
        "## Growth",
        "",
        "Of a whole fused step, when runs R, width d, context T or experts N grow alone: the power between the ends.",
        "",
    )
    yield from table(
        ("grows", "shape", "way", "sizes", "ms", "exponent"),
        [
            (
                row.grows,
                row.shape,
                row.way,
                ", ".join(map(str, row.sizes)),
                ", ".join(f"{1e3 * seconds:.3g}" for seconds in row.seconds),
                f"{row.exponent:.2f}",
            )
            for row in result.growth
        ],
    )


def _coordinates(result: Result) -> Iterator[str]:
    yield from ("## Coordinate check", "", "The same RMS of branches and logits, against mup's get_coord_data.", "")
    yield from table(
        ("way", "models", "seeds", "steps", "seconds", "times ours"),
        [
            (
                row.way,
                " and ".join(row.models),
                str(row.seeds),
                str(row.steps),
                f"{NOT_MEASURED}: {row.note}" if row.note else _spread(row.seconds, 3),
                _spread(row.times, 1) if row.times else "",
            )
            for row in result.coordinates
        ],
    )


_CASE = ("model", "tokens", "T", "R", "precision")


def _case(case: Case) -> tuple[str, ...]:
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
