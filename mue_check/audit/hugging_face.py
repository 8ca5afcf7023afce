"""A set-up for a mixture of transformers by name: a tiny model with the init and the groups that the rule prescribes.

Its audit asks what users of that family need to know: does mue_check know the role of every parameter and every
multiplier, and does the model train as prescribed?
"""

from dataclasses import replace
from typing import Any

import torch

from mue_check.audit.groups import init_parameters, param_groups
from mue_check.audit.scenario import scenarios_of
from mue_check.audit.setup import AuditError, SetUp
from mue_check.errors import ClaimError
from mue_check.routing.hugging_face import PREFIX, family, model_of
from mue_check.rules import get_rule
from mue_check.spec import Experts

_SIZES = {"d": 64, "f": 64, "experts": 8, "activated": 2}


def prescribed_set_up(name: str, judging: dict[str, Any]) -> SetUp:
    """The set-up of ``hf:CONFIG``; AuditError if there is none.

    ``judging`` are the keywords of ``audit_model``, which get the target where the configuration leaves something out.
    """
    try:
        found = family(name.removeprefix(PREFIX))
    except ClaimError as error:
        raise AuditError(str(error)) from None
    torch.manual_seed(0)
    model = model_of(replace(found, depth=max(2, found.depth)), **_SIZES | {"activated": found.activated})
    source, goal, _ = scenarios_of(model, judging["reference"], judging["target"])
    forward = goal.model.feed_forward
    if isinstance(forward, Experts) and not forward.shared and any("shared" in n for n, _ in model.named_parameters()):
        goal = replace(goal, model=replace(goal.model, feed_forward=replace(forward, shared=1)))
        judging["target"] = goal  # some configurations do not say that there is a shared expert
    how = {key: judging[key] for key in ("roles", "multipliers", "probe")}
    prescription, base = get_rule(judging["rule"]).prescribe(source, goal), judging["base"]
    init_parameters(model, prescription, base, **how)
    return SetUp.of(model, torch.optim.AdamW(param_groups(model, prescription, base, **how), lr=base.lr))
