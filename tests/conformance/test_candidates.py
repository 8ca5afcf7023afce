"""Right candidates against plain loops, and misbehaving ones as bad as they say."""

import signal
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from mue_check.mutants.routing.auxiliary import mixtral_loss, switch_loss
from mue_check.mutants.routing.examine import BLOCKS, ROUTERS
from mue_check.mutants.routing.misbehaving import FATAL, MISBEHAVING, GivesUp
from mue_check.routing.factory import Candidate
from tests.conformance.plain_loops import (
    SIZES,
    Size,
    block_reference,
    combine_of,
    make,
    named,
    router_reference,
    tokens,
)


@pytest.mark.parametrize("right", ROUTERS, ids=lambda right: right.name)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_right_routers_are_what_they_claim(right: Candidate, size: Size) -> None:
    for seed in range(4):
        router, x = make(right, size, seed), tokens(size, seed)
        combine = combine_of(router(x), right.claim, len(x), router.n_experts)
        torch.testing.assert_close(combine, router_reference(router, right.claim, x), atol=1e-10, rtol=0)


@pytest.mark.parametrize("right", BLOCKS, ids=lambda right: right.name)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_right_blocks_recompose(right: Candidate, size: Size) -> None:
    block, x = make(right, size), tokens(size)
    with torch.no_grad():
        batched = x.view(1, len(x), -1) if len(x) % 2 else x.view(2, len(x) // 2, -1)
        reference = block_reference(block, right.claim, x)
        torch.testing.assert_close(block(batched), reference.view_as(batched), atol=1e-10, rtol=0)


@pytest.mark.parametrize("right", ROUTERS, ids=lambda right: right.name)
def test_right_routers_in_bfloat16_and_at_extremes(right: Candidate) -> None:
    size = SIZES[-1]
    for seed in range(3):
        router, x = make(right, size, seed).to(torch.bfloat16), tokens(size, seed).to(torch.bfloat16)
        combine = combine_of(router(x), right.claim, len(x), router.n_experts)
        if right.claim.fp32_gate:
            reference = router_reference(router.double(), right.claim, x.double())
            torch.testing.assert_close(combine.double(), reference, atol=1e-5, rtol=0)
        for scale in (1e4, 0.0):
            far = (tokens(size, seed) * scale).float().requires_grad_()
            extreme = combine_of(make(right, size, seed).float()(far), right.claim, len(x), router.n_experts)
            extreme.sum().backward()
            assert extreme.isfinite().all()
            assert far.grad is not None
            assert far.grad.isfinite().all()


@pytest.mark.parametrize("right", ROUTERS, ids=lambda right: right.name)
def test_right_routers_under_vmap_and_with_fake_tensors(right: Candidate) -> None:
    size = SIZES[0]
    routers, x = [make(right, size, seed) for seed in range(3)], tokens(size)
    params, buffers = torch.func.stack_module_state(routers)

    def one(p: Any, b: Any) -> Any:
        return tuple(torch.func.functional_call(routers[0], (p, b), (x,)))

    stacked = torch.func.vmap(one)(params, buffers)
    for i, router in enumerate(routers):
        for part, whole in zip(router(x), stacked, strict=True):
            torch.testing.assert_close(part, whole[i])
    with FakeTensorMode():
        fake = right.factory(size.d, routers[0].n_experts, routers[0].top_k)
        shapes = [part.shape for part in fake(torch.empty(size.tokens, size.d))]
    assert shapes == [part.shape for part in routers[0](x)]


@pytest.mark.parametrize("right", BLOCKS, ids=lambda right: right.name)
def test_right_blocks_in_bfloat16_train_every_parameter(right: Candidate) -> None:
    size = Size(16, 8, 8, 2, 64)
    block = make(right, size).to(torch.bfloat16)
    block(tokens(size).to(torch.bfloat16).view(2, 32, -1)).square().sum().backward()
    for name, p in block.named_parameters():
        assert p.grad is not None, name
        assert p.grad.isfinite().all(), name


def test_right_designs_refuse_what_they_cannot_take() -> None:
    for name, experts, active in (("deepseek_v3", 8, 5), ("deepseek_v3", 6, 2), ("pangu", 10, 4), ("switch", 8, 2)):
        with pytest.raises(ValueError, match=r"must|hold|design"):
            named(name).factory(16, experts, active)


def test_auxiliary_floor_is_one_per_assignment() -> None:
    even = torch.eye(8).repeat(2, 1) * 3 + torch.eye(8).roll(1, 0).repeat(2, 1) * 2
    crowded = torch.tensor([9.0, 8.0, *[0.0] * 6]).expand(16, -1)
    for loss, floor in ((switch_loss, 1), (mixtral_loss, 2)):
        assert float(loss((even, even), 8, 2)) == pytest.approx(floor, rel=1e-5)
        assert float(loss((even, crowded), 8, 2)) > 1.5 * floor


class _TimeIsUp(Exception):
    pass


@pytest.fixture
def alarm() -> Iterator[None]:
    def ring(*_: object) -> None:
        raise _TimeIsUp

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("factory", MISBEHAVING, ids=lambda factory: factory.__name__)
def test_misbehaving_ones_misbehave(
    factory: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], alarm: None
) -> None:
    monkeypatch.setattr("os._exit", lambda code: (_ for _ in ()).throw(SystemExit(code)))
    x = torch.randn(5, 8)
    before, state, outcome = x.clone(), torch.get_rng_state(), "value"
    returned: Any = None
    try:
        router = factory(8, 6, 2)
        state = torch.get_rng_state()
        returned = router(x)
    except _TimeIsUp:
        outcome = "hang"
    except BaseException as error:
        outcome = "error" if isinstance(error, Exception) else type(error).__name__
    assert (outcome in ("value", "error")) == (factory not in FATAL)
    unhealthy = (
        outcome != "value"
        or not isinstance(returned, tuple)
        or returned[0].shape != returned[1].shape
        or returned[0].dtype != x.dtype
        or returned[1].dtype != torch.int64
        or returned[0].is_meta
        or not returned[0].isfinite().all()
        or not torch.equal(x, before)
        or not torch.equal(state, torch.get_rng_state())
        or capsys.readouterr().out
    )
    assert unhealthy
    assert outcome in ("value", "error", "hang", "SystemExit", GivesUp.__name__)
