"""The audit: a real model and its optimizer against what a rule prescribes, and the correct parameter groups."""

from mue_check.audit.audit import audit_model
from mue_check.audit.groups import init_parameters, param_groups
from mue_check.audit.report import AuditReport, Mismatch, MultiplierRow, ParameterGroup, ParameterRow
from mue_check.audit.scenario import scenario_of
from mue_check.audit.setup import AuditError, SetUp

__all__ = [
    "AuditError",
    "AuditReport",
    "Mismatch",
    "MultiplierRow",
    "ParameterGroup",
    "ParameterRow",
    "SetUp",
    "audit_model",
    "init_parameters",
    "param_groups",
    "scenario_of",
]
