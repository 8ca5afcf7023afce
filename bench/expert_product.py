"""Which expert product is faster for which shape: the measurement behind models.experts.choose_product.

    python bench/expert_product.py [--json OUT] [--device cpu|cuda] [--quick]

Times router, forward and backward with each product in every precision of the device: fp32 on a CPU, three on a GPU,
where a graph is replayed. A product that has no kernel there, or does not fit into memory, has no time. Results are
compared with those of the first product. The gradient of the logits is computed but not compared: with one expert for
each token its exact value is 0, because the normalized weight is 1 whatever the logits. The gradient of the weights is
compared instead. OUT is written again after every shape.
"""

import argparse
import json
import statistics
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from mue_check.bench.timing import clock
from mue_check.execute.machine import device_name
from mue_check.execute.process import prepare_process
from mue_check.models.blocked_experts import blocked_experts
from mue_check.models.experts import Product, all_experts, grouped_experts, supports_grouped
from mue_check.models.kernels import supports_triton
from mue_check.models.routed_experts import routed_experts
from mue_check.precision import PRECISIONS, Precision
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
PRODUCTS = {"all": all_experts, "grouped": grouped_experts, "blocked": blocked_experts, "kernels": routed_experts}
REPEATS = 7
ERROR = {"fp32": 1e-4, "tf32": 1e-2, "bf16": 5e-2}
"""By which products may differ, relative to the norm."""
Call = Callable[[], list[Tensor]]


def measure(
    shape: tuple[int, ...], precision: Precision, device: torch.device, products: Mapping[str, Product]
) -> dict[str, float | str | None]:
    """Milliseconds of each product, forward and backward, its router included, and of the router alone."""
    runs, tokens, width, total, active, hidden = shape
    experts = Experts(total=total, activated=active, hidden=hidden)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    set_products(precision, device)
    leaf = partial(torch.randn, device=device, dtype=dtype, requires_grad=True)
    x, up, gate = leaf(runs, tokens, width), *(leaf(runs, width, total, hidden) for _ in range(2))
    down, logits = leaf(runs, total, hidden, width), torch.randn(runs, tokens, total, device=device, requires_grad=True)
    upstream = torch.randn_like(x)

    def alone() -> list[Tensor]:
        weights = route(logits, experts).weights
        return list(torch.autograd.grad(weights.sum(), [logits]))

    def train(product: Product) -> list[Tensor]:
        routing = route(logits, experts)
        rounded = routing if product is routed_experts else replace(routing, weights=routing.weights.to(dtype))
        out = product(x, up, gate, down, rounded)
        leaves = [x, up, gate, down, routing.weights, logits]
        return [out.detach(), *torch.autograd.grad(out, leaves, upstream)[:-1]]

    calls: dict[str, Call] = {"router": alone, **{name: partial(train, product) for name, product in products.items()}}
    found: dict[str, float | str | None] = {}
    expected: list[Tensor] | None = None
    for name, call in calls.items():
        found[f"{name}_ms"] = None
        unsupported = name == "grouped" and not supports_grouped(x, up)
        if unsupported or (name.startswith("kernels") and not supports_triton(x)):
            continue
        try:
            results, repeat = repeated(call, device)
            seconds = [clock(repeat, device) for _ in range(REPEATS)]
            found[f"{name}_ms"] = 1e3 * statistics.median(seconds)
            if name != "router":
                expected = expected or [each.clone() for each in results]
                error = float(torch.tensor([*map(difference, results, expected)]).max())  # NaN if one is
                found[f"{name}_error"] = error
                if not error <= ERROR[precision]:
                    print(f"{name} differs from the first product by {error:.2g}", flush=True)
            del results, repeat
        except torch.OutOfMemoryError:
            continue
        except Exception as raised:  # one broken product must not cost the others
            found[f"{name}_error"] = f"{type(raised).__name__}: {raised}"[:300]
            print(name, found[f"{name}_error"], flush=True)
    return found


def repeated(call: Call, device: torch.device) -> tuple[list[Tensor], Callable[[], object]]:
    """What a call returns, and how to repeat it: on a GPU as a graph, because launches from the host would count."""
    if device.type != "cuda":
        return call(), call
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = call()
    graph.replay()
    return results, graph.replay


def difference(found: Tensor, expected: Tensor) -> float:
    """Relative to the norm of what is expected."""
    return float((found.double() - expected.double()).norm() / expected.double().norm())


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
    print(" ".join(f"{name:>9}" for name in ("precision", *NAMES, "router ms", *(f"{name} ms" for name in PRODUCTS))))
    for shape in shapes:
        for precision in PRECISIONS if device.type == "cuda" else ("fp32",):
            times = measure(shape, precision, device, PRODUCTS)
            rows.append({"precision": precision, **dict(zip(NAMES, shape, strict=True)), **times})
            cells = [f"{ms:.2f}" if (ms := times[f"{n}_ms"]) is not None else "-" for n in ("router", *PRODUCTS)]
            print(" ".join(f"{cell:>9}" for cell in (precision, *shape, *cells)), flush=True)
        if arguments.json:
            found = {"device": device_name(device.type), "torch": torch.__version__, "rows": rows}
            arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
