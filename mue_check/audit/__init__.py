"""The audit: a real model and its real optimizer against what a rule prescribes, and the groups that would be right."""

from mue_check.audit.audit import audit_model
from mue_check.audit.groups import init_parameters, param_groups
from mue_check.audit.report import Group, MultiplierRow, Offence, ParameterRow, Report
from mue_check.audit.scenario import scenario_of
from mue_check.audit.setup import AuditError, SetUp

__all__ = [
    "AuditError",
    "Group",
    "MultiplierRow",
    "Offence",
    "ParameterRow",
    "Report",
    "SetUp",
    "audit_model",
    "init_parameters",
    "param_groups",
    "scenario_of",
]
