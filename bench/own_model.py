"""The coordinate check of a user's model against microsoft/mup's ``get_coord_data``, on the same models and batches.

python bench/own_model.py [--seeds 3] [--rounds 7] [--out reports/bench/own_model.md]

Both run in this process, in turn, on one thread, with their defaults: mup three training steps, ours one and a second
forward pass. mup measures all seeds; ours begins with two, and adds seeds up to the same number while a row is open.
Ours also has the parameters, their change, the check of the base size, and the verdict. Times are CPU seconds. Needs
`pip install --no-deps mup pyyaml`.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from mue_check import check_model
from mue_check.judge.verdict import Verdict
from mue_check.report.markdown import markdown_table
from mue_check.report.table import Row, Table
from tests.own_model.mup_like import WithBaseShapes

CASES = (("mlp", (32, 128, 512)), ("mlp", (32, 512, 2048)), ("transformer", (32, 128, 512)), ("vit", (32, 128, 512)))


def of_mup(setup: WithBaseShapes, widths: tuple[int, ...], seeds: int) -> None:
    """mup's own check. Its optimizer and base shapes play no part in the time, so the models keep ours."""
    from mup import set_base_shapes
    from mup.coord_check import get_coord_data

    def lazy(width: int) -> Any:
        return lambda: set_base_shapes(setup.model(width), None)

    get_coord_data(
        {width: lazy(width) for width in widths},
        [next(iter(setup.batches(0)))],
        optimizer="adam",
        lr=1e-3,
        mup=True,
        nseeds=seeds,
        cuda=False,
        show_progress=False,
    )


def ours(setup: WithBaseShapes, widths: tuple[int, ...], seeds: int) -> None:
    """The same widths, and at most as many seeds."""
    report = check_model(setup, sizes=widths, seeds=range(2, seeds + 1))
    if report.verdict is Verdict.FAIL:
        raise SystemExit(str(report))


def main() -> None:
    """Time both in turn, and write the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("reports/bench/own_model.md"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for kind, widths in CASES:
        setup = WithBaseShapes(kind)
        calls: list[Callable[[], None]] = [partial(f, setup, widths, options.seeds) for f in (ours, of_mup)]
        taken = []
        for _ in range(options.rounds + 1):  # the first warms up
            seconds = []
            for call in calls:
                start = time.process_time()
                call()
                seconds.append(time.process_time() - start)
            taken.append(seconds)
        a, b = (statistics.median(column) for column in zip(*taken[1:], strict=True))
        ratios = sorted(a / b for a, b in taken[1:])
        spread = f"{statistics.median(ratios):.2f} [{ratios[0]:.2f}, {ratios[-1]:.2f}]"
        rows.append(Row(cells=(kind, ", ".join(map(str, widths)), f"{a:.3f}", f"{b:.3f}", spread)))
        print(*rows[-1].cells, flush=True)
    header = ("model", "widths", "mue_check, s", "mup, s", "ratio, median [least, largest]")
    table = Table(caption="", header=header, rows=tuple(rows), numeric=(2, 3))
    lines = [
        "# The coordinate check against mup's",
        "",
        f"`python bench/own_model.py --seeds {options.seeds} --rounds {options.rounds}`, torch {torch.__version__}, "
        "one thread, CPU seconds. Both measure the same models and batches in one process, in turn: mup all seeds, "
        "mue_check two, and more while a row is open.",
        "",
        *markdown_table(table),
    ]
    options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
