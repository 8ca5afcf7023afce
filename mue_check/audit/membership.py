"""Which group holds each parameter: none, two, or an optimizer that holds another model's."""

from collections.abc import Iterator, Mapping

from mue_check.audit.assign import Assignment
from mue_check.audit.report import Offence
from mue_check.audit.setup import SetUp


def groups_of(setup: SetUp) -> dict[str, tuple[int, ...]]:
    """Name -> the groups that hold it, once for each time it stands there; groups count through all optimizers."""
    where: dict[int, list[int]] = {}
    for i, group in enumerate(setup.groups):
        for p in group["params"]:
            where.setdefault(id(p), []).append(i)
    return {name: tuple(where.get(id(p), ())) for name, p in setup.model.named_parameters(remove_duplicate=False)}


def judge_membership(
    setup: SetUp, assignments: Mapping[str, Assignment], where: Mapping[str, tuple[int, ...]]
) -> Iterator[Offence]:
    """Trainable parameters in no group or in two, and parameters in a group that are not the model's."""
    for name, a in assignments.items():
        role = "" if a.role is None else str(a.role)
        if a.trainable and not where[name]:
            stack = "a stack of experts, which matching by kind of module or by '.weight' misses: " if a.experts else ""
            yield Offence(check="group", parameter=name, role=role, says=f"{stack}in no parameter group")
        if len(where[name]) > 1:
            told = ", ".join(map(str, where[name]))
            yield Offence(check="group", parameter=name, role=role, says=f"in {len(where[name])} groups: {told}")
    own = {id(p) for p in setup.model.parameters()}
    strangers = [(i, p) for i, group in enumerate(setup.groups) for p in group["params"] if id(p) not in own]
    if strangers:
        i, first = strangers[0]
        lost = sum(not held for held in where.values())
        hint = ": was the optimizer built before the model was replaced, converted or wrapped?" if lost else ""
        yield Offence(
            check="group",
            parameter="(optimizer)",
            says=f"{len(strangers)} parameters in groups are not the model's, the first in group {i}, "
            f"{list(first.shape)}{hint}",
        )
