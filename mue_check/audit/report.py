"""The audit's report: mismatches, the form that was judged, every value of every parameter, and correct groups."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from mue_check.audit.roles import starred
from mue_check.judge.verdict import Verdict
from mue_check.terminal import text_table

VALUES = ("init_std", "lr", "weight_decay", "eps", "beta1", "beta2")


@dataclass(frozen=True, kw_only=True)
class Mismatch:
    """One thing that is wrong with one parameter.

    ``check`` is a stable id: a value's name, or ``role``, ``group``, ``scheduler``, ``multiplier``, ``tied``,
    ``init_mean``, ``expert_init``, ``router_zero``, ``dead``, ``loss``, ``clipping``, ``rounding``. ``measured`` and
    ``prescribed`` are set where there are numbers.
    """

    check: str
    parameter: str
    role: str = ""
    measured: float | None = None
    prescribed: float | None = None
    says: str = ""

    def __str__(self) -> str:
        who = f"{self.parameter} ({self.role})" if self.role else self.parameter
        numbers = ""
        if self.measured is not None and self.prescribed is not None:
            times = f", {self.measured / self.prescribed:.3g} times" if self.prescribed else ""
            numbers = f"{self.measured:.4g}, prescribed {self.prescribed:.4g}{times} "
        return f"{who}: {self.check} {numbers}{self.says}".rstrip()


@dataclass(kw_only=True)
class AuditFindings:
    """What has been found so far."""

    mismatches: list[Mismatch] = field(default_factory=list)
    unjudged: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(
        self,
        check: str,
        parameter: str,
        role: str = "",
        says: str = "",
        *,
        measured: float | None = None,
        prescribed: float | None = None,
    ) -> None:
        """Report a mismatch."""
        self.mismatches.append(
            Mismatch(check=check, parameter=parameter, role=role, measured=measured, prescribed=prescribed, says=says)
        )


@dataclass(frozen=True, kw_only=True)
class ParameterRow:
    """One parameter, its groups and its values. ``prescribed`` is empty without a role."""

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
    """A forward multiplier: the rule's, the model's and its source, and the ratio of the two (``fold``).

    ``form`` is ``none`` (not wanted), ``present``, ``folded``, ``partly folded``, or ``missing`` where no matrix can
    absorb it.
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
class ParameterGroup:
    """A parameter group with the prescribed values."""

    roles: tuple[str, ...]
    parameters: tuple[str, ...]
    lr: float
    weight_decay: float
    eps: float
    betas: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class AuditReport:
    """The result: ``offences`` are the mismatches, ``unjudged`` is what could not be judged, ``notes`` are remarks."""

    rule: str
    reference: str
    target: str
    form: str
    multipliers: tuple[MultiplierRow, ...]
    rows: tuple[ParameterRow, ...]
    offences: tuple[Mismatch, ...]
    unjudged: tuple[str, ...]
    notes: tuple[str, ...]
    groups: tuple[ParameterGroup, ...]

    @property
    def verdict(self) -> Verdict:
        """FAIL with any mismatch, INCONCLUSIVE if anything could not be judged, else PASS."""
        if self.offences:
            return Verdict.FAIL
        return Verdict.INCONCLUSIVE if self.unjudged else Verdict.PASS

    def to_json(self) -> str:
        """Everything, as one JSON object; unknown numbers are null."""
        value = {"verdict": str(self.verdict), **asdict(self), "groups_as_python": self.groups_as_python()}
        return json.dumps(_plain(value), indent=1)

    def groups_as_python(self) -> str:
        """Python code that makes the prescribed groups of ``model``; ``*`` stands for the numbers in names."""
        where: dict[str, set[int]] = {}
        for i, group in enumerate(self.groups):
            for name in group.parameters:
                where.setdefault(starred(name), set()).add(i)
        lines = ["import re", "", "named = {}", "for name, p in model.named_parameters(remove_duplicate=False):"]
        lines += ['    named.setdefault(re.sub(r"(?<=[.])[0-9]+(?=[.])", "*", name), {})[name] = p']
        lines += ["every = {shape: list(dict.fromkeys(found.values())) for shape, found in named.items()}"]
        lines += ["one = {name: [p] for found in named.values() for name, p in found.items()}", "groups = ["]
        for group in self.groups:
            # names that differ only in numbers are listed as one, unless they are in different groups
            wholes = dict.fromkeys(starred(n) for n in group.parameters if len(where[starred(n)]) == 1)
            singles = [n for n in group.parameters if len(where[starred(n)]) > 1]
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
            where = f" in {self._wrong} parameter{'s' * (self._wrong != 1)}" if self._wrong else ""
            body += ["", f"{number} mismatch{'es' * (number != 1)}{where}:", *_aligned(_mismatch_rows(self.offences))]
        for title, lines in (("not judged", self.unjudged), ("notes", self.notes)):
            if lines:
                body += ["", f"{title}:", *(f"  {line}" for line in lines)]
        if self.offences and self.groups:
            body += ["", "correct groups (mue_check.param_groups makes them):", *_aligned(_group_rows(self.groups))]
        return "\n".join([*head, *body, "", f"{self.verdict}: {self._summary()}"])

    @property
    def _wrong(self) -> int:
        """The number of wrong parameters; a mismatch can also be the model's, the optimizer's or the scheduler's."""
        return len({o.parameter for o in self.offences} & {row.parameter for row in self.rows})

    def _summary(self) -> str:
        total = len(self.rows)
        if self.offences:
            checks = ", ".join(dict.fromkeys(o.check for o in self.offences))
            if not self._wrong:
                return f"not as prescribed: {checks}"
            return f"{self._wrong} of {total} parameters are not as prescribed: {checks}"
        if self.unjudged:
            return f"{total} parameters, none found wrong, but not all could be judged"
        return f"{total} parameters, all as prescribed"


def _mismatch_rows(mismatches: Sequence[Mismatch]) -> list[list[str]]:
    """A table with one line for all parameters that are wrong in the same way."""
    same: dict[tuple[str, ...], list[Mismatch]] = {}
    for m in mismatches:
        # no two matrices have the same RMS to four digits
        measured = "" if m.check in ("init_std", "expert_init") else _short(m.measured)
        same.setdefault((m.check, _short(m.prescribed), measured, m.says), []).append(m)
    rows = [["check", "measured", "prescribed", "times", "parameters"]]
    for (check, prescribed, _, says), found in same.items():
        numbers = [m.measured for m in found if m.measured is not None]
        low, high = (_short(min(numbers)), _short(max(numbers))) if numbers else ("", "")
        mean = sum(numbers) / len(numbers) if numbers else 0.0
        times = f"{mean / found[0].prescribed:.3g}" if numbers and found[0].prescribed else ""
        span = low if low == high else f"{low}..{high}"
        rows.append([check, span, prescribed, times, _who(found) + (f": {says}" if says else "")])
    return rows


def _who(found: Sequence[Mismatch]) -> str:
    """The roles, the number of parameters, and a name if there is one role or none."""
    roles = list(dict.fromkeys(m.role for m in found if m.role))
    names = list(dict.fromkeys(starred(m.parameter) for m in found))
    listed = ", ".join(roles[:4]) + (f" and {len(roles) - 4} more roles" if len(roles) > 4 else "")
    count = f" ({len(found)})" if len(found) > 1 else ""
    first = names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")
    if not roles:
        return first + count
    return listed + count + (f" {first}" if len(roles) == 1 else "")


def _group_rows(groups: Sequence[ParameterGroup]) -> list[list[str]]:
    rows = [["lr", "weight_decay", "eps", "betas", "roles"]]
    for g in groups:
        betas = f"{g.betas[0]:.4g}, {g.betas[1]:.4g}"
        roles = f"{', '.join(g.roles)} ({len(g.parameters)})"
        rows.append([_short(g.lr), _short(g.weight_decay), _short(g.eps), betas, roles])
    return rows


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"  {line}" for line in text_table(rows[0], rows[1:])]


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
