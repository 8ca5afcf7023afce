"""The kernel of a dense layer with the norm after it, on a CPU by Triton's interpreter, against float64."""

from types import SimpleNamespace

import pytest
import torch

from mue_check.models import fused_dense, pointwise
from mue_check.models.cards import CARDS, OLDER, card_of
from tests.interpreter import interpreted, needs_interpreter
from tests.models.test_fused_pointwise import compare, leaves, run

__all__ = ["interpreted"]
pytestmark = [needs_interpreter, pytest.mark.usefixtures("interpreted")]
SHAPES = {  # R, M, D, F
    "several programs": (2, 150, 32, 70),
    "odd": (3, 15, 20, 12),
    "one token": (1, 1, 16, 5),
    "as wide as it can be": (1, 3, 128, 40),
}


def tensors_of(shape: tuple[int, int, int, int], dtype: torch.dtype) -> list[torch.Tensor]:
    runs, tokens, width, hidden = shape
    stream, wide = (runs, tokens, width), (runs, width, hidden)
    given = leaves(dtype, stream, stream, wide, wide, (runs, hidden, width), (runs, width))
    return [t / t.shape[1] ** 0.5 if 2 <= i <= 4 else t for i, t in enumerate(given)]


def by_kernel(x, y, up, gate, down, gain):
    return fused_dense.dense_add_norm(x, y, (up, gate, down), gain, 0.3, pointwise.EPS)


def by_torch(x, y, up, gate, down, gain):
    return pointwise.add_norm(x, pointwise.dense_swiglu(y, up, gate, down, 0.3), gain)


@pytest.mark.parametrize("used", [1, 2], ids=["norm used", "both used"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_layer_and_norm(shape: tuple[int, int, int, int], dtype: torch.dtype, used: int) -> None:
    tensors = tensors_of(shape, dtype)
    compare(run(by_kernel, tensors, used), run(by_torch, [t.double() for t in tensors], used), dtype)


def test_a_stream_whose_norm_is_not_used() -> None:
    *tensors, gain = tensors_of(SHAPES["odd"], torch.float32)
    found = run(lambda *given: by_kernel(*given, gain)[0], tensors, 1)
    expected = run(lambda *given: by_torch(*given, gain.double())[0], [t.double() for t in tensors], 1)
    compare(found, expected, torch.float32)


def test_a_nan_run_does_not_touch_its_neighbours() -> None:
    tensors = tensors_of(SHAPES["odd"], torch.float32)
    clean, hurt = (
        run(by_kernel, given, 2) for given in (tensors, [t.index_fill(0, torch.tensor(1), torch.nan) for t in tensors])
    )
    for ours, theirs in zip(hurt, clean, strict=True):
        assert torch.equal(ours[[0, 2]], theirs[[0, 2]])
        assert ours[1].isnan().all()


@pytest.mark.parametrize(
    ("width", "hidden", "precision", "card", "used"),
    [
        (128, 256, "high", CARDS["H100"], True),
        (128, 257, "high", CARDS["H100"], False),
        (130, 128, "high", CARDS["H100"], False),
        (64, 64, "highest", CARDS["H100"], False),
        (64, 64, "high", OLDER, False),
    ],
)
def test_where_it_is_used(monkeypatch: pytest.MonkeyPatch, width, hidden, precision, card, used) -> None:
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: precision)
    monkeypatch.setattr(fused_dense, "card_of", lambda device: card)
    monkeypatch.setattr(fused_dense, "uses_kernel", lambda name, x, fastest: name == "dense" and fastest)
    assert fused_dense.is_used(SimpleNamespace(shape=(1, 5, width), dtype=torch.float32, device="cuda"), hidden) is used


@pytest.mark.parametrize(
    ("name", "capability", "card"),
    [
        ("NVIDIA H100 80GB HBM3", (9, 0), CARDS["H100"]),
        ("NVIDIA H200", (9, 0), CARDS["H100"]),
        ("NVIDIA A100-SXM4-80GB", (8, 0), OLDER),
        ("NVIDIA GeForce RTX 3090", (8, 6), OLDER),
    ],
)
def test_older_cards_have_no_room_for_it(monkeypatch: pytest.MonkeyPatch, name, capability, card) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert card_of.__wrapped__(torch.device("cuda", 0)) is card
