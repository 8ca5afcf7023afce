"""What a claim may say, and how it says that it cannot."""

from pathlib import Path
from typing import Any

import pytest

from mue_check.errors import ClaimError, MueCheckError
from mue_check.mutants.routing.gates import CompleteMueRouter
from mue_check.routing.claim import RoutingSpec, claim_of, read_claim
from mue_check.routing.factory import SHAPES, Shape, candidate_of, fitted, load_candidate


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"kind": "tokens"}, "RoutingSpec.kind='tokens': must be one of token_choice, capacity, expert_choice"),
        ({"weight_sum": "two"}, "RoutingSpec.weight_sum='two': must be one, groups, free or a number"),
        ({"weight_sum": 0}, "weight_sum=0"),
        ({"activated_scale": "both"}, "activated_scale='both': must be none, router or block"),
        ({"activated_scale": "router", "weight_sum": "free"}, "must be one or a number with activated_scale"),
        ({"weight_sum": float("nan")}, "weight_sum=nan"),
        ({"weight_sum": True}, "weight_sum=True"),
        ({"groups": 0}, "groups=0: must be a whole number of at least 1"),
        ({"top_k": 1.5}, "top_k=1.5"),
        ({"groups": 2, "group_limit": 3}, "group_limit=3: must be at most groups=2"),
        ({"groups": 2, "per_group_k": 2, "top_k": 3}, "top_k=3: must be groups * per_group_k"),
        ({"kind": "capacity"}, "capacity_factor=None: must be given for kind='capacity'"),
        ({"returns": {"wights": 0}}, "must be a table from weights, indices"),
        ({"returns": {"weights": -1}}, "must be a table from weights, indices"),
        ({"returns": "weights"}, "returns='weights': must be a table from weights, indices"),
        ({"shared": "yes"}, "shared='yes': must be true or false"),
        ({"fp32_gate": 1}, "fp32_gate=1: must be true or false"),
        ({"router": ""}, "router='': must be a name"),
        ({"experts": "mlp"}, "experts='mlp': must be a table"),
        ({"experts": {"up": "w1", "down": "w2", "axes": "io"}}, "ExpertLayout.axes='io': must be out_in or in_out"),
        ({"sum": 1}, "unknown field 'sum': allowed are kind, gate"),
        ({"experts": {"up": "w1"}}, "[experts]: down is missing"),
        ({"experts": {"upp": "w1"}}, "[experts]: unknown field 'upp'"),
    ],
)
def test_a_claim_that_says_nonsense_is_refused_by_field_and_value(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ClaimError) as caught:
        claim_of(fields, "claim")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_claim_is_read_from_toml(tmp_path: Path) -> None:
    file = tmp_path / "claim.toml"
    file.write_text(
        'weight_sum = 2.5\ngroups = 4\ngroup_limit = 2\n[returns]\nweights = 1\n[experts]\nup = "w1"\ndown = "w2"\n'
    )
    claim = read_claim(file)
    assert claim.expected_sum() == 2.5
    assert claim.returns == {"weights": 1}
    assert claim.experts is not None
    assert claim.experts.down == "w2"


@pytest.mark.parametrize(("text", "says"), [(None, "cannot be read: No such file"), ("weight_sum = ", "not TOML")])
def test_a_claim_file_that_is_none(tmp_path: Path, text: str | None, says: str) -> None:
    file = tmp_path / "claim.toml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ClaimError, match=says):
        read_claim(file)


def test_sums_of_claims() -> None:
    assert RoutingSpec().expected_sum() == 1
    assert RoutingSpec(weight_sum="groups", groups=3).expected_sum() == 3
    assert RoutingSpec(weight_sum="free").expected_sum() is None
    assert RoutingSpec(weight_sum=2.5, activated_scale="router").at(4).expected_sum() == 10
    assert RoutingSpec(activated_scale="block").at(4) == RoutingSpec(route_scale=4.0)


@pytest.mark.parametrize(
    "claim",
    [
        RoutingSpec(),
        RoutingSpec(top_k=1),
        RoutingSpec(groups=3, per_group_k=2),
        RoutingSpec(groups=8, group_limit=4),
        RoutingSpec(groups=5, per_group_k=1),
    ],
    ids=str,
)
def test_shapes_are_moved_to_where_the_claim_allows_them(claim: RoutingSpec) -> None:
    for shape in SHAPES:
        moved = fitted(shape, claim)
        assert moved.experts % claim.groups == 0
        assert 1 <= moved.activated <= moved.experts
        assert moved.d != moved.experts
        if claim.per_group_k is not None:
            assert moved.activated == claim.groups * claim.per_group_k
            assert claim.per_group_k <= moved.experts // claim.groups
        if claim.group_limit is not None:
            assert moved.activated <= claim.group_limit * moved.experts // claim.groups


def test_the_first_shape_has_no_two_sizes_alike() -> None:
    shape = SHAPES[0]
    sizes = (shape.d, shape.f, shape.experts, shape.activated, shape.tokens, 2 * shape.f)
    assert len(set(sizes)) == len(sizes)


def test_factories_are_called_by_name_where_the_names_are_ours() -> None:
    def swapped(top_k: int, n_experts: int, d_model: int) -> CompleteMueRouter:
        return CompleteMueRouter(d_model, n_experts, top_k)

    def unnamed(d: int, e: int, k: int) -> CompleteMueRouter:
        return CompleteMueRouter(d, e, k)

    for factory in (swapped, unnamed):
        module = candidate_of("router", factory).build(Shape(d=6, f=4, experts=5, activated=2, tokens=3))
        assert {tuple(p.shape) for p in module.parameters()} == {(5, 6)}


def test_a_claim_comes_from_the_argument_before_the_attribute_before_the_default() -> None:
    def bare(d_model: int, n_experts: int, top_k: int) -> CompleteMueRouter:
        return CompleteMueRouter(d_model, n_experts, top_k)

    assert candidate_of("router", bare).claim == RoutingSpec()
    assert candidate_of("router", CompleteMueRouter).claim == CompleteMueRouter.routing_spec
    given = RoutingSpec(weight_sum="free")
    assert candidate_of("router", CompleteMueRouter, claim=given).claim == given


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("mine", "write MODULE:FACTORY or FILE.py:FACTORY"),
        ("no_such_module:factory", "cannot import 'no_such_module': ModuleNotFoundError"),
        ("math:tau", "tau is a float, nothing to call"),
        ("math:nothing", "math has no 'nothing'"),
        ("{tmp}/absent.py:factory", "no such file"),
        ("{tmp}/broken.py:factory", "cannot import"),
        ("{tmp}/exits.py:factory", "SystemExit: 3"),
        ("builtin:best", "unknown router 'best'"),
        ("builtin:content_blind", "routes by the tokens themselves"),
    ],
)
def test_names_of_nothing_are_one_line(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / "broken.py").write_text("def factory(:\n")
    (tmp_path / "exits.py").write_text("raise SystemExit(3)\n")
    with pytest.raises(MueCheckError) as caught:
        load_candidate("router", name.replace("{tmp}", str(tmp_path)))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_finds_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "neighbour_of_mine.py").write_text("from mue_check.mutants.routing.gates import CompleteMueRouter\n")
    (tmp_path / "mine.py").write_text("from neighbour_of_mine import CompleteMueRouter as factory\n")
    assert load_candidate("router", f"{tmp_path}/mine.py:factory").claim == CompleteMueRouter.routing_spec


def test_a_file_in_a_package_imports_by_relative_names(tmp_path: Path) -> None:
    inner = tmp_path / "package of mine" / "inner"
    inner.mkdir(parents=True)
    for folder in (inner.parent, inner):
        (folder / "__init__.py").touch()
    (inner.parent / "above.py").write_text("from mue_check.mutants.routing.gates import CompleteMueRouter\n")
    (inner / "mine.py").write_text("from ..above import CompleteMueRouter as factory\n")
    assert load_candidate("router", f"{inner}/mine.py:factory").claim == CompleteMueRouter.routing_spec
