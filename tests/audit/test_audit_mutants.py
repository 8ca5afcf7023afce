"""Every shipped broken set-up fails the audit, and the right one passes."""

import pytest

from mue_check.audit import AuditReport, audit_model
from mue_check.mutants.mutant import Mutant
from mue_check.mutants.setups import broken
from mue_check.mutants.setups.broken import MUTANTS, right
from mue_check.mutants.setups.example import ExampleConfig
from mue_check.mutants.setups.workbench import BASE, REFERENCE, TARGET, SetUpParts

SMALL = ExampleConfig(hidden_size=32, num_experts=4, moe_intermediate_size=40, vocab_size=48)
LARGE = ExampleConfig(hidden_size=96, num_hidden_layers=3, num_experts=16, num_experts_per_tok=4, n_shared_experts=2)
OTHER = ExampleConfig(hidden_size=96, num_hidden_layers=3, num_experts=4, moe_intermediate_size=40, vocab_size=48)
CONFIGS = {"small": SMALL, "usual": ExampleConfig(), "large": LARGE}


def audited(parts: SetUpParts, reference: str = REFERENCE) -> AuditReport:
    model, optimizer, scheduler, loss = parts
    return audit_model(model, optimizer, scheduler, reference=reference, target=TARGET, base=BASE, loss=loss)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_a_mutant_fails(mutant: Mutant) -> None:
    every_second = MUTANTS.index(mutant) % 2
    report = audited(mutant(seed=every_second, config=OTHER if every_second else ExampleConfig()))
    assert report.verdict == "FAIL"
    assert any(o.check == mutant.caught_by and o.role == mutant.finding for o in report.offences), str(report)
    assert str(report).splitlines()[-1].startswith("FAIL: ")


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("seed", range(2))
def test_the_right_set_up_passes(name: str, seed: int) -> None:
    report = audited(right(seed=seed, config=CONFIGS[name]))
    assert report.verdict == "PASS", str(report)
    assert report.unjudged == ()
    assert str(report).splitlines()[-1] == f"PASS: {len(report.rows)} parameters, all as prescribed"


def test_a_mistake_without_effect_passes() -> None:
    # a reference of the same head width: 1/sqrt(d_head) is what the rule wants
    parts = broken.attention_by_root_of_head_width()
    assert audited(parts, REFERENCE.replace("dh=16", "dh=32")).verdict == "PASS"
