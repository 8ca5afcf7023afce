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
from mue_check.rules import HyperParameters, get_rule
from mue_check.spec import Experts, Scenario

_SIZES = {"d": 64, "f": 64, "experts": 8, "activated": 2}


def prescribed_set_up(
    name: str,
    *,
    reference: Scenario | str,
    target: Scenario | str | None = None,
    rule: str = "complete_mue",
    base: HyperParameters,
    **how: Any,
) -> tuple[SetUp, dict[str, Any]]:
    """The set-up of ``hf:CONFIG``, and the keywords with which ``audit_model`` judges it; AuditError if there is none.

    They are those given here (``how``: roles, multipliers and probe), with a target where the configuration leaves
    something out.
    """
    try:
        found = family(name.removeprefix(PREFIX))
    except ClaimError as error:
        raise AuditError(str(error)) from None
    torch.manual_seed(0)
    model = model_of(replace(found, depth=max(2, found.depth)), **_SIZES | {"activated": found.activated})
    source, goal, _ = scenarios_of(model, reference, target)
    forward = goal.model.feed_forward
    if isinstance(forward, Experts) and not forward.shared and any("shared" in n for n, _ in model.named_parameters()):
        goal = replace(goal, model=replace(goal.model, feed_forward=replace(forward, shared=1)))
        target = goal  # some configurations do not say that there is a shared expert
    prescription = get_rule(rule).prescribe(source, goal)
    init_parameters(model, prescription, base, **how)
    optimizer = torch.optim.AdamW(param_groups(model, prescription, base, **how), lr=base.lr)
    return SetUp.of(model, optimizer), {"reference": reference, "target": target, "rule": rule, "base": base, **how}
