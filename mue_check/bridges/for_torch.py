"""Plain torch: parameter groups, initial values and an AdamW."""

from mue_check.bridges.python import module
from mue_check.bridges.sheet import Sheet

_BODY = '''
def make_optimizer(model):
    """Multiply all rates by one schedule, such as LambdaLR's: a schedule that sets rates would overwrite the groups."""
    return torch.optim.AdamW(param_groups(model))
'''


def render(sheet: Sheet) -> str:
    """A module with param_groups, init_parameters and make_optimizer."""
    return module(sheet, (), _BODY)
