"""``mue_check bench``: how fast a step is, against other ways to train the same runs and the device's ceilings."""

import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from mue_check.cli.command import EXIT_FAIL, EXIT_OK, Commands, Options, Parser, require_between
from mue_check.errors import SpecError, unknown
from mue_check.precision import PRECISIONS, Precision, require_precision

if TYPE_CHECKING:
    from mue_check.bench.results import BenchResult


def add(commands: "Commands[Parser]") -> None:
    """Declare the command."""
    bench = commands.add_parser(
        "bench",
        help="time a step against a plain loop, torch.func and the device's ceilings",
        description="Step time per run of 1 to 32 runs as one stack, against torch.nn and torch.optim run after run, "
        "torch.func.vmap, and mup's coordinate check; mixtures against dense; growth; shares of measured ceilings. The "
        "losses of all ways are compared before they are timed; a way that differs is not timed, and the exit code is "
        "1. Each case prints a line and is written to --json at once, so that a run that is stopped keeps its results.",
        epilog="example: mue_check bench --device cuda --only headline --json reports/bench/cuda.json",
    )
    bench.add_argument("--device", choices=["cpu", "cuda"], help="default: cuda if there is one")
    bench.add_argument("--quick", action="store_true", help="a few small cases: do all parts work?")
    bench.add_argument(
        "--only",
        metavar="NAMES",
        help="some parts, separated by commas: headline (the cases with bars; on cuda also compiled), sweep, "
        "latency, coordinates (default: all, the headline's cases first)",
    )
    bench.add_argument("--deadline", type=float, metavar="S", help="begin no case later than S seconds after the start")
    bench.add_argument(
        "--json", type=Path, metavar="OUT", help="write OUT, and a table (.md) and a figure (.png) next to it"
    )
    bench.add_argument(
        "--precision",
        action="append",
        choices=PRECISIONS,
        help="of products; may be given again (default: all on cuda, fp32 on cpu)",
    )
    bench.set_defaults(run=run)


def run(options: Options) -> int:
    """Measure, print, write."""
    began = time.monotonic()
    import torch

    from mue_check.bench import make_plan, run_bench
    from mue_check.bench.table import render
    from mue_check.execute.process import prepare_process

    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise SpecError("--device cuda: this machine has no CUDA device")
    if options.deadline is not None:
        require_between("--deadline", options.deadline, 0, math.inf, above=True)
    if options.json:
        _require_file(options.json)
    precisions, only = _precisions(options.precision, device), _parts(options.only)
    prepare_process()
    command = f"mue_check bench --device {device}{' --quick' * options.quick}"
    command += f" --only {options.only}" * bool(only)
    command += "".join(f" --precision {precision}" for precision in options.precision or ())
    result = run_bench(
        make_plan(device, precisions, quick=options.quick, only=only),
        command=command,
        report=_reporter(options.json),
        until=math.inf if options.deadline is None else began + options.deadline,
    )
    print(render(result), end="")
    if options.json:
        figure = options.json.with_suffix(".png")
        _draw(result, figure)
        _write(result, options.json, figure.name)
    for problem in result.problems:
        print(f"mue_check bench: {problem}", file=sys.stderr)
    return EXIT_FAIL if result.problems else EXIT_OK


def _require_file(path: Path) -> None:
    """SpecError if the result could not be written, before anything is measured."""
    if path.suffix != ".json" or path.is_dir():
        raise SpecError(f"--json {str(path)!r}: must name a file that ends in .json")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SpecError(f"--json {str(path)!r}: cannot write there: {error.strerror}") from None


def _precisions(requested: list[Precision] | None, device: str) -> tuple[Precision, ...]:
    """The precisions to measure in; SpecError for one that this device does not have."""
    usual: tuple[Precision, ...] = PRECISIONS if device == "cuda" else ("fp32",)
    return tuple(require_precision(precision, device) for precision in dict.fromkeys(requested or usual))


def _parts(text: str | None) -> tuple[str, ...]:
    """The names in ``--only``; SpecError for one that does not exist."""
    from mue_check.bench.cases import PARTS

    names = () if text is None else tuple(text.split(","))
    for name in names:
        if name not in PARTS:
            raise SpecError(f"--only {text!r}: {unknown('part', name, PARTS)}")
    return names


def _reporter(path: Path | None) -> "Callable[[BenchResult, str], None]":
    """Prints a line for each case, and writes what has been measured so far."""

    def report(result: "BenchResult", line: str) -> None:
        print(line, file=sys.stderr, flush=True)
        if path:
            _write(result, path)

    return report


def _write(result: "BenchResult", path: Path, figure: str = "") -> None:
    from mue_check.bench.table import render
    from mue_check.records.files import write_atomic

    write_atomic(path, (json.dumps(result.as_json(), indent=1, allow_nan=False) + "\n").encode())
    write_atomic(path.with_suffix(".md"), render(result, figure=figure).encode())


def _draw(result: "BenchResult", path: Path) -> None:
    from mue_check.bench.figure import plot
    from mue_check.report.palette import house_style

    with house_style():
        plot(result).savefig(path)
