import pytest
import torch

from mue_check import Dense, HyperParameters, ModelSpec, Role, Scenario, TrainSpec, get_rule
from mue_check.models.language_model import LanguageModel
from mue_check.training.adamw import AdamW, schedule_table
from mue_check.training.state import RunState

REFERENCE = ModelSpec(width=16, depth=1, feed_forward=Dense(hidden=16))
WIDE = ModelSpec(width=32, depth=2, feed_forward=Dense(hidden=48))
BASE = HyperParameters(lr=0.5, weight_decay=0.3, init_std=0.1, eps=1e-4, beta1=0.8, beta2=0.97)
TRAIN = TrainSpec(steps=20, batch=1, warmup=3, final_lr=0.2)


def test_agrees_with_torch_role_by_role() -> None:
    """Same gradients into torch.optim.AdamW, with one parameter group per tensor and run."""
    scenario = Scenario.of(REFERENCE, TRAIN)
    prescription = get_rule("complete_mue").prescribe(scenario, Scenario.of(WIDE, TRAIN))
    model = LanguageModel(WIDE, prescription, vocab=7, context=4)
    rows = {Role(row.role): row for row in prescription.values(BASE)}
    lrs = [0.01, 0.2]
    state = RunState(
        model.parameters,
        init_std={role: row.init_std for role, row in rows.items()},
        runs=2,
        device=torch.device("cpu"),
    )
    state.restart([0, 1])
    groups, copies = [], []
    for declared in state.declared:
        for run, lr in enumerate(lrs):
            copy = state.parameters[declared.name][run].detach().clone().double().requires_grad_()
            row = rows[declared.role]
            groups.append(
                {
                    "params": [copy],
                    "lr": lr * row.lr / BASE.lr,
                    "weight_decay": row.weight_decay,
                    "eps": row.eps,
                    "betas": (row.beta1, row.beta2),
                }
            )
            copies.append((declared.name, run, copy))
    reference = torch.optim.AdamW(groups)
    peaks = [group["lr"] for group in reference.param_groups]
    ours = AdamW(state, prescription, BASE, train=TRAIN)
    ours.restart(torch.tensor(lrs), torch.full((2,), BASE.weight_decay))
    multipliers = schedule_table(TRAIN, BASE.beta1, BASE.beta2)[:, 0].tolist()
    counter = torch.zeros(1, dtype=torch.int64)
    generator = torch.Generator().manual_seed(0)
    for multiplier in multipliers:
        state.gradient.copy_(torch.randn(state.gradient.shape, generator=generator) * 1e-3)
        for name, run, copy in copies:
            gradient = state.parameters[name].grad
            assert gradient is not None
            copy.grad = gradient[run].double()
        for group, peak in zip(reference.param_groups, peaks, strict=True):
            group["lr"] = peak * multiplier
        reference.step()
        ours.step(counter)
        counter.add_(1)
    for name, run, copy in copies:
        torch.testing.assert_close(state.parameters[name][run].double(), copy, rtol=5e-6, atol=5e-7)


def test_schedule_rises_then_falls() -> None:
    table = schedule_table(TRAIN, 0.9, 0.95)
    rate = table[:, 0]
    assert rate[:3].tolist() == pytest.approx([0.25, 0.5, 0.75])
    assert rate[3] == 1
    assert (rate[3:].diff() < 0).all()
    assert rate[-1] > TRAIN.final_lr
    assert table[0, 1].item() == pytest.approx(10)
    assert table[0, 2].item() == pytest.approx(0.05**-0.5)


def test_a_constant_rate() -> None:
    rate = schedule_table(TrainSpec(steps=5, batch=1, warmup=0, final_lr=1.0), 0.9, 0.95)[:, 0]
    assert rate.tolist() == [1.0] * 5


def test_gradients_live_in_the_flat_buffer() -> None:
    prescription = get_rule("complete_mue").prescribe(Scenario(model=REFERENCE), Scenario(model=REFERENCE))
    model = LanguageModel(REFERENCE, prescription, vocab=7, context=4)
    state = RunState(model.parameters, init_std=dict.fromkeys(Role, 0.1), runs=3, device=torch.device("cpu"))
    state.restart([0, 1, 2])
    model.losses(state.parameters, torch.zeros(3, 2, 5, dtype=torch.int64)).sum().backward()
    total = sum(float(p.grad.double().square().sum()) for p in state.parameters.values() if p.grad is not None)
    assert float(state.gradient.double().square().sum()) == pytest.approx(total)
    assert total > 0
    for p in state.parameters.values():
        assert p.grad is not None
        assert p.grad.untyped_storage().data_ptr() == state.gradient.untyped_storage().data_ptr()
