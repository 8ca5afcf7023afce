"""The values that each parameter of a real model should have: the rule's row, with missing multipliers folded in.

Folding is the abc symmetry of Adam (arXiv 2011.14522, 2203.03466). A model that computes m W x and one that computes
W' x with W' = m W are the same function, and the gradient of W is m times that of W'. AdamW's step on W,
lr (m g') / (m |g'| + eps) + lr wd W, moves W' by m times as much: (m lr) g' / (|g'| + eps / m) + (m lr) (wd / m) W'.
So W' trains the same with m times the init std and learning rate, and 1/m times the weight decay and eps of W.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import nn

from mue_check.audit.multipliers import Multiplier, declared_multipliers, find_multipliers
from mue_check.audit.probe import ProbeResult, probe_model
from mue_check.audit.report import MultiplierRow
from mue_check.audit.roles import Assignment, assign_roles
from mue_check.audit.setup import AuditError
from mue_check.errors import RuleError
from mue_check.judge.audit import RELATIVE_TOLERANCE
from mue_check.rules import RULES, HyperParameters, Prescription, Role, Row
from mue_check.rules.roles import DENSE_FFN, DOWN, EMBEDDINGS
from mue_check.spec import Dense, Experts

FOLDABLE = DOWN | EMBEDDINGS | {Role.ATTENTION_OUT, Role.UNEMBEDDING}
"""Roles whose matrix can absorb its multiplier; R is folded into the routed experts' down-projection."""


@dataclass(frozen=True, kw_only=True)
class Expected:
    """The prescribed values of one parameter.

    ``fold`` is the rule's multiplier over the model's. ``conflict`` says why no values would be right.
    """

    label: str
    role: Role
    row: Row
    fold: float = 1.0
    conflict: str = ""


class ModelPrescription:
    """A prescription for one model: expected values by parameter, and the form of every multiplier."""

    def __init__(
        self,
        prescription: Prescription,
        base: HyperParameters,
        assignments: Mapping[str, Assignment],
        present: Mapping[Role, Multiplier],
        probed: ProbeResult,
        declared: Mapping[Role, float],
    ) -> None:
        require_target(prescription, assignments)
        self.prescription, self.base, self.assignments = prescription, base, assignments
        self.declared, self.probed, self._present = declared, probed, present
        self._rows: dict[tuple[Role, int | None], Row] = {}
        carriers: dict[Role, Assignment] = {}
        for a in assignments.values():
            for role in a.roles:
                if role in FOLDABLE or role is Role.ATTENTION_QKV:
                    carriers.setdefault(role, a)
        self.forms = tuple(self._form(role, a) for role, a in carriers.items())
        self.expected = {name: self._expected(a) for name, a in assignments.items() if a.role is not None}

    @classmethod
    def of(
        cls,
        model: nn.Module,
        prescription: Prescription,
        base: HyperParameters,
        *,
        roles: Mapping[str, str] | None,
        multipliers: Mapping[str, float] | None,
        probe: bool,
    ) -> "ModelPrescription":
        """Find the model's roles and multipliers first; arguments as in ``audit_model``."""
        assignments = assign_roles(model, roles)
        declared = declared_multipliers(model, multipliers)
        probed = probe_model(model, assignments, prescription.target) if probe else ProbeResult()
        if probed.tied:
            assignments = {
                name: replace(a, tied_roles=(*a.tied_roles, Role.UNEMBEDDING)) if a.role is Role.TOKEN_EMBEDDING else a
                for name, a in assignments.items()
            }
        present = find_multipliers(model, assignments, declared, probed)
        return cls(prescription, base, assignments, present, probed, declared)

    def _expected(self, a: Assignment) -> Expected:
        assert a.role is not None
        label, carrier = str(a.role), a
        if a.bias_of is not None and self.assignments[a.bias_of].role in FOLDABLE:
            # a branch's multiplier acts on its bias too
            carrier = self.assignments[a.bias_of]
            label = f"{a.role} of {carrier.role}"
        fold = 1.0
        if a.role is Role.BIAS and carrier.role is Role.UNEMBEDDING:
            # the rule multiplies the matrix's output and not the bias (TP5: an output bias has LR 1)
            fold = 1 / self._present.get(Role.BIAS, Multiplier()).value
        elif carrier.role in FOLDABLE:
            fold = self._fold(carrier.role, carrier)
        expected = Expected(label=label, role=a.role, row=folded(self._row(a.role, a), fold), fold=fold)
        for other in a.tied_roles:
            expected = self._tied(expected, other, a)
        return expected

    def _tied(self, expected: Expected, other: Role, a: Assignment) -> Expected:
        """One tensor with two roles: right if both prescribe the same values."""
        plain = self._row(other, a)
        first, second = expected.row, folded(plain, self._fold(other, a))
        label = f"{expected.label} = {other}"
        values = ("init_std", "lr", "weight_decay", "eps")
        if all(_close(getattr(first, v), getattr(second, v)) for v in values):
            return replace(expected, label=label)
        fold = first.lr / plain.lr
        cure = f"multiply the logits by {self._form(other, a).wanted / fold:.4g} in the model, or untie"
        if not _close(plain.init_std * fold, first.init_std):
            cure = "untie them"  # no single multiplier makes both right
        conflict = (
            f"as {expected.label} it has LR {first.lr:.4g}, as {other} LR {second.lr:.4g}, and a multiplier cannot be "
            f"folded into one role alone: {cure}"
        )
        return replace(expected, label=label, conflict=conflict)

    def _fold(self, role: Role, a: Assignment) -> float:
        # a norm at the end of a branch undoes what its matrix absorbs
        return self._form(role, a).fold if role in a.tied_roles or role not in self.probed.normed else 1.0

    def _form(self, role: Role, a: Assignment) -> MultiplierRow:
        present = self._present.get(role, Multiplier())
        if role is Role.ATTENTION_QKV:
            return _multiplier_row(role, attention_scale(self.prescription), present, foldable=False)
        wanted = self._row(role, a).forward_multiplier
        if role is Role.EXPERT_DOWN:
            # A on the branch and R on the weights act as one product; R is relative to the sum that the router claims
            claimed = claimed_sum(self.prescription)
            wanted *= self.prescription[Role.ROUTER].forward_multiplier * claimed
            present = present.times(self._present.get(Role.ROUTER, Multiplier(value=claimed)))
        foldable = role not in a.tied_roles and role not in self.probed.normed
        return _multiplier_row(role, wanted, present, foldable=foldable)

    def _row(self, role: Role, a: Assignment) -> Row:
        """The rule's row. Dense layers of a mixture have a separate prescription, at their own width."""
        hidden = None
        if role in DENSE_FFN and isinstance(self.prescription.target.model.feed_forward, Experts):
            hidden = a.fan_in if role is Role.FFN_DOWN else a.fan_out
        key = (role, hidden)
        if key not in self._rows:
            p = self.prescription if hidden is None else _dense(self.prescription, hidden)
            p[role]  # raises a RuleError that lists the rule's roles
            self._rows.update({(Role(row.role), hidden): row for row in p.values(self.base)})
        return self._rows[key]


def _multiplier_row(role: Role, wanted: float, present: Multiplier, *, foldable: bool) -> MultiplierRow:
    fold = wanted / present.value
    if present.source == "probed" and math.isclose(fold, 1, rel_tol=1e-4):
        fold = 1.0  # a probed number is only known to four digits
    if math.isclose(fold, 1, rel_tol=RELATIVE_TOLERANCE):
        form = "none" if math.isclose(wanted, 1) else "present"
    elif not foldable:
        form = "missing"
    else:
        form = "folded" if present.value == 1 else "partly folded"
    return MultiplierRow(
        role=str(role), wanted=wanted, present=present.value, source=present.source, form=form, fold=fold
    )


def claimed_sum(p: Prescription) -> float:
    """The sum of a token's weights that the target's router claims; 1 if it claims none."""
    ffn = p.target.model.feed_forward
    return (ffn.claimed_sum if isinstance(ffn, Experts) else None) or 1.0


def attention_scale(p: Prescription) -> float:
    """The logits' scale over 1/sqrt(d_head); the reference was tuned at 1/sqrt of its own d_head."""
    ratio = p.reference.model.head_width / p.target.model.head_width
    rule = RULES.get(p.rule)
    own = rule.prescribe(p.reference, p.reference)[Role.ATTENTION_QKV] if rule else None
    multiplier = p[Role.ATTENTION_QKV].forward_multiplier
    return math.sqrt(ratio) * multiplier / (own.forward_multiplier if own else 1.0)


def folded(row: Row, by: float) -> Row:
    """The row of a matrix that absorbs a multiplier ``by``; see the module's docstring."""
    return replace(
        row, init_std=row.init_std * by, lr=row.lr * by, weight_decay=row.weight_decay / by, eps=row.eps / by
    )


def require_target(prescription: Prescription, assignments: Mapping[str, Assignment]) -> None:
    """AuditError unless the target describes this model: d, experts and their width, the dense width."""
    model = prescription.target.model
    ffn = model.feed_forward
    experts = ffn if isinstance(ffn, Experts) else None
    for a in assignments.values():
        for what, claimed, actual in _facts(a, model.width, experts, ffn.hidden):
            if claimed != actual:
                give = ""
                if experts is not None and a.role is Role.SHARED_DOWN and a.fan_in and a.fan_in % experts.hidden == 0:
                    give = f": pass --target {replace(experts, shared=a.fan_in // experts.hidden).notation}"
                raise AuditError(f"the target says {what}={claimed}, but {a.name} {list(a.shape)} has {actual}{give}")
    certain = all(a.role is not None and not a.swallowed for a in assignments.values() if a.trainable)
    if experts is not None and certain:
        _require_experts(experts, assignments)


def _require_experts(experts: Experts, assignments: Mapping[str, Assignment]) -> None:
    roles = {a.role for a in assignments.values()}
    for count, role in ((experts.total, Role.EXPERT_DOWN), (experts.shared, Role.SHARED_DOWN)):
        if count and role not in roles:
            raise AuditError(f"the target says {experts}, but no parameter has the role {role}")
    listed: dict[str, int] = {}  # experts in a list of modules, by layer
    for a in assignments.values():
        if a.role is Role.EXPERT_DOWN and a.experts is None and a.fan_in == experts.hidden:
            # the last number in the name is the expert's
            numbered = r"(?<=\.weight)\d+$" if re.search(r"\.weight\d+$", a.name) else r"(?<=\.)\d+(?=\.(?!.*\.\d+\.))"
            layer = re.sub(numbered, "*", a.name)
            listed[layer] = listed.get(layer, 0) + 1
    for layer, count in listed.items():
        if count != experts.total:
            raise AuditError(f"the target says N={experts.total}, but there are {count} of {layer}")


def _facts(a: Assignment, width: int, experts: Experts | None, hidden: int) -> list[tuple[str, object, object]]:
    """(quantity, by the target, by the parameter)."""
    if a.role is Role.TOKEN_EMBEDDING:
        return [("d", width, a.shape[-1])]
    if a.role is Role.FFN_DOWN and experts is None:
        return [("H", hidden, a.fan_in)]
    if a.role not in (Role.EXPERT_DOWN, Role.SHARED_DOWN):
        return []
    if experts is None:
        return [("experts", "none (a dense feed-forward)", "experts")]
    if a.role is Role.SHARED_DOWN:
        return [("s h (width of all shared experts)", experts.shared * experts.hidden, a.fan_in)] if a.fan_in else []
    facts: list[tuple[str, object, object]] = [("N", experts.total, a.experts)] if a.experts else []
    flat = a.fan_in == experts.total * experts.hidden  # all experts in one matrix [N h, d]
    return facts if flat else [*facts, ("h", experts.hidden, a.fan_in)]


def _dense(prescription: Prescription, hidden: int) -> Prescription:
    rule = RULES.get(prescription.rule)
    if rule is None:
        raise RuleError(f"rule {prescription.rule!r} is not a named rule, which the dense layers of a mixture need")
    target = replace(prescription.target.model, feed_forward=Dense(hidden=hidden))
    return rule.prescribe(prescription.reference, replace(prescription.target, model=target))


def _close(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=RELATIVE_TOLERANCE)
