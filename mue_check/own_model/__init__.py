"""The check of a user's own model: do its outputs and parameters scale with size as a transfer rule needs?"""

from mue_check.own_model.api import check_model
from mue_check.own_model.cases import parametrize_with_model_checks
from mue_check.own_model.training import Plan
from mue_check.own_model.transfer import Study

__all__ = ["Plan", "Study", "check_model", "parametrize_with_model_checks"]
