"""Each way trains like the fused runs, dense and mixture; one that does not raises Disagreement."""

import os
from dataclasses import replace

import pytest
import torch

from mue_check.bench.cases import BenchCase
from mue_check.bench.setup import BenchSetup
from mue_check.bench.torch_ways import PlainLoop
from mue_check.bench.ways import COMPARED, Disagreement, Stacks, builders, require_agreement
from mue_check.training.compiling import VARIABLE

DENSE = BenchCase(model="d=32,L=1,H=48", batch=2, context=8, runs=3)
MIXTURE = replace(DENSE, model="d=32,8e2a,h=16")
CPU = torch.device("cpu")


def trained(setup: BenchSetup, name: str) -> torch.Tensor:
    way = builders(setup)[name]()
    way.advance(COMPARED)
    assert way.losses().shape == (COMPARED, way.runs)
    return way.losses()


@pytest.mark.parametrize(
    ("case", "name"),
    [(case, name) for case in (DENSE, MIXTURE) for name in ("alone", "plain", "vmap")] + [(MIXTURE, "plain batched")],
)
def test_every_way_gives_the_stacks_losses(case: BenchCase, name: str) -> None:
    setup = BenchSetup(case, CPU)
    expected = trained(setup, "eager")
    losses = trained(setup, name)
    torch.testing.assert_close(losses, expected[:, : losses.shape[1]], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("change", [{"lr": 2.0**-6.5}, {"beta1": 0.8}, {"weight_decay": 3.0}])
def test_another_optimizer_is_seen(change: dict[str, float]) -> None:
    setup = BenchSetup(MIXTURE, CPU)
    other = PlainLoop(replace(setup, base=replace(setup.base, **change)), 2, batched=False)
    other.advance(COMPARED)
    with pytest.raises(Disagreement, match=r"plain does not train like the fused runs: .* nats per token"):
        require_agreement("plain", other.losses(), trained(setup, "eager"), MIXTURE)


def test_runs_are_not_one_another() -> None:
    losses = trained(BenchSetup(DENSE, CPU), "eager")
    with pytest.raises(Disagreement):
        require_agreement("plain", losses.flip(1), losses, DENSE)
    with pytest.raises(Disagreement, match="not finite"):
        require_agreement("eager", losses / 0, losses / 0, DENSE)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_a_compiled_stack_trains_like_the_eager_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    setup = BenchSetup(DENSE, CPU)
    compiled = Stacks(setup, [range(DENSE.runs)], captured=False, backend="aot_eager")
    assert VARIABLE not in os.environ
    compiled.advance(COMPARED)
    assert compiled.stacks[0].losses != compiled.stacks[0].model.losses  # it was compiled
    torch.testing.assert_close(compiled.losses(), trained(setup, "eager"), rtol=1e-5, atol=1e-5)
