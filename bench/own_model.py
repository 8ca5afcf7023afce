"""The coordinate check of a user's model against microsoft/mup's ``get_coord_data``, on the same models and batches.

python bench/own_model.py [--widths 128,256,512] [--seeds 3] [--rounds 5]

Both run with their defaults: mup three training steps, ours one and a second forward pass. Ours also has the
parameters, their change, the check of the base size, and the verdict. Needs `pip install --no-deps mup pyyaml`.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from mue_check import check_model
from mue_check.judge.verdict import Verdict
from tests.own_model.mup_like import BASE, KINDS, WithBaseShapes


def of_mup(setup: WithBaseShapes, widths: list[int], seeds: int) -> None:
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


def ours(setup: WithBaseShapes, widths: list[int], seeds: int) -> None:
    """The same widths and number of seeds."""
    report = check_model(setup, sizes=widths, seeds=(seeds,), base=BASE)
    if report.verdict is Verdict.FAIL:
        raise SystemExit(str(report))


def main() -> None:
    """Time both in turn, and print the median of the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--widths", default="128,256,512")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    widths = [int(width) for width in options.widths.split(",")]
    for kind in KINDS:
        setup = WithBaseShapes(kind)
        calls: list[Callable[[], None]] = [partial(f, setup, widths, options.seeds) for f in (ours, of_mup)]
        taken = []
        for _ in range(options.rounds + 1):  # the first warms up
            seconds = []
            for call in calls:
                start = time.perf_counter()
                call()
                seconds.append(time.perf_counter() - start)
            taken.append(seconds)
        ratio = statistics.median(a / b for a, b in taken[1:])
        a, b = (statistics.median(column) for column in zip(*taken[1:], strict=True))
        print(f"{kind}: ours {a:.2f} s, mup {b:.2f} s, ratio {ratio:.2f}", flush=True)


if __name__ == "__main__":
    main()
