"""The formulas of FLOP against torch's own counter, on real training steps."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mue_check.cost.work import Product, met_experts, product_of
from mue_check.data import Data, load_corpus
from mue_check.flops import activation_numbers, attention_flop, blocks_flop, language_ends
from mue_check.models import experts
from mue_check.models.blocked_experts import blocked_experts
from mue_check.models.experts import all_experts, grouped_experts
from mue_check.models.families import family_of
from mue_check.rules import HyperParameters, get_rule
from mue_check.spec import DiffusionSpec, ModelSpec, Scenario, TrainSpec
from mue_check.spec_text import parse_scenario
from mue_check.training import Stack
from mue_check.training.run import training_step
from tests.images import made_up_images

TRAIN = TrainSpec(steps=2, batch=4, context=16)
RUNS, TOKENS = 2, TRAIN.tokens_per_step
DENSE = ("d=32,L=2,H=32", "d=64,L=3,H=128", "d=32,L=1,H=16,dh=32")
MIXTURES = (
    "d=32,L=2,16e2a,h=32",
    "d=32,L=2,16e16a,h=8",
    "d=32,L=3,16e4a1s,h=8",
    "d=64,L=1,8e2a2s,h=16",
    "d=32,L=1,16e4a4g,h=8,router=sigmoid_group_norm",
    "d=32,L=2,16e2a,h=16,router=content_blind",
    "d=32,L=1,16e2a,h=16,router=expert_choice",
)
DIFFUSION = (
    "d=32,L=2,H=32,patch=2",
    "d=32,L=1,8e2a1s,h=16,patch=2,labels=off",
    "d=64,L=2,H=32,patch=2,modulation=shared",
    "d=32,L=2,16e2a,h=16,router=content_blind,patch=2,gates=zero",
)


def data_of(model: ModelSpec) -> Data:
    return made_up_images() if isinstance(model, DiffusionSpec) else load_corpus("markov")


def stack_of(text: str) -> Stack:
    model = parse_scenario(text).model
    scenario = Scenario.of(model, TRAIN)
    return Stack(
        model,
        get_rule("complete_mue").prescribe(scenario, scenario),
        HyperParameters(init_std=0.1),
        TRAIN,
        data_of(model),
        lrs=[0.01] * RUNS,
        seeds=range(RUNS),
        device=torch.device("cpu"),
    )


def grouped_flop(a_shape, b_shape, *args, out_shape=None, **kwargs) -> int:
    rows, inner = a_shape
    return 2 * rows * inner * b_shape[-1]


def counted(stack: Stack) -> float:
    """FLOP of a step per run and token; torch knows no formula for the grouped product."""
    formulas = {torch.ops.aten._grouped_mm: grouped_flop}
    with FlopCounterMode(display=False, custom_mapping=formulas) as counter:
        training_step(stack)
    return counter.get_total_flops() / (RUNS * TRAIN.tokens_per_step)


@pytest.mark.parametrize("text", [*DENSE, *MIXTURES, *DIFFUSION])
def test_flop_of_a_training_step(text: str) -> None:
    stack = stack_of(text)
    assert counted(stack) == pytest.approx(foretold(stack, product_of(stack.model.spec, TOKENS, "cpu")), rel=1e-6)


def foretold(stack: Stack, product: Product) -> float:
    model = stack.model.spec
    met = met_experts(model, product, tokens=TOKENS, runs=RUNS)
    return family_of(model).amounts(model, TRAIN, data_of(model), met).flop


@pytest.mark.parametrize(
    ("name", "product"), [("all", all_experts), ("active", grouped_experts), ("blocks", blocked_experts)]
)
@pytest.mark.parametrize("text", ["d=32,L=2,16e4a1s,h=8", "d=32,L=1,64e2a,h=16"])
def test_every_product(text: str, name: Product, product, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experts, "choose_product", lambda *_: product)
    stack = stack_of(text)
    assert counted(stack) == pytest.approx(foretold(stack, name), rel=1e-6)


@pytest.mark.parametrize("text", [*DENSE, *MIXTURES, *DIFFUSION])
def test_parameters_are_those_that_the_optimizer_has(text: str) -> None:
    stack = stack_of(text)
    model = stack.model.spec
    assert family_of(model).amounts(model, TRAIN, data_of(model), 1).parameters == stack.state.flat.numel() / RUNS


def test_all_experts_cost_what_a_dense_model_of_their_width_costs() -> None:
    mixture, dense = (parse_scenario(text).model for text in ("d=32,L=2,16e2a,h=16", "d=32,L=2,H=256"))
    router = 2 * 2 * 32 * 16
    flop = blocks_flop(mixture, met=16)
    assert flop == blocks_flop(dense, met=0) + router
    assert flop > blocks_flop(mixture, met=2)
    assert attention_flop(mixture, context=16) == attention_flop(dense, context=16)
    ends = language_ends(mixture, context=16, vocab=32)
    numbers = [activation_numbers(mixture, ends, context=16, met=met) for met in (16, 2)]
    assert numbers[0] > numbers[1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for the card")
@pytest.mark.parametrize(
    ("text", "product"), [("16e4a,h=32", "active"), ("256e8a,h=16", "active"), ("16e8a,h=16", "all")]
)
def test_without_a_gpu_the_plan_for_cuda_is_that_of_a_gpu_with_kernels(text: str, product: Product) -> None:
    model = parse_scenario(f"d=128,L=4,{text}").model
    assert product_of(model, 4096, "cuda") == product
