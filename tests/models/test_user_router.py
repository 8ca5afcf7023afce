"""A user's router in the reference model: what it trains like, stacked and run after run."""

import re
import warnings
from collections.abc import Iterator
from dataclasses import replace

import pandas as pd
import pytest
import torch
from torch import nn

from mue_check import SpecError, TrainSpec, get_rule, parse_scenario
from mue_check.data import Corpus
from mue_check.errors import ClaimError
from mue_check.judge.audit import judge_audit
from mue_check.measure.coordinates import measure_coordinates
from mue_check.measure.optimizer import measure_optimizer
from mue_check.models.user_router.loaded import add_router, loaded_router
from mue_check.records import Cell
from mue_check.routing.factory import Factory, candidate_of
from mue_check.routing.variants import USER_ROUTERS
from mue_check.rules import RULES, Role
from mue_check.training import Stack
from tests import misbehaving
from tests.models import user_routers as users
from tests.specimens import variant
from tests.training.stacks import BASE, make_stack

TRAIN = TrainSpec(steps=6, batch=4, context=16, warmup=2)
REFERENCE = parse_scenario(f"d=32,L=2,H=32,B={TRAIN.tokens_per_step},T={TRAIN.steps}")
LRS, SEEDS = [2.0**-7, 2.0**-5, 2.0**-6], [0, 0, 1]


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
    USER_ROUTERS.clear()


def added(factory: Factory) -> str:
    return add_router(candidate_of("router", factory, name=f"users:{factory.__name__}")).name


def stack(
    corpus: Corpus, router: str, lrs=LRS, seeds=SEEDS, rule: str = "complete_mue", text: str = "16e4a1s,h=8"
) -> Stack:
    return make_stack(corpus, f"{text},router={router}", TRAIN, lrs=lrs, seeds=seeds, rule=rule)


def call_run_after_run(name: str) -> None:
    """From now on no vmap."""
    profiles = loaded_router(name).profiles
    profiles.update({shape: replace(p, slow="the test asks for it") for shape, p in profiles.items()})


def same_until_rounding_shows(one: Stack, other: Stack) -> None:
    """The last bits of a weight decide between two experts sooner or later."""
    torch.testing.assert_close(one.log[:3], other.log[:3], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(one.log, other.log, rtol=5e-3, atol=0)


@pytest.mark.parametrize(
    ("factory", "name"),
    [(users.Sigmoid, "sigmoid_norm"), (users.Softmax, "softmax_norm"), (users.ExpertChoice, "expert_choice")],
)
def test_a_copy_of_a_built_in_router_trains_as_it_does(corpus: Corpus, factory: Factory, name: str) -> None:
    ours, theirs = stack(corpus, name), stack(corpus, added(factory))
    for s in (ours, theirs):
        s.advance(TRAIN.steps)
    torch.testing.assert_close(theirs.log, ours.log, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(theirs.evaluate(), ours.evaluate(), rtol=1e-6, atol=1e-6)
    tokens = ours.examples.observed(8)
    for mine, built_in in zip(theirs.routing(tokens), ours.routing(tokens), strict=True):
        torch.testing.assert_close(mine.load_RE, built_in.load_RE)
        torch.testing.assert_close(mine.weight_sum_R, built_in.weight_sum_R)


def test_a_dense_return_trains_as_its_slots_would(corpus: Corpus) -> None:
    slots, dense = stack(corpus, added(users.Sigmoid)), stack(corpus, added(users.Megatron))
    for s in (slots, dense):
        s.advance(TRAIN.steps)
    same_until_rounding_shows(dense, slots)


@pytest.mark.parametrize("factory", users.ROUTERS, ids=lambda f: f.__name__)
def test_stacked_one_by_one_and_alone_are_the_same(corpus: Corpus, factory: Factory) -> None:
    name = added(factory)
    together = stack(corpus, name)
    assert together.routers is not None
    assert together.routers.user is not None
    assert together.routers.user.profile.slow == ""
    together.advance(TRAIN.steps)
    assert torch.isfinite(together.log).all()
    assert (together.log[0] - together.log[-1]).max() > 0.01
    alone = stack(corpus, name, LRS[2:], SEEDS[2:])
    alone.advance(TRAIN.steps)
    torch.testing.assert_close(alone.log[:, 0], together.log[:, 2], rtol=1e-5, atol=1e-5)
    if factory is users.Sigmoid:  # what kernels a user's module calls at R = 1 is its own affair
        assert torch.equal(alone.log[:, 0], together.log[:, 2])
        assert alone.evaluate()[0] == together.evaluate()[2]
    call_run_after_run(name)
    looped = stack(corpus, name)
    looped.advance(TRAIN.steps)
    same_until_rounding_shows(looped, together)
    assert looped.routers is not None
    for key, value in together.routers.buffers.items():
        torch.testing.assert_close(looped.routers.buffers[key], value)


def test_what_vmap_refuses_runs_one_by_one_with_a_notice(corpus: Corpus) -> None:
    name = added(users.Branching)
    looped, copied = stack(corpus, name), stack(corpus, added(users.Sigmoid))
    for s in (looped, copied):
        s.advance(TRAIN.steps)
    torch.testing.assert_close(looped.log, copied.log, rtol=1e-5, atol=1e-5)
    (notice,) = loaded_router(name).new_notices()
    assert notice.startswith(
        "router users:Branching is called run after run, since vmap refuses it: RuntimeError: vmap:"
    )
    assert "data-dependent control flow" in notice
    assert re.search(r"\(user_routers\.py:\d+: if x\.abs\(\)\.max\(\) > 1e9:\)$", notice)
    assert loaded_router(name).new_notices() == ()


def test_the_rule_governs_matrices_and_the_constructor_sets_constants(corpus: Corpus) -> None:
    s = stack(corpus, added(users.Mlp))
    role = {p.name: p.role for p in s.state.declared}
    assert {n for n in role if n.startswith("block0.router")} == {
        f"block0.router.{n}"
        for n in ("norm.weight", "norm.bias", "up.weight", "up.bias", "out.weight", "out.bias", "temperature", "start")
    }
    for name, p in s.state.parameters.items():
        if role[name] is Role.ROUTER:
            assert p.detach().std().item() == pytest.approx(0.1, rel=0.1)
    at = {n.removeprefix("block1.router."): p.detach() for n, p in s.state.parameters.items() if "block1.router" in n}
    assert (at["norm.weight"] == 1).all()
    assert (at["up.bias"] == 0).all()  # drawn by the constructor: biases start at 0
    assert (at["temperature"] == 2).all()
    assert torch.equal(at["start"][2], torch.arange(16) / 16)
    assert role["block0.router.start"] is Role.BIAS
    assert role["block0.router.temperature"] is Role.BIAS
    before = {n: p.clone() for n, p in at.items()}
    s.advance(2)
    assert all((p != before[n]).any() for n, p in at.items())


def test_every_value_arrives_at_every_parameter(corpus: Corpus) -> None:
    target = parse_scenario(f"d=48,16e4a,h=8,router={added(users.Mlp)}", default=REFERENCE)
    prescription = get_rule("complete_mue").prescribe(REFERENCE, target)
    cell = Cell(
        measurement="optimizer",
        model=target.model,
        prescription=prescription,
        base=BASE,
        train=replace(TRAIN, warmup=0, final_lr=1.0),
        corpus="toy",
        corpus_fingerprint=corpus.fingerprint,
        values=(1.0,),
        seeds=(0,),
        steps=(0, 1),
    )
    audit = judge_audit(pd.DataFrame(measure_optimizer(cell, corpus)), prescription.values(BASE))
    assert not audit.offences
    shown = set(measure_coordinates(cell, corpus)["coordinate"])
    assert {"weight.router", "weight.bias", "block1.ffn_branch"} <= shown
    assert "block0.router_logits" not in shown


def test_every_rule_has_what_a_users_router_needs(corpus: Corpus) -> None:
    name = added(users.Mlp)
    for rule in RULES:
        s = stack(corpus, name, rule=rule)
        s.advance(1)
        assert torch.isfinite(s.log[0]).all(), rule


def test_buffers_are_each_runs_own_and_a_look_moves_nothing(corpus: Corpus) -> None:
    s = stack(corpus, added(users.Counting))
    assert len(s.buffers()) == 4 + 4 + 2  # moments and such, two buffers of two layers, counter and log
    s.advance(3)
    s.evaluate()
    assert s.routers is not None
    assert s.routers.buffers["block1.router.steps"].tolist() == [3, 3, 3]
    bias = s.routers.buffers["block0.router.bias"]
    assert 0 < bias.abs().max() <= 0.0301
    assert not torch.equal(bias[0], bias[2])
    hashed = stack(corpus, added(users.Hashed)).routers
    assert hashed is not None
    assert hashed.moving() == []
    drawn = hashed.buffers["block0.router.projection"]
    assert torch.equal(drawn[0], drawn[1])  # one seed
    assert not torch.equal(drawn[0], drawn[2])


def test_noise_stays_off_and_that_is_said(corpus: Corpus) -> None:
    name = added(users.Noisy)
    noisy, plain = stack(corpus, name), stack(corpus, added(users.Sigmoid))
    for s in (noisy, plain):
        s.advance(2)
    assert torch.equal(noisy.log[:2], plain.log[:2])
    assert "draws random numbers in training mode: it stays in eval mode" in "".join(loaded_router(name).new_notices())


def test_an_auxiliary_loss_is_added_where_it_is_declared(corpus: Corpus) -> None:
    names = [added(f) for f in (users.Auxiliary, users.DeclaredAuxiliary, users.Sigmoid, users.HiddenAuxiliary)]
    left_out, declared, _, hidden = names
    gradients = []
    logs = []
    for name in names:
        s = stack(corpus, name)
        s.advance(1)
        gradients.append(s.state.gradient.clone())
        logs.append(s.log[0])
    assert all(torch.equal(log, logs[2]) for log in logs)  # the log holds the cross-entropy alone
    assert torch.equal(gradients[0], gradients[2])
    assert (gradients[1] - gradients[2]).abs().max() > 1e-4
    torch.testing.assert_close(gradients[3], gradients[1], rtol=1e-3, atol=1e-5)
    assert "vmap refuses it" in "".join(loaded_router(hidden).new_notices())
    assert "has a loss (0) that is left out" in "".join(loaded_router(left_out).new_notices())
    assert loaded_router(declared).new_notices() == ()


def test_dropped_tokens_are_no_load(corpus: Corpus) -> None:
    s = stack(corpus, added(users.Capacity))
    tokens = s.examples.observed(8)
    for layer in s.routing(tokens):
        assert (layer.weight_sum_R < 1).all()
    slots = stack(corpus, added(users.DroppedSlots))
    torch.testing.assert_close(slots.routing(tokens)[0].load_RE, s.routing(tokens)[0].load_RE)


def test_logits_are_shown_where_there_are_any(corpus: Corpus) -> None:
    shown: dict[str, list[torch.Tensor]] = {}
    for factory in (users.Sigmoid, users.Softmax, users.Mlp):
        seen = shown[factory.__name__] = []

        def tap(name: str, value: torch.Tensor, seen: list[torch.Tensor] = seen) -> None:
            if name == "block0.router_logits":
                seen.append(value)

        s = stack(corpus, added(factory))
        s.probe(tap, s.examples.observed(4))
    assert not shown["Mlp"]
    torch.testing.assert_close(shown["Sigmoid"], shown["Softmax"])


def test_transformers_own_router(corpus: Corpus) -> None:
    mixtral = pytest.importorskip(
        "transformers.models.mixtral.modeling_mixtral", reason="transformers is not installed"
    )
    from transformers import MixtralConfig

    def factory(d_model: int, n_experts: int, top_k: int) -> nn.Module:
        config = MixtralConfig(hidden_size=d_model, num_local_experts=n_experts, num_experts_per_tok=top_k)
        return mixtral.MixtralTopKRouter(config)

    ours, theirs = stack(corpus, "softmax_norm"), stack(corpus, added(factory))
    for s in (ours, theirs):
        s.advance(TRAIN.steps)
    same_until_rounding_shows(theirs, ours)


def _choice_by_expert(m, x):
    return m.scores(x).T.topk(max(1, len(x) * m.top_k // m.n), dim=-1)


def _sets_dtype(m, x):
    torch.set_default_dtype(torch.float64)
    return users.Sigmoid.forward(m, x)


def _raises(m, x):
    raise KeyError("no key")


Bad = variant(users.Sigmoid, "Bad", forward=lambda m, x: m.scores(x))
AlwaysNoisy = variant(users.Sigmoid, "AlwaysNoisy", logits=lambda m, x: m.gate(x + torch.randn_like(x)))
UnclaimedChoice = variant(users.Sigmoid, "UnclaimedChoice", forward=_choice_by_expert)
Raising = variant(users.Sigmoid, "Raising", forward=_raises)
SetsDtype = variant(users.Sigmoid, "SetsDtype", forward=_sets_dtype)
Syncing = variant(users.Sigmoid, "Syncing", logits=lambda m, x: m.gate(x / max(1.0, x.abs().max().item())))


class Unset(users.Sigmoid):
    def __init__(self, d_model: int, n_experts: int, top_k: int) -> None:
        super().__init__(d_model, n_experts, top_k)
        self.register_buffer("offset", torch.empty(n_experts))


def needs_64(d_model: int, n_experts: int, top_k: int) -> nn.Module:
    if d_model % 64:
        raise ValueError(f"d_model={d_model} is no multiple of 64")
    return users.Sigmoid(d_model, n_experts, top_k)


def no_module(d_model: int, n_experts: int, top_k: int) -> object:
    return lambda x: x


@pytest.mark.parametrize(
    ("factory", "says"),
    [
        (
            needs_64,
            r"at d_model=32, n_experts=16, top_k=4: the factory raises ValueError: d_model=32 is no multiple of 64",
        ),
        (no_module, "the factory gives function, not a torch.nn.Module"),
        (
            lambda d: users.Sigmoid(d, 4, 2),
            r"TypeError: the factory takes \(d\); it is called with \(d_model, n_experts, top_k\)",
        ),
        (Bad, "cannot tell weights and choice in"),
        (Raising, r"calling it raises KeyError: 'no key' \(test_user_router.py:\d+: raise KeyError"),
        (misbehaving.RaisesBaseException, r"calling it raises GivesUp: no \(misbehaving.py:\d+"),
        (misbehaving.Exits, r"calling it raises SystemExit: 0 \(misbehaving.py:\d+"),
        (SetsDtype, "calling it changes the default dtype, and with that what other models do"),
        (AlwaysNoisy, "draws random numbers in eval mode too"),
        (Unset, "its constructor leaves offset without a value"),
        (UnclaimedChoice, "its claim must say kind = 'expert_choice'"),
    ],
)
def test_what_cannot_serve_is_said_in_one_line(corpus: Corpus, factory: Factory, says: str) -> None:
    with pytest.raises(ClaimError, match=says) as caught:
        stack(corpus, added(factory))
    assert len(str(caught.value).splitlines()) == 1


def test_a_router_that_is_not_loaded_can_be_named_and_not_trained(corpus: Corpus) -> None:
    with pytest.raises(
        SpecError, match="router 'gone-0123abcd' is a user's and not loaded here: name it with --router"
    ):
        stack(corpus, "gone-0123abcd")


def test_a_users_warning_is_no_error(corpus: Corpus) -> None:
    class Warning_(users.Sigmoid):
        def forward(self, x):
            warnings.warn("deprecated", DeprecationWarning, stacklevel=1)
            return super().forward(x)

    stack(corpus, added(Warning_)).advance(1)


def test_what_cannot_be_captured_is_found_without_a_gpu(corpus: Corpus) -> None:
    for factory in users.ROUTERS:
        router = stack(corpus, added(factory)).routers.user
        assert router is not None
        assert router.capture_trouble == "", factory
    name = added(Syncing)
    router = stack(corpus, name).routers.user
    assert router is not None
    assert "DataDependentOutputException" in router.capture_trouble
    assert ["cannot be captured" in notice for notice in loaded_router(name).new_notices()] == [False, True]


def test_a_capture_that_breaks_leaves_the_step_and_the_state(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    name = added(users.Sigmoid)
    s, quiet = stack(corpus, name), stack(corpus, name)

    def broken(step, state, device):
        step()
        raise RuntimeError("operation not permitted when stream is capturing\nat length")

    monkeypatch.setattr("mue_check.training.capture.capture", broken)
    s.advance(2)
    monkeypatch.undo()
    quiet.advance(2)
    assert torch.equal(s.log[:2], quiet.log[:2])
    (notice,) = loaded_router(name).new_notices()
    assert "users:Sigmoid cannot be captured, so that it trains step by step: RuntimeError: operation not" in notice
