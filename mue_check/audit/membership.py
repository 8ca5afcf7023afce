"""Which group holds each parameter: none, two, or an optimizer that holds another model's."""

from collections.abc import Collection, Mapping

from mue_check.audit.assign import Assignment
from mue_check.audit.report import Findings, Offence
from mue_check.audit.setup import SetUp


def groups_of(setup: SetUp) -> dict[str, tuple[int, ...]]:
    """Name -> the groups that hold it, once for each time it stands there; groups count through all optimizers."""
    where: dict[int, list[int]] = {}
    for i, group in enumerate(setup.groups):
        for p in group["params"]:
            where.setdefault(id(p), []).append(i)
    return {name: tuple(where.get(id(p), ())) for name, p in setup.model.named_parameters(remove_duplicate=False)}


def judge_membership(
    setup: SetUp,
    assignments: Mapping[str, Assignment],
    where: Mapping[str, tuple[int, ...]],
    moved: Collection[str],
    found: Findings,
) -> None:
    """Trainable parameters in no group or in two, and parameters in a group that are not the model's.

    ``moved`` changed in training: an optimizer that holds copies and writes them back does train the model.
    """
    lost = [name for name, a in assignments.items() if a.trainable and not where[name]]
    own = {id(p) for p in setup.model.parameters()}
    strangers = [(i, p) for i, group in enumerate(setup.groups) for p in group["params"] if id(p) not in own]
    copied = [name for name in lost if name in moved] if strangers else []
    for name in lost:
        if name not in copied:
            a = assignments[name]
            stack = "a stack of experts, which matching by kind of module or by '.weight' misses: " if a.experts else ""
            says = f"{stack}in no parameter group"
            found.offences.append(Offence(check="group", parameter=name, role=_role(a), says=says))
    for name, groups in where.items():
        if name in assignments and len(groups) > 1:
            says = f"in {len(groups)} groups: {', '.join(map(str, groups))}"
            found.offences.append(Offence(check="group", parameter=name, role=_role(assignments[name]), says=says))
    if copied and len(copied) == len(lost):
        found.unjudged.append(
            f"LR, weight decay, eps and betas of {len(copied)} parameters, the first {copied[0]}: the optimizer holds "
            "copies of them and writes these back, and what acts on a copy is not read"
        )
    elif strangers:
        i, first = strangers[0]
        hint = ": was the optimizer built before the model was replaced, converted or wrapped?" if lost else ""
        says = f"{len(strangers)} parameters in groups are not the model's, the first in group {i}, {list(first.shape)}"
        found.offences.append(Offence(check="group", parameter="(optimizer)", says=says + hint))


def _role(a: Assignment) -> str:
    return "" if a.role is None else str(a.role)
