"""A user's router by name: its name, the ladders it takes, what the rule makes of its claim, and its trial."""

import functools
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from mue_check import Experts, SpecError, get_rule, parse_scenario
from mue_check.catalog import get_tier
from mue_check.errors import ClaimError
from mue_check.judge.law import Rung
from mue_check.judge.laws import LAWS
from mue_check.models.user_router.loaded import add_router, load_router, loaded_router, sizes_of, try_router
from mue_check.models.user_router.sources import source_hash
from mue_check.models.user_router.trial import try_isolated
from mue_check.questions.scales import judge_scales
from mue_check.routing.claim import RoutingSpec
from mue_check.routing.factory import Shape, candidate_of, load_candidate
from mue_check.routing.variants import USER_ROUTERS, VARIANTS, is_users
from mue_check.rules import Role
from tests import misbehaving
from tests.models import user_routers as users


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    USER_ROUTERS.clear()


def claiming(claim: RoutingSpec) -> str:
    return add_router(candidate_of("router", users.Sigmoid, name="users:Sigmoid", claim=claim)).name


def labels(axis: str, router: str, tier: str = "cpu") -> list[str] | None:
    ladder = get_tier(tier).ladders(axis)[0]
    found = ladder.with_routing(router, "none")
    return [rung.label for rung in found.rungs] if found else None


def test_a_name_holds_the_source(tmp_path: Path) -> None:
    file = tmp_path / "my router.py"
    file.write_text((Path(users.__file__)).read_text())
    name = load_router("my router.py:Sigmoid", tmp_path).name
    assert name.startswith("my-router-Sigmoid-")
    assert is_users(name)
    assert loaded_router(name).candidate.name == "my router.py:Sigmoid"
    again = tmp_path / "elsewhere"
    again.mkdir()
    file.rename(again / file.name)
    assert load_router("elsewhere/my router.py:Sigmoid", tmp_path).name == name  # wherever it lies
    with (again / file.name).open("a") as out:
        out.write("\n# edited\n")
    assert load_router("elsewhere/my router.py:Sigmoid", tmp_path).name != name


def test_the_hash_follows_imports_of_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "own_package"
    (package / "deep").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "deep" / "__init__.py").write_text("from .parts import scale\n")
    (package / "deep" / "parts.py").write_text("scale = 1.0\n")
    (package / "router.py").write_text(
        "import torch\nfrom own_package.deep import scale\nfrom tests.models.user_routers import Sigmoid as factory\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))

    def digest() -> str:
        factory = load_candidate("router", "own_package.router:factory").factory
        return source_hash(functools.partial(factory), "own_package.router")

    before = digest()
    assert digest() == before
    (package / "deep" / "parts.py").write_text("scale = 2.0\n")
    after = digest()
    assert after != before
    assert source_hash(users.Sigmoid) not in (before, after)
    for name in [name for name in sys.modules if name.startswith("own_package")]:
        monkeypatch.delitem(sys.modules, name)


def test_the_name_holds_the_file_that_was_named_too(tmp_path: Path) -> None:
    file = tmp_path / "named.py"
    file.write_text("from tests.models.user_routers import Sigmoid as factory\n")
    name = load_router("named.py:factory", tmp_path).name
    file.write_text(file.read_text() + "OTHER = True\n")
    assert load_router("named.py:factory", tmp_path).name != name


def test_a_router_without_a_file_is_refused() -> None:
    made: dict[str, type] = {}
    exec("class Here:\n    __module__ = 'typed_in'", made)
    with pytest.raises(ClaimError, match="typed_in has no file"):
        source_hash(made["Here"])


def test_names_of_routers_that_are_not_loaded_are_read() -> None:
    experts = Experts(total=16, activated=4, hidden=8, router="gone-factory-0123abcd")
    assert experts.weight_sum is None
    assert str(experts) == "16e4a,h=8,router=gone-factory-0123abcd"
    with pytest.raises(SpecError, match="unknown router 'gone-factory'"):
        Experts(total=16, activated=4, hidden=8, router="gone-factory")
    assert not any(is_users(name) for name in VARIANTS)
    with pytest.raises(SpecError, match="does not take a/G of each group"):
        Experts(total=16, activated=4, hidden=8, groups=2, router="gone-factory-0123abcd")


@pytest.mark.parametrize(
    ("claim", "weight_sum", "claimed", "multiplier"),
    [
        (RoutingSpec(), 1.0, 1.0, 4.0),
        (RoutingSpec(weight_sum="free"), None, None, 4.0),
        (RoutingSpec(weight_sum=2.5), None, 2.5, 4.0),  # as builtin:deepseek_v3
        (RoutingSpec(weight_sum=1), 1.0, 1.0, 4.0),
        (RoutingSpec(activated_scale="router"), 4.0, 4.0, 1.0),
        (RoutingSpec(weight_sum="groups", groups=4, per_group_k=1), 4.0, 4.0, 1.0),
        (RoutingSpec(kind="capacity", capacity_factor=1.0), 1.0, None, 4.0),
        (RoutingSpec(kind="expert_choice", weight_sum="free"), None, None, 4.0),
    ],
)
def test_the_claim_decides_what_the_rule_makes_of_the_sum(
    claim: RoutingSpec, weight_sum: float | None, claimed: float | None, multiplier: float
) -> None:
    name = claiming(claim)
    experts = Experts(total=16, activated=4, hidden=8, router=name)
    assert (experts.weight_sum, experts.claimed_sum) == (weight_sum, claimed)
    reference = parse_scenario("d=32,L=2,H=32")
    target = parse_scenario(f"16e4a,h=8,router={name}", default=reference)
    factors = get_rule("complete_mue").prescribe(reference, target)
    assert factors[Role.ROUTER].forward_multiplier == multiplier


def test_ladders_that_it_cannot_climb_fall_away() -> None:
    plain = claiming(RoutingSpec())
    assert labels("activated_experts", plain) == ["dense", "16e2a", "16e8a"]
    assert labels("routing_hybrids", plain) == ["16e4a", "16e4a1s"]  # it knows nothing of G
    two = claiming(RoutingSpec(top_k=2))
    assert labels("activated_experts", two) is None
    assert labels("capacity", two) == ["8e2a", "256e2a"]
    assert labels("granularity", two) is None
    four = claiming(RoutingSpec(groups=4, per_group_k=1))
    assert labels("capacity", four) == ["8e4a", "256e4a"]
    assert labels("capacity", claiming(RoutingSpec(groups=3))) is None
    limited = claiming(RoutingSpec(groups=8, group_limit=2))
    assert labels("capacity", limited) is None  # a group of the reference has one expert
    assert labels("activated_experts", limited) == ["dense", "16e2a"]
    with pytest.raises(SpecError, match="claims to activate at least 4"):
        Experts(total=16, activated=2, hidden=8, router=four)


def test_it_is_tried_at_every_size_before_anything_trains() -> None:
    name = add_router(candidate_of("router", users.Auxiliary, name="users:Auxiliary")).name
    tier = get_tier("smoke")
    ladders = [ladder for axis in ("capacity", "width", "activated_experts") for ladder in tier.ladders(axis)]
    routed = [ladder.with_routing(name, "none") for ladder in ladders]
    sizes = sizes_of(name, [rung.model for ladder in routed if ladder for rung in ladder.rungs])
    notices = try_router(name, sizes, "cpu")
    assert len(notices) == 1
    assert {(s.experts, s.activated) for s in loaded_router(name).profiles} == {(8, 2), (32, 2), (16, 2)}
    assert try_router(name, sizes, "cuda") == ()


def test_laws_of_what_it_does_not_show_are_left_out() -> None:
    shown = {law.coordinate for law in LAWS["width_of_mixture"]} - {"router_logits", "weight.router"}
    rows = [
        {"seed": seed, "value": 1.0, "step": step, "coordinate": name, "rms": 1.0, "change": 1.0}
        for seed in range(3)
        for step in (0, 1, 5)
        for name in shown
    ]
    rungs = [Rung(label=f"d{size}", size=size, table=pd.DataFrame(rows)) for size in (32, 64)]
    assert {result.law.coordinate for result in judge_scales("width_of_mixture", rungs)} == shown
    with pytest.raises(ValueError, match="no coordinate"):
        judge_scales("width_of_mixture", [replace(r, table=r.table[r.table["coordinate"] != "logits"]) for r in rungs])


SIZE = Shape(d=32, f=0, experts=8, activated=2, tokens=0)


@pytest.mark.parametrize(
    ("factory", "says"),
    [
        ("Sleeps", "at d_model=32, n_experts=8, top_k=2: it hangs: no answer in 2 s"),
        ("ExitsAtOnce", "at d_model=32, n_experts=8, top_k=2: it ends its process (exit code 0)"),
    ],
)
def test_what_would_take_pytest_along_is_found_in_a_process_of_its_own(factory: str, says: str) -> None:
    name = f"tests.misbehaving:{factory}"
    with pytest.raises(ClaimError) as caught, try_isolated(name, Path(), None) as trial:
        trial.at([SIZE], limit=2)
    assert str(caught.value) == says


def test_an_import_that_never_ends(tmp_path: Path) -> None:
    (tmp_path / "waits.py").write_text("import time\n\ntime.sleep(3600)\n")
    with (
        pytest.raises(ClaimError, match=r"importing it hangs: no answer in 0.1 s"),
        try_isolated("waits.py:Router", tmp_path, None, limit=0.1),
    ):
        pass


def test_what_breaks_whoever_reads_it_is_one_line() -> None:
    candidate = candidate_of("router", misbehaving.WrongDevice, name="users:WrongDevice")
    with pytest.raises(ClaimError, match="what it returns raises NotImplementedError") as caught:
        try_router(add_router(candidate).name, [SIZE], "cpu")
    assert len(str(caught.value).splitlines()) == 1


def test_a_router_that_changes_its_tokens_is_told() -> None:
    name = add_router(candidate_of("router", misbehaving.MutatesInput, name="users:MutatesInput")).name
    (notice,) = try_router(name, [SIZE], "cpu")
    assert notice == (
        "router users:MutatesInput changes the tokens that it is given, in place: the experts get the changed ones"
    )
