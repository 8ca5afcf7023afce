"""mue_check: does a learning rate tuned on a small dense model still stand at the model that you will train?"""

from mue_check.errors import DataError, MueCheckError, RuleError, SpecError, StoreError
from mue_check.rules import RULES, HyperParameters, Prescription, Role, get_rule
from mue_check.spec import Dense, Experts, ModelSpec, Scenario, TrainSpec, parse_scenario

__version__ = "0.1.0"

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
    "RuleError",
    "Scenario",
    "SpecError",
    "StoreError",
    "TrainSpec",
    "get_rule",
    "parse_scenario",
]
