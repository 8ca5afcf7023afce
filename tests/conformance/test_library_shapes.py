"""Modules of torchtitan's and Megatron's shape are checked with the claim that their attributes make."""

import pytest

from mue_check.conformance.api import check_candidate
from mue_check.errors import ClaimError
from mue_check.routing.factory import SHAPES, load_candidate

SCALE = {"weight-sum", "fit-scale", "recomposition", "dense-equivalence"}
HERE = "tests/conformance/library_shapes.py"


@pytest.mark.parametrize(
    ("kind", "name", "against"),
    [
        ("router", "torchtitan:Torchtitan", set()),
        ("block", "torchtitan:Torchtitan", {"fit-output"}),
        ("block", "torchtitan:TorchtitanAfter", set()),
        (
            "block",
            "torchtitan:TorchtitanForgetsScale",
            {"weight-sum", "fit-scale", "recomposition", "dense-equivalence"},
        ),
        ("router", "megatron:Megatron", set()),
        ("block", "megatron:Megatron", set()),
        (
            "block",
            "megatron:MegatronUnweighted",
            SCALE | {"experts-train"},
        ),
    ],
)
def test_verdicts(kind, name: str, against: set[str]) -> None:  # type: ignore[no-untyped-def]
    library, _, made = name.partition(":")
    results = check_candidate(kind, f"{library}:{HERE}:{made}", seeds=1, shapes=SHAPES[:1])
    assert {r.check for r in results if r.against} == against


def test_what_is_not_of_that_shape_is_refused() -> None:
    with pytest.raises(ClaimError, match=r"Torchtitan is not Megatron's MoELayer: it has no config\.moe_router_topk"):
        load_candidate("block", f"megatron:{HERE}:Torchtitan")
