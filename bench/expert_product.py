"""Which expert product is faster for which shape: the measurement behind models.experts.choose_product.

    python bench/expert_product.py [--json OUT] [--device cpu|cuda] [--quick]

Times forward and backward of the three products in every precision of the device: fp32 on a CPU, three on a GPU. A
product that has no kernel there, or does not fit into memory, has no time. OUT is written again after every shape.
"""

import argparse
import json
import statistics
from functools import partial
from pathlib import Path

import torch

from mue_check.bench.timing import clock
from mue_check.execute.machine import device_name
from mue_check.execute.process import prepare_process
from mue_check.models.blocked_experts import blocked_experts
from mue_check.models.experts import all_experts, grouped_experts, supports_grouped
from mue_check.precision import PRECISIONS
from mue_check.routing.variants import route
from mue_check.spec import Experts
from mue_check.training.products import set_products

NAMES = ("R", "M", "D", "N", "a", "h")
SHAPES = {
    "cpu": [
        *((8, 512, 32, 16, a, 32) for a in (1, 2, 4, 8, 16)),
        *((8, 512, 64, 16, a, 64) for a in (2, 4, 8)),
        *((8, 512, 32, n, 2, 16) for n in (4, 16, 64, 256)),
        *((4, 512, 128, 16, a, 128) for a in (2, 8)),
        # narrow experts, where sorting costs more than it saves
        *((8, 256, 32, n, a, h) for n, a, h in ((16, 4, 8), (16, 8, 4), (64, 8, 4), (128, 32, 4))),
        *((8, 256, 32, 32, a, h) for a, h in ((8, 16), (2, 8))),
    ],
    "cuda": [
        *((32, m, 128, 16, 4, 32) for m in (4096, 512)),
        *((32, 4096, 128, n, 8, 16) for n in (16, 64, 256, 1024)),
        *((32, 4096, 128, 16, a, 128) for a in (1, 2, 8)),
        (8, 4096, 256, 128, 8, 128),
        (1, 4096, 128, 16, 4, 32),
    ],
}
PRODUCTS = {"all": all_experts, "grouped": grouped_experts, "blocked": blocked_experts}
REPEATS = 7


def train(product, tensors, logits, experts, upstream) -> None:
    product(*tensors, route(logits, experts)).backward(upstream)


def measure(shape, precision, device: torch.device) -> dict[str, float | None]:
    """Milliseconds of each product."""
    runs, tokens, width, total, active, hidden = shape
    experts = Experts(total=total, activated=active, hidden=hidden)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    set_products(precision, device)
    found: dict[str, float | None] = {}
    for name, product in PRODUCTS.items():
        found[f"{name}_ms"] = None
        try:
            leaf = partial(torch.randn, device=device, dtype=dtype, requires_grad=True)
            x, up, gate = leaf(runs, tokens, width), *(leaf(runs, width, total, hidden) for _ in range(2))
            down, logits = leaf(runs, total, hidden, width), leaf(runs, tokens, total)
            if name == "grouped" and not supports_grouped(x, up):
                continue
            call = partial(train, product, (x, up, gate, down), logits, experts, torch.randn_like(x))
            seconds = [clock(call, device) for _ in range(REPEATS + 2)][2:]
        except torch.OutOfMemoryError:
            continue
        found[f"{name}_ms"] = 1e3 * statistics.median(seconds)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--quick", action="store_true", help="the first shape only")
    arguments = parser.parse_args()
    prepare_process()
    device = torch.device(arguments.device)
    shapes = SHAPES[arguments.device][: 1 if arguments.quick else None]
    rows: list[dict[str, object]] = []
    print(" ".join(f"{name:>9}" for name in ("precision", *NAMES, *(f"{name} ms" for name in PRODUCTS))))
    for shape in shapes:
        for precision in PRECISIONS if device.type == "cuda" else ("fp32",):
            times = measure(shape, precision, device)
            rows.append({"precision": precision, **dict(zip(NAMES, shape, strict=True)), **times})
            cells = [f"{ms:.2f}" if isinstance(ms, float) else "-" for ms in times.values()]
            print(" ".join(f"{cell:>9}" for cell in (precision, *shape, *cells)), flush=True)
        if arguments.json:
            found = {"device": device_name(device.type), "torch": torch.__version__, "rows": rows}
            arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
