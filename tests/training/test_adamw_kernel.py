"""The kernel of AdamW on a CPU, by Triton's interpreter, against torch's operations."""

import pytest
import torch

from mue_check import get_rule
from mue_check.models.parameters import Parameter
from mue_check.rules import HyperParameters, Role
from mue_check.spec import Dense, ModelSpec, Scenario, TrainSpec
from mue_check.training import adamw as adamw_module
from mue_check.training.adamw import AdamW
from mue_check.training.adamw_kernel import BLOCK, blocks_of
from mue_check.training.state import RunState
from tests.interpreter import interpreted, needs_interpreter

__all__ = ["interpreted"]

TRAIN = TrainSpec(steps=6, batch=1, warmup=2, final_lr=0.2)
BASE = HyperParameters(lr=0.5, weight_decay=0.3, init_std=0.1, eps=1e-4, beta1=0.8, beta2=0.97)
LRS, DECAYS = torch.tensor([0.01, 0.2, 0.05]), torch.tensor([0.1, 0.0, 2.0])


@pytest.mark.parametrize("lengths", [[1], [BLOCK], [BLOCK + 1, 5], [3 * BLOCK, 1, 2 * BLOCK - 1]])
def test_every_number_is_in_one_block_of_its_segment(lengths: list[int]) -> None:
    first, last, segment = blocks_of(lengths, torch.device("cpu"))
    assert (last - first <= BLOCK).all()
    numbers = torch.cat([torch.arange(a, b) for a, b in zip(first, last, strict=True)])
    assert torch.equal(numbers, torch.arange(sum(lengths)))
    owners = segment.repeat_interleave(last - first)
    assert torch.equal(owners, torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths)))


def trained(sizes: list[int]) -> RunState:
    """Six steps of parameters of these sizes, in three runs with rates of their own."""
    roles = [Role.FFN_UP, Role.NORM_GAIN, Role.UNEMBEDDING]
    declared = [Parameter(name=str(i), role=roles[i], shape=(size,)) for i, size in enumerate(sizes)]
    state = RunState(declared, init_std=dict.fromkeys(Role, 0.1), runs=3, device=torch.device("cpu"))
    state.restart([0, 1, 2])
    narrow, wide = (ModelSpec(width=w, depth=1, feed_forward=Dense(hidden=w)) for w in (16, 48))
    prescription = get_rule("complete_mue").prescribe(Scenario.of(narrow, TRAIN), Scenario.of(wide, TRAIN))
    optimizer = AdamW(state, prescription, BASE, train=TRAIN)
    optimizer.restart(LRS, DECAYS)
    generator = torch.Generator().manual_seed(0)
    for step in range(TRAIN.steps):
        state.gradient.copy_(torch.randn(state.flat.shape, generator=generator) * 1e-3)
        optimizer.step(torch.tensor([step]))
    return state


@needs_interpreter
@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize("sizes", [[64, 8, 4], [BLOCK + 3, 7, 1]], ids=["aligned", "ragged"])
def test_the_kernel_makes_the_same_step(monkeypatch: pytest.MonkeyPatch, sizes: list[int]) -> None:
    expected = trained(sizes)
    monkeypatch.setattr(adamw_module, "uses_kernel", lambda name, x: True)
    found = trained(sizes)
    for ours, theirs in zip(found.buffers(), expected.buffers(), strict=True):
        assert (ours - theirs).abs().max() < 1e-6 * theirs.abs().max()
    assert found.first.abs().min() > 0
