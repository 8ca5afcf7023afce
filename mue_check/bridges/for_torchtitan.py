"""torchtitan: an ``OptimizersContainer.Config`` with one AdamW per role.

The form is that of ``torchtitan/components/optim/optimizer.py`` (``AdamW.Config(pattern=, lr=, betas=, eps=,
weight_decay=)``): patterns are searched in the parameter's name, the first that matches wins, every trainable
parameter must match one, and a pattern that matches nothing is an error. Releases before that package have
``ParamGroupConfig(pattern=, optimizer_name=, optimizer_kwargs=)`` with the same meaning (torchtitan PR 2859 and 3269).
"""

from collections.abc import Iterator

from mue_check.bridges.python import comment, number, regex, values_of
from mue_check.bridges.sheet import Sheet
from mue_check.rules import Role

_CANNOT = (
    "torchtitan refuses a pattern that matches no parameter: uncomment an entry if your model has such parameters.",
    "An optimizer config cannot draw weights. Each model's init config must use these standard deviations:",
)
_SELDOM = frozenset({Role.POSITION_EMBEDDING, Role.BIAS})


def render(sheet: Sheet) -> str:
    """A module with ``optimizer_config``."""
    stds = [f"  {line.label}: {number(line.row.init_std)}" for line in sheet.lines if line.label != Role.NORM_GAIN]
    lines = [
        *comment([*sheet.header(), *_CANNOT]),
        *(f"#{line}" for line in stds),
        "from torchtitan.components.optim import AdamW, OptimizersContainer",
        "",
        "",
        "def optimizer_config():",
        '    """For Optim.Config(optimizer=...); before it: ParamGroupConfig(pattern=..., optimizer_kwargs=...)."""',
        "    return OptimizersContainer.Config(optimizers=[",
        *_entries(sheet),
        "    ])",
    ]
    return "\n".join(lines) + "\n"


def _entries(sheet: Sheet) -> Iterator[str]:
    values = values_of(sheet)
    for label in dict.fromkeys(label for _, label in sheet.names):
        pattern = "|".join(dict.fromkeys(expression for expression, own in sheet.names if own == label))
        arguments = ", ".join(f"{key}={value}" for key, value in values[label].items())
        seldom = label in _SELDOM or label not in list(Role)
        sign = "# " if seldom else ""
        yield f"        # {label}"
        yield f"        {sign}AdamW.Config(pattern={regex(pattern)}, {arguments}),"
