"""The check of a user's own model: do its outputs and parameters scale with size as a transfer rule needs?"""

from mue_check.own_model.api import check_model

__all__ = ["check_model"]
