"""The ways in which a case is timed, by name; and that they do the same work."""

from collections.abc import Callable, Mapping

import torch

from mue_check.bench.cases import Case
from mue_check.bench.fused import Alone, Fused
from mue_check.bench.plain_loop import PlainLoop
from mue_check.bench.setup import Setup
from mue_check.bench.vmapped import Vmapped
from mue_check.bench.way import Way
from mue_check.precision import Precision
from mue_check.spec import Experts

WAYS = ("captured", "eager", "alone", "plain", "plain batched", "vmap")
FUSED = WAYS[:2]
"""Ways of all runs in one stack; the first that the device has is what others are compared with."""
COMPARED = 6
"""Steps after which losses are compared: the learning rate has risen by then, and a wrong one shows."""
SEQUENTIAL_RUNS = 2
"""Run after run costs the same for each run: two of them stand for all R."""
TOLERANCE: Mapping[Precision, float] = {"fp32": 1e-3, "tf32": 2e-2, "bf16": 5e-2}
"""Of losses in nats per token, absolute and relative."""


class Disagreement(Exception):
    """Two ways do not do the same work, so that timing them would say nothing."""


def builders(setup: Setup) -> dict[str, Callable[[], Way]]:
    """What makes each way."""
    few = min(setup.case.runs, SEQUENTIAL_RUNS)
    ways: dict[str, Callable[[], Way]] = {}
    if setup.device.type == "cuda":
        ways["captured"] = lambda: Fused(setup, captured=True)
    ways["eager"] = lambda: Fused(setup, captured=False)
    ways["alone"] = lambda: Alone(setup, few)
    ways["plain"] = lambda: PlainLoop(setup, few, batched=False)
    if isinstance(setup.case.spec.feed_forward, Experts):
        ways["plain batched"] = lambda: PlainLoop(setup, few, batched=True)
    ways["vmap"] = lambda: Vmapped(setup)
    return ways


def require_agreement(name: str, losses: torch.Tensor, expected: torch.Tensor, case: Case) -> None:
    """Disagreement where [COMPARED, runs] losses are not those expected of the first runs, [COMPARED, R]."""
    expected, tolerance = expected[:, : losses.shape[1]], TOLERANCE[case.precision]
    if not torch.allclose(losses, expected, rtol=tolerance, atol=tolerance):
        worst = (losses - expected).abs().max().item()
        raise Disagreement(
            f"{case.name}: {name} does not train like the fused runs: losses of the first {COMPARED} steps "
            f"differ by up to {worst:.3g} nats per token (tolerance {tolerance:g})"
        )
