"""The step on fake CPU tensors: host syncs, copies from the host and data-dependent shapes raise, as in a capture."""

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)

from mue_check import TrainSpec
from mue_check.data import Corpus
from mue_check.models import experts as experts_module
from mue_check.models import routers
from mue_check.models.blocked_experts import blocked_experts
from mue_check.models.capture_guard import HostDataError, capture_guard
from mue_check.models.experts import grouped_experts
from mue_check.models.language_model import LanguageModel
from mue_check.precision import Precision
from mue_check.routing.content_blind import expected_draws
from mue_check.routing.variants import BALANCES, VARIANTS, route
from mue_check.spec import Experts
from mue_check.training import Stack, training_step
from tests.training.stacks import make_stack

SCORED = [name for name, variant in VARIANTS.items() if variant.scored]
TRAIN = TrainSpec(steps=4, batch=2, context=16)
BOTH: tuple[Precision, ...] = ("fp32", "bf16")
"""tf32 changes no operation, only what a GPU multiplies in."""


PICTURES = [
    "d=64,patch=2",
    "16e2a1s,h=8,patch=2,gates=zero",
    "16e4a,h=8,router=content_blind,patch=2,modulation=shared",
]


def fake_step(text: str, precision: Precision = "fp32") -> Stack:
    """Build a real stack, move all it holds into fake tensors, and take one step there."""
    tokens = np.arange(3000, dtype=np.uint16) % 16
    corpus = Corpus(name="toy", train=tokens[:2000], heldout=tokens[2000:], vocab=16)
    with FakeTensorMode(allow_non_fake_inputs=False) as mode:
        stack = make_stack(corpus, text, TRAIN, depth=1, precision=precision)
        assert mode is not None
        with capture_guard():
            training_step(stack)
    return stack


@pytest.fixture(autouse=True)
def _no_grouped_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its fake kernel refuses float32: there blocks take its place, as on a GPU. In bf16 it is tried below."""
    monkeypatch.setattr(experts_module, "FEW_NUMBERS", 0)
    monkeypatch.setattr(experts_module, "supports_grouped", lambda rows, weights: False)


@pytest.mark.parametrize("precision", BOTH)
@pytest.mark.parametrize("text", ["d=32", "d=64,H=96", "4e4a", "16e2a", "8e4a2g1s,h=16", *PICTURES])
def test_the_step_is_safe_to_capture(text: str, precision: Precision) -> None:
    assert fake_step(text, precision).log.shape == (4, 2)


@pytest.mark.parametrize(
    ("router", "balance", "precision"),
    [
        *((router, "none", precision) for router in VARIANTS for precision in BOTH),
        *((router, balance, "fp32") for router in SCORED for balance in BALANCES if balance != "none"),
    ],
)
def test_every_router_and_balance_is_safe_to_capture(router: str, balance: str, precision: Precision) -> None:
    notation = "16e1a1s" if router == "switch" else "16e4a1s"
    text = f"{notation},h=8,router={router},balance={balance}"
    assert fake_step(text, precision).log.shape == (4, 2)


@pytest.mark.parametrize("text", ["d=32", "16e2a", "8e4a2g1s,h=16", "16e2a,router=expert_choice", "16e2a,load=zipf:1"])
@pytest.mark.parametrize("product", [blocked_experts, grouped_experts])
def test_the_step_in_bfloat16_is_safe_to_capture(monkeypatch: pytest.MonkeyPatch, text: str, product) -> None:
    monkeypatch.setattr(experts_module, "choose_product", lambda *shapes: product)
    assert fake_step(text, "bf16").log.dtype is torch.float32


@pytest.mark.parametrize("router", SCORED)
def test_steering_is_safe_to_capture(router: str) -> None:
    notation = {"switch": "16e1a1s", "deepseek_v3": "16e2a1s"}.get(router, "16e2a2g")
    stack = fake_step(f"{notation},h=8,router={router},load=zipf:0.5")
    assert stack.routers.steering is not None
    assert stack.routers.bias_LRE is None


BLIND = "16e4a2g1s,h=8,router=content_blind,load=zipf:0.5"


@pytest.mark.parametrize("text", [BLIND, "16e2a,h=8,router=content_blind,load=zipf:0.5"])
def test_a_blind_draw_with_a_load_is_safe_to_capture(text: str) -> None:
    assert fake_step(text).routers.steering is None


def test_the_guard_finds_a_table_that_is_made_in_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """As content_blind made its own once, which a GPU refused."""
    given = routers.route

    def route_with_a_new_table(logits, experts, **rest):
        return given(logits, experts, **rest | {"expected_E": expected_draws(experts, logits.device)})

    monkeypatch.setattr(routers, "route", route_with_a_new_table)
    with pytest.raises(HostDataError, match="before the step"):
        fake_step(BLIND)


@pytest.mark.parametrize(
    "unsafe",
    [
        lambda x: x * x.sum().item(),
        lambda x: x[x > 0].sum(),
        lambda x: x if bool((x > 0).any()) else -x,
        lambda x: x[torch.nonzero(x.flatten())[0]].sum(),
    ],
    ids=["item", "mask", "branch", "nonzero"],
)
def test_the_guard_sees_what_must_not_be(monkeypatch: pytest.MonkeyPatch, unsafe) -> None:
    whole = LanguageModel.losses
    monkeypatch.setattr(
        LanguageModel,
        "losses",
        lambda self, p, tokens, **rest: whole(self, p, tokens, **rest) + unsafe(p["unembedding"]).sum(),
    )
    with pytest.raises((DataDependentOutputException, DynamicOutputShapeException)):
        fake_step("d=32")


def test_the_grouped_product_is_safe_to_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experts_module, "supports_grouped", lambda rows, weights: True)
    experts = Experts(total=8, activated=2, hidden=16)
    with FakeTensorMode():

        def leaf(*shape: int) -> torch.Tensor:
            return torch.empty(*shape, dtype=torch.bfloat16, requires_grad=True)

        x, logits, down = leaf(2, 32, 16), leaf(2, 32, 8), leaf(2, 8, 16, 16)
        up, gate = leaf(2, 16, 8, 16), leaf(2, 16, 8, 16)
        out = grouped_experts(x, up, gate, down, route(logits, experts))
        out.backward(torch.empty_like(out))
        assert out.shape == (2, 32, 16)
        assert up.grad is not None
