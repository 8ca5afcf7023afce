"""mue_check: is a learning rate tuned on a small dense model still optimal for the model that you will train?"""

from importlib import import_module
from typing import TYPE_CHECKING

from mue_check.errors import DataError, MueCheckError, RuleError, SpecError, StoreError
from mue_check.rules import RULES, HyperParameters, Prescription, Role, get_rule
from mue_check.spec import Dense, Experts, ModelSpec, Scenario, TrainSpec
from mue_check.spec_text import parse_scenario

if TYPE_CHECKING:
    from mue_check.audit import audit_model, init_parameters, param_groups, scenario_of
    from mue_check.conformance.api import check_block, check_router, parametrize_with_checks
    from mue_check.own_model import check_model, parametrize_with_model_checks
    from mue_check.routing.claim import RoutingSpec

__version__ = "0.3.0"

__all__ = [
    "RULES",
    "DataError",
    "Dense",
    "Experts",
    "HyperParameters",
    "ModelSpec",
    "MueCheckError",
    "Prescription",
    "Role",
    "RoutingSpec",
    "RuleError",
    "Scenario",
    "SpecError",
    "StoreError",
    "TrainSpec",
    "audit_model",
    "check_block",
    "check_model",
    "check_router",
    "get_rule",
    "init_parameters",
    "param_groups",
    "parametrize_with_checks",
    "parametrize_with_model_checks",
    "parse_scenario",
    "scenario_of",
]

_LATE = {
    **dict.fromkeys(("audit_model", "init_parameters", "param_groups", "scenario_of"), "mue_check.audit"),
    **dict.fromkeys(("check_block", "check_router", "parametrize_with_checks"), "mue_check.conformance.api"),
    **dict.fromkeys(("check_model", "parametrize_with_model_checks"), "mue_check.own_model"),
    "RoutingSpec": "mue_check.routing.claim",
}
"""Names that need torch, with the module from which they are imported on first use."""


def __getattr__(name: str) -> object:
    if name in _LATE:
        return getattr(import_module(_LATE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
