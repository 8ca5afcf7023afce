"""Each way trains like the fused runs, dense and mixture; one that does not stops the bench."""

from dataclasses import replace

import pytest
import torch

from mue_check.bench.cases import Case
from mue_check.bench.plain_loop import PlainLoop
from mue_check.bench.setup import Setup
from mue_check.bench.ways import COMPARED, Disagreement, builders, require_agreement

DENSE = Case(model="d=32,H=48", batch=2, context=8, runs=3)
MIXTURE = replace(DENSE, model="d=32,8e2a,h=16")
CPU = torch.device("cpu")


def trained(setup: Setup, name: str) -> torch.Tensor:
    way = builders(setup)[name]()
    way.advance(COMPARED)
    assert way.losses().shape == (COMPARED, way.runs)
    return way.losses()


@pytest.mark.parametrize(
    ("case", "name"),
    [(case, name) for case in (DENSE, MIXTURE) for name in ("alone", "plain", "vmap")] + [(MIXTURE, "plain batched")],
)
def test_every_way_gives_the_stacks_losses(case: Case, name: str) -> None:
    setup = Setup(case, CPU)
    expected = trained(setup, "eager")
    losses = trained(setup, name)
    torch.testing.assert_close(losses, expected[:, : losses.shape[1]], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("change", [{"lr": 2.0**-6.5}, {"beta1": 0.8}, {"weight_decay": 3.0}])
def test_another_optimizer_is_seen(change: dict[str, float]) -> None:
    setup = Setup(MIXTURE, CPU)
    other = PlainLoop(replace(setup, base=replace(setup.base, **change)), 2, batched=False)
    other.advance(COMPARED)
    with pytest.raises(Disagreement, match=r"plain does not train like the fused runs: .* nats per token"):
        require_agreement("plain", other.losses(), trained(setup, "eager"), MIXTURE)


def test_runs_are_not_one_another() -> None:
    losses = trained(Setup(DENSE, CPU), "eager")
    with pytest.raises(Disagreement):
        require_agreement("plain", losses.flip(1), losses, DENSE)
