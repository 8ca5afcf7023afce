"""``mue_check bench``: how quick a step is, against other ways to train the same runs and the device's ceilings."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mue_check.cli.command import EXIT_FAIL, EXIT_OK, Commands, Options, Parser
from mue_check.errors import SpecError
from mue_check.precision import PRECISIONS, Precision, require_precision

if TYPE_CHECKING:
    from mue_check.bench.results import Result


def add(commands: "Commands[Parser]") -> None:
    """Declare the command."""
    bench = commands.add_parser(
        "bench",
        help="time a step against a plain loop, torch.func and the device's ceilings",
        description="Step time per run of 1 to 32 runs as one stack, against torch.nn and torch.optim run after run, "
        "torch.func.vmap, and mup's coordinate check; mixtures against dense; growth; shares of measured ceilings. The "
        "losses of all ways are compared before anything is timed: exit code 1 where they differ.",
        epilog="example: mue_check bench --device cuda --json reports/bench/cuda.json",
    )
    bench.add_argument("--device", choices=["cpu", "cuda"], help="default: cuda where there is one")
    bench.add_argument("--quick", action="store_true", help="a few small cases: do all parts work?")
    bench.add_argument(
        "--json", type=Path, metavar="OUT", help="write OUT, and the table (.md) and figure (.png) beside it"
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
    import torch

    from mue_check.bench import make_plan, run_bench
    from mue_check.bench.table import render
    from mue_check.bench.ways import Disagreement
    from mue_check.execute.process import prepare_process

    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise SpecError("--device cuda: this machine has no CUDA device")
    if options.json:
        _require_file(options.json)
    precisions = _precisions(options.precision, device)
    prepare_process()
    plan = make_plan(device, precisions, quick=options.quick)
    command = f"mue_check bench --device {device}{' --quick' * options.quick}"
    command += "".join(f" --precision {precision}" for precision in options.precision or ())
    try:
        result = run_bench(plan, command=command, say=_say)
    except Disagreement as error:
        _say("")
        print(f"mue_check bench: {error}", file=sys.stderr)
        return EXIT_FAIL
    _say("")
    print(render(result), end="")
    if options.json:
        _write(result, options.json)
    return EXIT_OK


def _require_file(path: Path) -> None:
    """SpecError where the result could not be written, before it is measured."""
    if path.suffix != ".json" or path.is_dir():
        raise SpecError(f"--json {str(path)!r}: must name a file that ends in .json")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SpecError(f"--json {str(path)!r}: cannot write there: {error.strerror}") from None


def _precisions(asked: list[Precision] | None, device: str) -> tuple[Precision, ...]:
    """What to measure in; SpecError for what this device cannot do."""
    usual: tuple[Precision, ...] = PRECISIONS if device == "cuda" else ("fp32",)
    return tuple(require_precision(precision, device) for precision in dict.fromkeys(asked or usual))


def _write(result: "Result", path: Path) -> None:
    from mue_check.bench.figure import plot
    from mue_check.bench.table import render
    from mue_check.records.files import write_atomic
    from mue_check.report.palette import house_style

    figure = path.with_suffix(".png")
    write_atomic(path, (json.dumps(result.as_json(), indent=1, allow_nan=False) + "\n").encode())
    write_atomic(path.with_suffix(".md"), render(result, figure=figure.name).encode())
    with house_style():
        plot(result).savefig(figure)


def _say(text: str) -> None:
    """Progress in one line, on a terminal alone."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
