"""microsoft/mup: base shapes, MuReadout, and groups for MuAdamW.

mup scales by width alone. ``MuAdamW`` divides the learning rate of a parameter with two width axes by its width
multiplier and multiplies its weight decay by it; ``MuReadout`` multiplies the logits by 1 over it (mup/optim.py and
mup/layer.py of mup 1.0.0). The groups take the optimizer's part back, so that the rule's values are applied with
any base shapes. They rely on MuReadout for the logits.
"""

import re

from mue_check.bridges.base_shapes import read_base_shapes
from mue_check.bridges.python import module, number
from mue_check.bridges.sheet import Sheet
from mue_check.errors import RuleError
from mue_check.rules import Role

_CANNOT = (
    "mup alone knows the width: it leaves a router's learning rate unscaled (its first axis is the number of experts) "
    "and has no A, R, 1/m_L, eps, batch or duration. mup_groups and init_parameters give all of these.",
    "mup refuses a router that is an nn.Linear (hence do_assert=False). The number of experts must be no width: base "
    "and target have as many. The unembedding must be a mup.MuReadout; {readout} is its 1/width_mult here.",
)

_BODY = '''
RHO = {rho}  # width of this model over that of the base
NO_WIDTH = {{"token_embedding", "position_embedding", "unembedding", "router"}}  # their first axis


def base_shapes(model):
    """The base shapes of this model: itself, with every width divided by RHO."""
    return {{
        name: mup.infshape.InfShape(
            mup.infshape.InfDim(None if i == 0 and (role_of(name) in NO_WIDTH or p.ndim == 3) else n / RHO, n)
            for i, n in enumerate(p.shape)
        )
        for name, p in model.named_parameters()
    }}


def prepare(model):
    """Set the base shapes{written}, and draw the weights."""
    mup.set_base_shapes(model, {base}, rescale_params=False, do_assert=False)
    init_parameters(model)
    return model


def mup_groups(model):
    """Groups for MuAdamW of a model that is prepared; MuAdamW's own factors are taken out."""
    out = []
    for group in param_groups(model):
        by_width = {{}}
        for p in group["params"]:
            by_width.setdefault(p.infshape.width_mult() if p.infshape.ninf() == 2 else 1, []).append(p)
        for m, params in by_width.items():
            out.append({{**group, "params": params, "lr": group["lr"] * m, "weight_decay": group["weight_decay"] / m}})
    return out


def make_optimizer(model):
    """For a model that is prepared."""
    return mup.MuAdamW(mup_groups(model))
'''


def render(sheet: Sheet) -> str:
    """A module with prepare, base_shapes, mup_groups and make_optimizer."""
    p = sheet.prescription
    width = _base_width(sheet) if sheet.base_shapes else p.reference.model.width
    rho = p.target.model.width / width
    readout = sheet.present.get(Role.UNEMBEDDING, 1 / rho)
    sheet = sheet.with_present(Role.UNEMBEDDING, readout)
    body = _BODY.format(
        rho=number(rho),
        base=repr(sheet.base_shapes) if sheet.base_shapes else "base_shapes(model)",
        written="" if sheet.base_shapes else " (mup.save_base_shapes(base_shapes(model), 'base.bsh') writes them)",
    )
    cannot = [line.format(readout=number(readout)) for line in _CANNOT]
    return module(sheet, cannot, body, imports=["import mup", "import mup.infshape"])


def _base_width(sheet: Sheet) -> float:
    """The width of the base in the user's file, all of whose names must have a role."""
    widths = set()
    for name, sizes in read_base_shapes(sheet.base_shapes).items():
        label = next((label for expression, label in sheet.names if re.search(expression, name)), None)
        if label is None:
            raise RuleError(
                f"--base-shapes {sheet.base_shapes}: {name} has no role: give it one with --roles FILE.toml"
            )
        if label == Role.TOKEN_EMBEDDING:
            widths.add(sizes[-1] if sizes else None)
    if len(widths) != 1 or None in widths:
        raise RuleError(
            f"--base-shapes {sheet.base_shapes}: the last axis of the token embedding must be a width, with one "
            "base size, and is not: were base and delta model equally wide?"
        )
    return float(widths.pop() or 1)
