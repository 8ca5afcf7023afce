"""Transfer rules by name: pure functions of (reference, target). Nothing here imports torch."""

from mue_check.errors import RuleError, unknown
from mue_check.rules.complete_mue import (
    COMPLETE_MUE,
    COMPLETE_MUE_CDP,
    COMPLETE_MUE_LITERAL,
    CompleteMuE,
    about_expansion,
)
from mue_check.rules.fan_in import COMPLETED_P, COMPLETEP, COMPLETEP_BLIND, DMFT_MOE, MUP, FanInRule
from mue_check.rules.knob import Knob, base_value, knob_factors, parse_knob
from mue_check.rules.moe_mup import MOE_MUP, MOE_MUP_SCALED_ROUTER, MoeMuP
from mue_check.rules.prescription import Factors, HyperParameters, Prescription, Row, Rule
from mue_check.rules.roles import Role, parse_role, roles_of
from mue_check.rules.standard import STANDARD, Standard

_RULES: tuple[Rule, ...] = (
    COMPLETE_MUE,
    COMPLETE_MUE_LITERAL,
    COMPLETE_MUE_CDP,
    COMPLETED_P,
    COMPLETEP,
    COMPLETEP_BLIND,
    MUP,
    MOE_MUP,
    MOE_MUP_SCALED_ROUTER,
    DMFT_MOE,
    STANDARD,
)
RULES: dict[str, Rule] = {rule.name: rule for rule in _RULES}


def get_rule(name: str) -> Rule:
    """The rule of that name; RuleError names the known ones."""
    try:
        return RULES[name]
    except KeyError:
        raise RuleError(unknown("rule", name, RULES)) from None


__all__ = [
    "RULES",
    "CompleteMuE",
    "Factors",
    "FanInRule",
    "HyperParameters",
    "Knob",
    "MoeMuP",
    "Prescription",
    "Role",
    "Row",
    "Rule",
    "Standard",
    "about_expansion",
    "base_value",
    "get_rule",
    "knob_factors",
    "parse_knob",
    "parse_role",
    "roles_of",
]
