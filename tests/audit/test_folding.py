"""A model with multipliers and one with the multipliers folded in train the same, step by step."""

import pytest
import torch
from torch import Tensor, nn

from mue_check import HyperParameters, Prescription, parse_scenario, scenario_of
from mue_check.audit import audit_model, init_parameters, param_groups
from mue_check.mutants.setups.example import ExampleConfig, ExampleMixture
from mue_check.mutants.setups.workbench import REFERENCE
from mue_check.rules import get_rule

# eps and decay large enough that a wrong factor of theirs shows
BASE = HyperParameters(lr=1e-2, weight_decay=1.0, init_std=0.1, eps=1e-3)
WANTED = ("attention_out", "expert_down", "router", "shared_down", "unembedding")


def prescription() -> Prescription:
    source = parse_scenario(REFERENCE)
    own = scenario_of(ExampleConfig(), batch=source.tokens_per_step, steps=source.steps)
    return get_rule("complete_mue").prescribe(source, own)


def pair() -> tuple[ExampleMixture, ExampleMixture]:
    """The same function twice: with multipliers, and with them in the weights."""
    p = prescription()
    torch.manual_seed(0)
    given = ExampleMixture(ExampleConfig(), {role: p[role].forward_multiplier for role in WANTED}).double()
    taken = ExampleMixture(ExampleConfig()).double()
    taken.load_state_dict(given.state_dict())
    for name, parameter in taken.named_parameters():
        for role, tail in (
            ("attention_out", "o_proj"),
            ("expert_down", "experts.down_proj"),
            ("shared_down", "shared_experts.down_proj"),
            ("unembedding", "lm_head"),
        ):
            if tail in name and not (role == "expert_down" and "shared" in name):
                factor = p[role].forward_multiplier
                factor *= p["router"].forward_multiplier if role == "expert_down" else 1.0
                parameter.data.mul_(factor)
    return given, taken


def losses(model: ExampleMixture, groups: list[dict[str, object]], steps: int = 12) -> list[float]:
    optimizer = torch.optim.AdamW(groups)
    tokens = torch.randint(64, (4, 17), generator=torch.Generator().manual_seed(1))
    out = []
    for _ in range(steps):
        logits = model(tokens[:, :-1])
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        out.append(float(loss.detach()))
    return out


def test_both_forms_train_the_same() -> None:
    given, taken = pair()
    with_multipliers = losses(given, param_groups(given, prescription(), BASE))
    without = losses(taken, param_groups(taken, prescription(), BASE))
    assert with_multipliers[-1] < with_multipliers[0] - 0.3
    torch.testing.assert_close(torch.tensor(without), torch.tensor(with_multipliers), rtol=1e-10, atol=0)


class Branch(nn.Module):
    """A branch with a bias; the multiplier acts on both."""

    def __init__(self, multiplier: float) -> None:
        super().__init__()
        self.multiplier = multiplier
        self.embed_tokens = nn.Embedding(11, 16)
        self.self_attn = nn.ModuleDict({"o_proj": nn.Linear(16, 16)})
        self.lm_head = nn.Linear(16, 11, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed_tokens(tokens)
        return self.lm_head(x + self.multiplier * self.self_attn["o_proj"](x))


def test_the_bias_of_a_branch_is_folded_with_it() -> None:
    source = parse_scenario("d=16,L=1,H=16")
    p = get_rule("complete_mue").prescribe(source, parse_scenario("L=4", default=source))
    torch.manual_seed(0)
    given, taken = Branch(0.25).double(), Branch(1.0).double()
    taken.load_state_dict(given.state_dict())
    with torch.no_grad():
        for parameter in taken.self_attn.parameters():
            parameter.mul_(0.25)
    curves = []
    for model, declared in ((given, {"attention_out": 0.25}), (taken, {})):
        optimizer = torch.optim.AdamW(param_groups(model, p, BASE, multipliers=declared))
        curve = []
        for step in range(8):
            tokens = torch.arange(11)
            loss = nn.functional.cross_entropy(model(tokens), (tokens * 3 + step % 2) % 11)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            curve.append(float(loss.detach()))
        curves.append(curve)
    torch.testing.assert_close(*map(torch.tensor, curves), rtol=1e-10, atol=0)


@pytest.mark.parametrize("present", [(), WANTED, ("router",), ("attention_out", "unembedding"), ("expert_down",)])
def test_every_form_passes_with_its_own_values_only(present: tuple[str, ...]) -> None:
    p = prescription()
    torch.manual_seed(0)
    model = ExampleMixture(ExampleConfig(), {role: p[role].forward_multiplier for role in present})
    init_parameters(model, p, BASE)
    optimizer = torch.optim.AdamW(param_groups(model, p, BASE))
    report = audit_model(model, optimizer, reference=REFERENCE, base=BASE)
    assert report.verdict == "PASS", str(report)
    word = {(): "folded into", WANTED: "present in the model"}.get(present, "mixed")
    assert word in report.form
    # the values of one form are wrong for the other
    other = ExampleMixture(ExampleConfig(), {} if present else {r: p[r].forward_multiplier for r in WANTED})
    other.load_state_dict(model.state_dict())
    groups = param_groups(model, p, BASE)
    names = {id(q): name for name, q in model.named_parameters()}
    moved = [{**g, "params": [other.get_parameter(names[id(q)]) for q in g["params"]]} for g in groups]
    report = audit_model(other, torch.optim.AdamW(moved), reference=REFERENCE, base=BASE)
    assert report.verdict == "FAIL"
    accused = {"router": "expert_down"}.get(present[0], present[0]) if present else "attention_out"
    assert accused in {o.role for o in report.offences}


def test_a_rule_without_multipliers_wants_none() -> None:
    torch.manual_seed(0)
    model = ExampleMixture(ExampleConfig())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1, betas=(0.9, 0.95))
    report = audit_model(model, optimizer, reference=REFERENCE, rule="standard", base=HyperParameters(init_std=0.1))
    assert report.form == "no multiplier is wanted"
    assert {o.check for o in report.offences} == {"init_std"}
