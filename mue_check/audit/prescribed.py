"""What each parameter of a real model should have: the rule's row for its role, with missing multipliers folded in.

Folding is the abc symmetry of Adam (arXiv 2011.14522, 2203.03466). A model that computes m W x and one that computes
W' x with W' = m W are the same function, and the gradient of W is m times that of W'. AdamW's step on W,
lr (m g') / (m |g'| + eps) + lr wd W, moves W' by m times as much: (m lr) g' / (|g'| + eps / m) + (m lr) (wd / m) W'.
So W' trains alike with init std m, learning rate m, weight decay 1/m and eps 1/m times what W has.
"""

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from mue_check.audit.assign import Assignment
from mue_check.audit.multipliers import Multiplier
from mue_check.audit.setup import AuditError
from mue_check.errors import RuleError
from mue_check.judge.audit import RELATIVE_TOLERANCE
from mue_check.rules import RULES, HyperParameters, Prescription, Role, Row
from mue_check.rules.roles import DENSE_FFN, DOWN, EMBEDDINGS
from mue_check.spec import Dense, Experts

FOLDABLE = DOWN | EMBEDDINGS | {Role.ATTENTION_OUT, Role.UNEMBEDDING}
"""Roles whose matrix can take up its multiplier; R goes into the routed experts' down-projection."""


@dataclass(frozen=True, kw_only=True)
class Slot:
    """The values of one parameter; parameters of one role in one form share a slot.

    ``fold`` is the rule's multiplier over the model's own. ``conflict`` says why no values would be right.
    """

    label: str
    role: Role
    row: Row
    fold: float = 1.0
    conflict: str = ""


@dataclass(frozen=True, kw_only=True)
class Form:
    """One multiplier: what the rule wants, what the model has, and how the rest was taken up.

    ``foldable``: the role has matrices of its own that can take it up.
    """

    role: Role
    wanted: float
    present: Multiplier
    foldable: bool = True

    @property
    def fold(self) -> float:
        """Wanted over present; a number that was probed is known to four digits."""
        fold = self.wanted / self.present.value
        return 1.0 if self.present.source == "probed" and math.isclose(fold, 1, rel_tol=1e-4) else fold

    @property
    def word(self) -> str:
        """``none``, ``present``, ``folded``, ``partly folded`` or ``missing`` (where it cannot be folded)."""
        if math.isclose(self.fold, 1, rel_tol=RELATIVE_TOLERANCE):
            return "none" if math.isclose(self.wanted, 1) else "present"
        if not self.foldable:
            return "missing"
        return "folded" if self.present.value == 1 else "partly folded"


class Prescribed:
    """A prescription laid over one model: slot by parameter, and the form of every multiplier."""

    def __init__(
        self,
        prescription: Prescription,
        base: HyperParameters,
        assignments: Mapping[str, Assignment],
        present: Mapping[Role, Multiplier],
        *,
        normed: Collection[Role] = (),
    ) -> None:
        require_target(prescription, assignments)
        self.prescription, self.base = prescription, base
        self._present, self.assignments, self.normed = present, assignments, normed
        self._rows: dict[tuple[Role, int | None], Row] = {}
        self.forms = tuple(self._form(role, a) for role, a in _firsts(assignments).items())
        self.slots = {name: self._slot(a) for name, a in assignments.items() if a.role is not None}

    def _slot(self, a: Assignment) -> Slot:
        assert a.role is not None
        label, carrier = str(a.role), a
        if a.beside is not None and self.assignments[a.beside].role in FOLDABLE:
            # the bias of a branch is multiplied with it
            carrier = self.assignments[a.beside]
            label = f"{a.role} of {carrier.role}"
        fold = 1.0
        if a.role is Role.BIAS and carrier.role is Role.UNEMBEDDING:
            # the rule multiplies what the matrix gives and not this (TP5: an output bias has LR 1)
            fold = 1 / self._present.get(Role.BIAS, Multiplier()).value
        elif carrier.role in FOLDABLE:
            fold = self._fold(carrier.role, carrier)
        slot = Slot(label=label, role=a.role, row=folded(self._row(a.role, a), fold), fold=fold)
        for other in a.also:
            slot = self._tied(slot, other, a)
        return slot

    def _tied(self, slot: Slot, other: Role, a: Assignment) -> Slot:
        """One tensor in two uses: right when both ask for the same values."""
        first, second = slot.row, folded(self._row(other, a), self._fold(other, a))
        label = f"{slot.label} = {other}"
        values = ("init_std", "lr", "weight_decay", "eps")
        if all(_close(getattr(first, v), getattr(second, v)) for v in values):
            return replace(slot, label=label)
        plain = self._row(other, a)
        fold = first.lr / plain.lr
        cure = f"multiply the logits by {self._form(other, a).wanted / fold:.4g} in the model, or untie"
        if not _close(plain.init_std * fold, first.init_std):
            cure = "untie them"  # no one number makes both right
        return replace(
            slot,
            label=label,
            conflict=f"as {slot.label} it has LR {first.lr:.4g}, as {other} LR {second.lr:.4g}, and a multiplier "
            f"cannot be folded into one use alone: {cure}",
        )

    def _fold(self, role: Role, a: Assignment) -> float:
        form = self._form(role, a)
        return form.fold if form.foldable or role in a.also else 1.0

    def _form(self, role: Role, a: Assignment) -> Form:
        present = self._present.get(role, Multiplier())
        if role is Role.ATTENTION_QKV:
            return Form(role=role, wanted=self._attention(), present=present, foldable=False)
        wanted = self._row(role, a).forward_multiplier
        if role is Role.EXPERT_DOWN:
            # A on the branch and R on the weights act on one product; R counts from what the weights sum to by design
            own = self._own_sum()
            wanted *= self.prescription[Role.ROUTER].forward_multiplier * own
            present = present.times(self._present.get(Role.ROUTER, Multiplier(value=own)))
        foldable = role not in a.also and role not in self.normed
        return Form(role=role, wanted=wanted, present=present, foldable=foldable)

    def _own_sum(self) -> float:
        ffn = self.prescription.target.model.feed_forward
        return (ffn.claimed_sum if isinstance(ffn, Experts) else None) or 1.0

    def _attention(self) -> float:
        """The logits' scale over 1/sqrt(d_head), for a reference that was tuned at 1/sqrt(d_head) of its own."""
        p = self.prescription
        ratio = p.reference.model.head_width / p.target.model.head_width
        rule = RULES.get(p.rule)
        own = rule.prescribe(p.reference, p.reference)[Role.ATTENTION_QKV] if rule else None
        multiplier = p[Role.ATTENTION_QKV].forward_multiplier
        return math.sqrt(ratio) * multiplier / (own.forward_multiplier if own else 1.0)

    def _row(self, role: Role, a: Assignment) -> Row:
        """The rule's row; dense layers in a mixture have a prescription of their own, for their own width."""
        hidden = None
        if role in DENSE_FFN and isinstance(self.prescription.target.model.feed_forward, Experts):
            hidden = a.fan_in if role is Role.FFN_DOWN else a.fan_out
        key = (role, hidden)
        if key not in self._rows:
            p = self.prescription if hidden is None else _dense(self.prescription, hidden)
            p[role]  # a RuleError that names what the rule has
            self._rows.update({(Role(row.role), hidden): row for row in p.values(self.base)})
        return self._rows[key]


def folded(row: Row, by: float) -> Row:
    """The row of a matrix that takes up a multiplier ``by``; see the head of this file."""
    return replace(
        row, init_std=row.init_std * by, lr=row.lr * by, weight_decay=row.weight_decay / by, eps=row.eps / by
    )


def require_target(prescription: Prescription, assignments: Mapping[str, Assignment]) -> None:
    """AuditError unless the target describes this model: d, experts and their width, the dense width."""
    model = prescription.target.model
    ffn = model.feed_forward
    experts = ffn if isinstance(ffn, Experts) else None
    for a in assignments.values():
        for what, said, found in _facts(a, model.width, experts, ffn.hidden):
            if said != found:
                raise AuditError(f"the target says {what}={said}, and {a.name} {list(a.shape)} has {found}")
    if experts is not None and all(a.role is not None for a in assignments.values() if a.trainable):
        _require_experts(experts, assignments)


def _require_experts(experts: Experts, assignments: Mapping[str, Assignment]) -> None:
    held = {a.role for a in assignments.values()}
    for count, role in ((experts.total, Role.EXPERT_DOWN), (experts.shared, Role.SHARED_DOWN)):
        if count and role not in held:
            raise AuditError(f"the target says {experts}, and no parameter has the role {role}")
    listed: dict[str, int] = {}
    for a in assignments.values():
        if a.role is Role.EXPERT_DOWN and a.experts is None and a.fan_in == experts.hidden:
            # the last number in the name is the expert's
            layer = re.sub(r"\.\d+(?=\.(?!.*\.\d+\.))", ".*", a.name)
            listed[layer] = listed.get(layer, 0) + 1
    for layer, count in listed.items():
        if count != experts.total:
            raise AuditError(f"the target says N={experts.total}, and there are {count} of {layer}")


def _facts(a: Assignment, width: int, experts: Experts | None, hidden: int) -> list[tuple[str, object, object]]:
    """(what, by the target, by the parameter)."""
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


def _firsts(assignments: Mapping[str, Assignment]) -> dict[Role, Assignment]:
    """The first parameter of each role that can carry a multiplier, also by its second name."""
    out: dict[Role, Assignment] = {}
    for a in assignments.values():
        for role in (a.role, *a.also):
            if role is not None and (role in FOLDABLE or role is Role.ATTENTION_QKV):
                out.setdefault(role, a)
    return out


def _dense(prescription: Prescription, hidden: int) -> Prescription:
    rule = RULES.get(prescription.rule)
    if rule is None:
        raise RuleError(f"rule {prescription.rule!r} is not known by name, and the mixture has dense layers")
    target = replace(prescription.target.model, feed_forward=Dense(hidden=hidden))
    return rule.prescribe(prescription.reference, replace(prescription.target, model=target))


def _close(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=RELATIVE_TOLERANCE)
