"""Which expert product is quicker for which shape: the measurement behind models.experts.prefer_grouped.

python bench/expert_product.py [--json OUT] [--device cpu|cuda] [--quick]
"""

import argparse
import json
import statistics
import time
from functools import partial
from pathlib import Path

import torch

from mue_check.execute.process import prepare_process
from mue_check.models.experts import all_experts, grouped_experts, supports_grouped
from mue_check.routing.variants import route
from mue_check.spec import Experts

SHAPES = [
    # R, M, D, N, a, h
    *((8, 512, 32, 16, a, 32) for a in (1, 2, 4, 8, 16)),
    *((8, 512, 64, 16, a, 64) for a in (2, 4, 8)),
    *((8, 512, 32, n, 2, 16) for n in (4, 16, 64, 256)),
    *((4, 512, 128, 16, a, 128) for a in (2, 8)),
    # narrow experts, where sorting costs more than it saves
    *((8, 256, 32, n, a, h) for n, a, h in ((16, 4, 8), (16, 8, 4), (64, 8, 4), (128, 32, 4), (32, 8, 16), (32, 2, 8))),
]


def median_seconds(call, device: torch.device, repeats: int = 7) -> float:
    times = []
    for _ in range(repeats + 2):
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


def train(product, tensors, logits, experts, upstream) -> None:
    product(*tensors, route(logits, experts)).backward(upstream)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--quick", action="store_true", help="the first shape alone")
    arguments = parser.parse_args()
    prepare_process()
    device = torch.device(arguments.device)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    rows = []
    print(f"{'R':>3} {'M':>5} {'D':>4} {'N':>4} {'a':>3} {'h':>4} {'all ms':>8} {'grouped ms':>11} {'all/grouped':>12}")
    for runs, tokens, width, total, active, hidden in SHAPES[:1] if arguments.quick else SHAPES:
        experts = Experts(total=total, activated=active, hidden=hidden)
        leaf = partial(torch.randn, device=device, dtype=dtype, requires_grad=True)
        x = leaf(runs, tokens, width)
        up, gate = leaf(runs, width, total, hidden), leaf(runs, width, total, hidden)
        down, logits = leaf(runs, total, hidden, width), leaf(runs, tokens, total)
        upstream = torch.randn_like(x)
        if not supports_grouped(x, up):
            raise SystemExit(f"no grouped kernel for {dtype} on {device}")
        seconds = [
            median_seconds(partial(train, product, (x, up, gate, down), logits, experts, upstream), device)
            for product in (all_experts, grouped_experts)
        ]
        row = dict(zip(("R", "M", "D", "N", "a", "h"), (runs, tokens, width, total, active, hidden), strict=True))
        rows.append({**row, "all_ms": seconds[0] * 1e3, "grouped_ms": seconds[1] * 1e3})
        print(
            f"{runs:3} {tokens:5} {width:4} {total:4} {active:3} {hidden:4} {seconds[0] * 1e3:8.2f} "
            f"{seconds[1] * 1e3:11.2f} {seconds[0] / seconds[1]:12.2f}"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps({"device": str(device), "dtype": str(dtype), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
