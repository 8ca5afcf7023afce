"""The audit's answer: offenders, the form that was judged, every value of every parameter, and the right groups."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from mue_check.audit.names import shape_of
from mue_check.judge.verdict import Verdict

VALUES = ("init_std", "lr", "weight_decay", "eps", "beta1", "beta2")


@dataclass(frozen=True, kw_only=True)
class Offence:
    """One thing that is wrong with one parameter.

    ``check`` is a stable id: a value's name, or ``role``, ``group``, ``scheduler``, ``multiplier``, ``tied``,
    ``expert_init``, ``router_zero``, ``dead``. ``measured`` and ``prescribed`` are set where there are numbers.
    """

    check: str
    parameter: str
    role: str = ""
    measured: float | None = None
    prescribed: float | None = None
    says: str = ""

    def __str__(self) -> str:
        told = f"{self.parameter} ({self.role})" if self.role else self.parameter
        return f"{told}: {self.check} {_numbers(self)}{self.says}".rstrip()


@dataclass(kw_only=True)
class Findings:
    """What was found so far."""

    offences: list[Offence] = field(default_factory=list)
    unjudged: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class ParameterRow:
    """One parameter: where it is and what acts on it. ``prescribed`` is empty without a role."""

    parameter: str
    role: str
    shape: tuple[int, ...]
    fan_in: int | None
    groups: tuple[int, ...]
    fold: float
    measured: Mapping[str, float]
    prescribed: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class MultiplierRow:
    """A forward multiplier: the rule's, the model's and how that is known, and the ``fold`` between them.

    ``form`` is ``present``, ``folded``, ``partly folded``, or ``missing`` where it cannot be folded.
    """

    role: str
    wanted: float
    present: float
    source: str
    form: str
    fold: float

    def __str__(self) -> str:
        text = f"{self.role}: the rule's {self.wanted:.4g}, the model's {self.present:.4g} ({self.source}): {self.form}"
        return f"{text} as {self.fold:.4g}" if "folded" in self.form else text


@dataclass(frozen=True, kw_only=True)
class Group:
    """A parameter group as it should be."""

    roles: tuple[str, ...]
    parameters: tuple[str, ...]
    lr: float
    weight_decay: float
    eps: float
    betas: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Report:
    """What the audit found. ``unjudged`` says what could not be told, ``notes`` what is worth knowing."""

    rule: str
    reference: str
    target: str
    form: str
    multipliers: tuple[MultiplierRow, ...]
    rows: tuple[ParameterRow, ...]
    offences: tuple[Offence, ...]
    unjudged: tuple[str, ...]
    notes: tuple[str, ...]
    groups: tuple[Group, ...]

    @property
    def verdict(self) -> Verdict:
        """FAIL with any offence, INCONCLUSIVE with anything that could not be judged, else PASS."""
        if self.offences:
            return Verdict.FAIL
        return Verdict.INCONCLUSIVE if self.unjudged else Verdict.PASS

    def to_json(self) -> str:
        """Everything, as one JSON object; numbers that are not known are null."""
        value = {"verdict": str(self.verdict), **asdict(self), "groups_as_python": self.groups_as_python()}
        return json.dumps(_plain(value), indent=1)

    def groups_as_python(self) -> str:
        """Code that makes the right groups of ``model``; numbers in names are written ``*``."""
        where: dict[str, set[int]] = {}
        for i, group in enumerate(self.groups):
            for name in group.parameters:
                where.setdefault(shape_of(name), set()).add(i)
        lines = ["import re", "", "named = {}", "for name, p in model.named_parameters(remove_duplicate=False):"]
        lines += ['    named.setdefault(re.sub(r"(?<=[.])[0-9]+(?=[.])", "*", name), {})[name] = p']
        lines += ["every = {shape: list(dict.fromkeys(found.values())) for shape, found in named.items()}"]
        lines += ["one = {name: [p] for found in named.values() for name, p in found.items()}", "groups = ["]
        for group in self.groups:
            # a shape that stands in one group goes as a whole, else its parameters one by one
            wholes = dict.fromkeys(shape_of(n) for n in group.parameters if len(where[shape_of(n)]) == 1)
            singles = [n for n in group.parameters if len(where[shape_of(n)]) > 1]
            chosen = [f"*every[{s!r}]" for s in wholes] + [f"*one[{n!r}]" for n in singles]
            values = f'"lr": {group.lr!r}, "weight_decay": {group.weight_decay!r}, "eps": {group.eps!r}'
            lines += [f"    # {', '.join(group.roles)}", "    {", '        "params": [']
            lines += [f"            {line}," for line in chosen]
            lines += ["        ],", f'        {values}, "betas": {group.betas!r},', "    },"]
        return "\n".join([*lines, "]"])

    def __str__(self) -> str:
        head = [
            f"rule       {self.rule}",
            f"reference  {self.reference}",
            f"target     {self.target}",
            f"form       {self.form}",
            *(f"           {line}" for line in self.multipliers),
        ]
        body = []
        if self.offences:
            number = len(self.offences)
            where = f" in {self._accused} parameters" if self._accused else ""
            body += ["", f"{number} offence{'s' * (number != 1)}{where}:"]
            body += _aligned(_offenders(self.offences))
        for title, lines in (("not judged", self.unjudged), ("notes", self.notes)):
            if lines:
                body += ["", f"{title}:", *(f"  {line}" for line in lines)]
        if self.offences and self.groups:
            body += ["", "groups that would be right (mue_check.param_groups makes them):"]
            body += _aligned(_right(self.groups))
        return "\n".join([*head, *body, "", f"{self.verdict}: {self._summary()}"])

    @property
    def _accused(self) -> int:
        """How many parameters are wrong; an offence can be the model's, the optimizer's or the scheduler's."""
        return len({o.parameter for o in self.offences} & {row.parameter for row in self.rows})

    def _summary(self) -> str:
        total = len(self.rows)
        if self.offences:
            checks = ", ".join(dict.fromkeys(o.check for o in self.offences))
            if not self._accused:
                return f"not as prescribed: {checks}"
            return f"{self._accused} of {total} parameters are not as prescribed: {checks}"
        if self.unjudged:
            return f"{total} parameters, none found wrong, and not all could be judged"
        return f"{total} parameters, all as prescribed"


def _offenders(offences: Sequence[Offence]) -> list[list[str]]:
    """One line for all parameters that are wrong in the same way, whatever their roles."""
    alike: dict[tuple[str, ...], list[Offence]] = {}
    for o in offences:
        # no two matrices have the same RMS to four digits
        measured = "" if o.check in ("init_std", "expert_init") else _short(o.measured)
        alike.setdefault((o.check, _short(o.prescribed), measured, o.says), []).append(o)
    rows = [["check", "measured", "prescribed", "times", "parameters"]]
    for (check, prescribed, _, says), found in alike.items():
        numbers = [o.measured for o in found if o.measured is not None]
        low, high = (_short(min(numbers)), _short(max(numbers))) if numbers else ("", "")
        mean = sum(numbers) / len(numbers) if numbers else 0.0
        times = f"{mean / found[0].prescribed:.3g}" if numbers and found[0].prescribed else ""
        span = low if low == high else f"{low}..{high}"
        rows.append([check, span, prescribed, times, _whose(found) + (f": {says}" if says else "")])
    return rows


def _whose(found: Sequence[Offence]) -> str:
    """Roles, how many, and a name where one is enough."""
    roles = list(dict.fromkeys(o.role for o in found if o.role))
    names = list(dict.fromkeys(shape_of(o.parameter) for o in found))
    told = ", ".join(roles[:4]) + (f" and {len(roles) - 4} more roles" if len(roles) > 4 else "")
    many = f" ({len(found)})" if len(found) > 1 else ""
    first = names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")
    if not roles:
        return first + many
    return told + many + (f" {first}" if len(roles) == 1 else "")


def _right(groups: Sequence[Group]) -> list[list[str]]:
    rows = [["lr", "weight_decay", "eps", "betas", "roles"]]
    for g in groups:
        betas = f"{g.betas[0]:.4g}, {g.betas[1]:.4g}"
        roles = f"{', '.join(g.roles)} ({len(g.parameters)})"
        rows.append([_short(g.lr), _short(g.weight_decay), _short(g.eps), betas, roles])
    return rows


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  " + "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _numbers(o: Offence) -> str:
    if o.measured is None or o.prescribed is None:
        return ""
    times = f", {o.measured / o.prescribed:.3g} times" if o.prescribed else ""
    return f"{o.measured:.4g}, prescribed {o.prescribed:.4g}{times} "


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
