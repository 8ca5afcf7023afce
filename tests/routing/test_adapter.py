"""Every return shape of the field is read as the same routing, wherever its parts lie; what is ambiguous is said."""

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, make_dataclass
from itertools import permutations
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from mue_check.errors import ClaimError
from mue_check.routing.adapter import Size, learn_layout
from mue_check.routing.canonical import Routing
from mue_check.routing.claim import RoutingSpec

LEARNT = Size(tokens=50, experts=8, activated=2)
OTHERS = (
    Size(tokens=30, experts=6, activated=6),
    Size(tokens=34, experts=8, activated=1),
    Size(tokens=1, experts=8, activated=2),
    Size(tokens=1, experts=8, activated=1),
    Size(tokens=8, experts=8, activated=3),
    Size(tokens=2, experts=16, activated=4),
    Size(tokens=4, experts=4, activated=4),
)
SIZES = (LEARNT, *OTHERS)
NOTHING = RoutingSpec()


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """One token-choice routing in every part that a router could return of it."""

    logits: Tensor
    scores: Tensor
    weights: Tensor
    indices: Tensor
    combine: Tensor
    mask: Tensor

    def slots(self) -> tuple[Tensor, Tensor]:
        """Combine and dispatch [T, E, C]."""
        place = (self.mask.cumsum(0) - 1).unsqueeze(-1) == torch.arange(len(self.mask))
        dispatch = place & self.mask.unsqueeze(-1)
        return self.combine.unsqueeze(-1) * dispatch, dispatch


def drawn(size: Size) -> Drawn:
    logits = torch.randn(size.tokens, size.experts, generator=torch.Generator().manual_seed(3)) * 2
    best, indices = logits.topk(size.activated, dim=-1)
    weights = best.sigmoid()
    empty = torch.zeros_like(logits)
    return Drawn(
        logits=logits,
        scores=logits.softmax(-1),
        weights=weights,
        indices=indices,
        combine=empty.scatter(-1, indices, weights),
        mask=empty.bool().scatter(-1, indices, True),
    )


FIELD: dict[str, tuple[Callable[[Drawn], Any], set[str]]] = {
    "transformers": (lambda r: (r.logits, r.weights, r.indices), {"logits", "weights", "indices"}),
    "transformers, weights in bfloat16": (
        lambda r: (r.logits, r.weights.bfloat16(), r.indices),
        {"logits", "weights", "indices"},
    ),
    "deepseek": (lambda r: (r.logits, 2.5 * r.weights, r.indices), {"logits", "weights", "indices"}),
    "llama4": (lambda r: (r.combine, r.logits), {"combine", "logits"}),
    "torchtitan": (lambda r: (r.weights, r.indices, r.scores), {"weights", "indices", "scores"}),
    "megatron": (lambda r: (r.combine, r.mask), {"combine", "mask"}),
    "megatron, map of integers": (lambda r: (r.combine, r.mask.to(torch.uint8)), {"combine", "mask"}),
    "deepspeed": (lambda r: (torch.tensor(1.5), *r.slots(), r.mask.sum(0)), {"combine", "mask"}),
    "pangu": (lambda r: (r.weights, r.indices.int()), {"weights", "indices"}),
    "spread weights and indices": (lambda r: (r.combine, r.indices), {"combine"}),
    "weights alone": (lambda r: r.combine, {"combine"}),
}


def check(routing: Routing, size: Size, name: str = "") -> None:
    r = drawn(size)
    factor = 2.5 if name == "deepseek" else 1.0
    torch.testing.assert_close(
        routing.combine.float(), factor * r.combine, rtol=1e-2 if "bfloat16" in name else 1e-6, atol=0
    )
    assert torch.equal(routing.mask, r.mask)
    if routing.logits is not None:
        assert torch.equal(routing.logits, r.logits)
    if routing.scores is not None:
        assert torch.equal(routing.scores, r.scores)


@pytest.mark.parametrize("name", FIELD)
def test_returns_of_the_field_are_told_by_type_and_shape_in_any_order(name: str) -> None:
    make, parts = FIELD[name]
    count = len(make(drawn(LEARNT))) if isinstance(make(drawn(LEARNT)), tuple) else 1
    for order in permutations(range(count)):

        def turned(size: Size, order: tuple[int, ...] = order) -> Any:
            returned = make(drawn(size))
            return tuple(returned[i] for i in order) if isinstance(returned, tuple) else returned

        layout = learn_layout(turned(LEARNT), LEARNT, NOTHING)
        assert set(layout.parts) == parts
        assert not layout.by_expert
        for size in SIZES:
            check(layout.read(turned(size), size), size, name)


class _Named(NamedTuple):
    probabilities: Tensor
    weights: Tensor
    chosen: Tensor


_Plain = make_dataclass("_Plain", ["probabilities", "weights", "chosen"])


def _model_output(*parts: Tensor) -> Any:
    from transformers.utils import ModelOutput

    return ModelOutput(zip(("probabilities", "weights", "chosen"), parts, strict=True))


CONTAINERS: dict[str, Callable[..., Any]] = {
    "tuple": lambda *parts: parts,
    "list": lambda *parts: list(parts),
    "dict": lambda *parts: dict(zip("abc", parts, strict=True)),
    "NamedTuple": _Named,
    "dataclass": _Plain,
    "object": lambda *parts: SimpleNamespace(parts=_Plain(*parts), name="top-2"),
    "nested": lambda logits, *parts: {"logits": logits, "routing": (None, parts, "top-2")},
    "ModelOutput": _model_output,
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_parts_are_found_in_any_container(name: str) -> None:
    if name == "ModelOutput" and importlib.util.find_spec("transformers") is None:
        pytest.skip("needs transformers: pip install 'mue_check[hf]'")

    def made(size: Size) -> Any:
        r = drawn(size)
        return CONTAINERS[name](r.logits, r.weights, r.indices)

    layout = learn_layout(made(LEARNT), LEARNT, NOTHING)
    for size in SIZES:
        check(layout.read(made(size), size), size)


@pytest.mark.parametrize("name", FIELD)
@pytest.mark.parametrize("rows", [1, 2])
def test_leading_batch_axes_become_one_of_tokens(name: str, rows: int) -> None:
    make, _ = FIELD[name]

    def batched(size: Size, keep: int | None = None) -> tuple[Any, Size]:
        lead = (rows, size.tokens // rows) if size.tokens % rows == 0 else (1, size.tokens)
        returned = make(drawn(size))
        parts = returned if isinstance(returned, tuple) else (returned,)
        out = [
            p.unflatten(0, lead) if p.dim() > 1 and p.shape[0] == size.tokens and i != keep else p
            for i, p in enumerate(parts)
        ]
        return tuple(out), Size(tokens=size.tokens, experts=size.experts, activated=size.activated, lead=lead)

    for keep in (None, 0):  # one part may come flat already
        layout = learn_layout(*batched(LEARNT, keep), NOTHING)
        for size in SIZES:
            check(layout.read(*batched(size, keep)), size, name)


@pytest.mark.parametrize("swapped", [False, True])
def test_expert_choice_is_read_by_expert(swapped: bool) -> None:
    def made(size: Size) -> tuple[Any, Tensor]:
        scores = drawn(size).scores.T
        weights, tokens = scores.topk(-(-size.tokens * size.activated // size.experts), dim=-1)
        combine = torch.zeros_like(scores).scatter(-1, tokens, weights).T
        return ((weights, tokens) if swapped else (tokens, weights)), combine

    layout = learn_layout(made(LEARNT)[0], LEARNT, NOTHING)
    assert layout.by_expert
    for size in SIZES:
        returned, combine = made(size)
        assert torch.equal(layout.read(returned, size).combine, combine)


def test_one_expert_per_token_may_come_without_an_axis() -> None:
    size = Size(tokens=50, experts=8, activated=1)
    r = drawn(size)
    layout = learn_layout((r.indices.squeeze(1), r.weights.squeeze(1)), size, NOTHING)
    check(layout.read((r.indices.squeeze(1), r.weights.squeeze(1)), size), size)


@pytest.mark.parametrize("returns", [{"weights": 1, "indices": 2}, {"weights": "weights", "indices": "chosen"}])
def test_parts_of_a_named_tuple_are_declared_by_position_or_name(returns: Mapping[Any, Any]) -> None:
    r = drawn(LEARNT)
    named = _Named(r.logits, r.weights, r.indices)
    check(learn_layout(named, LEARNT, RoutingSpec(returns=returns)).read(named, LEARNT), LEARNT)


def test_what_is_left_over_is_kept() -> None:
    returned = FIELD["deepspeed"][0](drawn(LEARNT))
    routing = learn_layout(returned, LEARNT, NOTHING).read(returned, LEARNT)
    assert {key: tuple(part.shape) for key, part in routing.aux.items()} == {"0": (), "3": (8,)}
    declared = RoutingSpec(returns={"combine": 1, "mask": 2, "aux": 0})
    assert float(learn_layout(returned, LEARNT, declared).read(returned, LEARNT).aux["aux"]) == 1.5


@pytest.mark.parametrize(
    ("make", "said", "returns"),
    [
        (
            lambda r: (r.weights, 2 * r.weights, r.indices),
            "0, 1 could all be the weights",
            {"weights": 0, "indices": 2},
        ),
        (
            lambda r: (r.weights, r.indices, r.indices.flip(0)),
            "1, 2 could all be the indices",
            {"weights": 0, "indices": 1},
        ),
        (lambda r: (r.scores, r.logits), "cannot tell weights and choice", None),
        (lambda r: (r.scores, r.indices), "cannot tell weights and choice", None),
        (lambda r: (r.combine, r.mask.float()), "0, 1 could all be the weights", {"combine": 0, "mask": 1}),
        (lambda r: {"w": r.combine, "z": 2 * r.combine}, "w, z could all be the weights", {"combine": "w"}),
        (lambda r: (r.weights, (r.weights + 1, r.indices)), "0, 1.0 could all be", {"weights": 0, "indices": "1.1"}),
    ],
)
def test_ambiguous_returns_say_how_to_declare_them(
    make: Callable[[Drawn], Any], said: str, returns: Mapping[str, Any] | None
) -> None:
    with pytest.raises(ClaimError, match=r"declare it: RoutingSpec\(returns=") as error:
        learn_layout(make(drawn(LEARNT)), LEARNT, NOTHING)
    assert said in str(error.value)
    if returns is not None:
        layout = learn_layout(make(drawn(LEARNT)), LEARNT, RoutingSpec(returns=returns))  # type: ignore[arg-type]
        for size in SIZES:
            check(layout.read(make(drawn(size)), size), size)


def test_scores_over_all_experts_may_be_declared_as_the_weights_of_the_indices() -> None:
    r = drawn(LEARNT)
    claim = RoutingSpec(returns={"weights": 0, "indices": 1})
    routing = learn_layout((r.scores, r.indices), LEARNT, claim).read((r.scores, r.indices), LEARNT)
    assert torch.equal(routing.combine, r.scores.masked_fill(~r.mask, 0))


def test_a_tensor_by_itself_is_declared_at_position_0() -> None:
    r = drawn(LEARNT)
    with pytest.raises(ClaimError, match="cannot tell weights and choice"):
        learn_layout(r.scores, LEARNT, NOTHING)
    routing = learn_layout(r.scores, LEARNT, RoutingSpec(returns={"combine": 0})).read(r.scores, LEARNT)
    assert torch.equal(routing.combine, r.scores)


@pytest.mark.parametrize(
    ("returned", "said"),
    [(None, "returns None"), ("top-2", "a str"), (3.5, "a float"), ((), "a tuple"), ((None, "x"), "a tuple")],
)
def test_what_holds_no_tensors_is_refused(returned: object, said: str) -> None:
    with pytest.raises(ClaimError, match=f"{said}, no tensors"):
        learn_layout(returned, LEARNT, NOTHING)


@pytest.mark.parametrize("marker", [-1, 8])
def test_dropped_slots_meet_no_expert(marker: int) -> None:
    r = drawn(LEARNT)
    indices = r.indices.clone()
    indices[:7, 1] = marker
    routing = learn_layout((r.weights, indices), LEARNT, NOTHING).read((r.weights, indices), LEARNT)
    assert routing.times.sum(-1).tolist() == [1] * 7 + [2] * 43
    assert torch.equal(routing.combine[7:], r.combine[7:])
    assert torch.equal(routing.sums[:7], r.weights[:7, 0])


@pytest.mark.parametrize("wrong", [-2, 9, 10**6])
def test_indices_past_the_experts_are_named(wrong: int) -> None:
    r = drawn(LEARNT)
    indices = r.indices.clone()
    indices[3, 1] = wrong
    layout = learn_layout((r.weights, indices), LEARNT, NOTHING)
    with pytest.raises(ClaimError, match=f"index {wrong} points past the 8 experts"):
        layout.read((r.weights, indices), LEARNT)


def test_repeated_experts_are_counted() -> None:
    r = drawn(LEARNT)
    twice = (r.weights, r.indices[:, :1].expand(-1, 2).contiguous())
    routing = learn_layout(twice, LEARNT, NOTHING).read(twice, LEARNT)
    assert int(routing.times.max()) == 2
    torch.testing.assert_close(routing.sums, r.weights.sum(-1))


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (lambda r: (r.logits, r.weights), "returns no indices at 2"),
        (lambda r: (r.logits, r.weights[:, :1], r.indices), "differ in shape"),
        (lambda r: (r.logits, r.weights[:9], r.indices), "weights are"),
    ],
)
def test_a_return_that_changes_with_the_shape_is_an_error(other: Callable[[Drawn], Any], said: str) -> None:
    layout = learn_layout(FIELD["transformers"][0](drawn(LEARNT)), LEARNT, NOTHING)
    with pytest.raises(ClaimError, match=said):
        layout.read(other(drawn(LEARNT)), LEARNT)


def test_a_declared_place_that_is_not_there_is_named() -> None:
    r = drawn(LEARNT)
    with pytest.raises(ClaimError, match="puts weights at 'w'; what is returned has 0, 1"):
        learn_layout((r.weights, r.indices), LEARNT, RoutingSpec(returns={"weights": "w", "indices": 1}))
