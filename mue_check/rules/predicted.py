"""Predicted shifts: how far a mistake in a prescription moves the optimum of a knob, in octaves.

A branch whose output is m times too large, with learning rates that are s_i times too large, moves the optimum of what
it learns. With Adam, what a matrix learns is proportional to its learning rate alone:

* a multiplier moves by log2(m): the branch is m times as large at every value;
* the feed-forward is a product of three learned matrices (up, gate, down), so its learning rate moves by a third of
  log2(m s_up s_gate s_down);
* what attention writes is a product of two (values and output), so its learning rate moves by a half;
* an embedding or the unembedding is one matrix, and moves by the whole.

Normalization makes the stream's scale irrelevant: branches that are all m times too large are as embeddings that are
too small. So a factor that all branches share does not move their own optima, but that of the embedding.

These hold where what was learned outweighs what was drawn at init, and one wrong branch is the only mistake. Mistakes
in init, eps, betas and decay are not predicted.
"""

import math
from collections.abc import Sequence

from mue_check.rules.knob import GROUPS, Knob, group_of, quantity_of
from mue_check.rules.prescription import Prescription
from mue_check.rules.roles import VECTORS, Role
from mue_check.spec import Experts


def predicted_shift(knob: Knob, right: Prescription, tested: Prescription) -> float | None:
    """Octaves by which the optimal base value of ``knob`` lies higher under ``tested`` than under ``right``, for one
    target; None where nothing is predicted."""
    if right.factors == tested.factors:
        return 0.0
    errors = _Errors(right, tested)
    match quantity_of(knob), group_of(knob):
        case "lr", "":
            return errors.common("lr")
        case "lr", "feed_forward":
            return -(errors.feed_forward() - errors.all_branches()) / 3
        case "lr", "attention":
            written = errors.of("forward_multiplier", Role.ATTENTION_OUT) - errors.all_branches()
            return -(written + errors.of("lr", Role.ATTENTION_QKV) + errors.of("lr", Role.ATTENTION_OUT)) / 2
        case "lr", "unembedding":
            return -errors.of("lr", Role.UNEMBEDDING) - errors.of("forward_multiplier", Role.UNEMBEDDING)
        case "lr", "embedding":
            return errors.all_branches() - errors.of("lr", Role.TOKEN_EMBEDDING)
        case "lr", "patch_embedding":
            return errors.all_branches() - errors.of("lr", Role.PATCH_EMBEDDING)
        case "lr", "router":
            return -errors.of("lr", Role.ROUTER)
        case "multiplier", "feed_forward" if errors.rates_are_right("feed_forward"):
            return errors.all_branches() - errors.feed_forward()
        case "multiplier", "attention" if errors.rates_are_right("attention"):
            return errors.all_branches() - errors.of("forward_multiplier", Role.ATTENTION_OUT)
        case "multiplier", ("embedding" | "patch_embedding") as group if errors.rates_are_right(group):
            return errors.all_branches()
        case "multiplier", "unembedding" if errors.rates_are_right("unembedding"):
            return -errors.of("forward_multiplier", Role.UNEMBEDDING)
    return None


class _Errors:
    """log2 of a tested factor over the right one, by role."""

    def __init__(self, right: Prescription, tested: Prescription) -> None:
        self.right, self.tested = right, tested

    def of(self, name: str, role: Role) -> float:
        """Of one role; 0 where the target does not have it."""
        if role not in self.right.factors:
            return 0.0
        return math.log2(getattr(self.tested[role], name) / getattr(self.right[role], name))

    def common(self, name: str) -> float | None:
        """Minus the error that all matrices share; None if they differ or a multiplier is wrong, too."""
        matrices = [role for role in self.right.factors if role not in VECTORS]
        errors = {round(self.of(name, role), 9) for role in matrices}
        multipliers = {round(self.of("forward_multiplier", role), 9) for role in matrices}
        return -errors.pop() if len(errors) == 1 and multipliers == {0.0} else None

    def all_branches(self) -> float:
        """Of the multipliers of all branches; 0 unless attention and feed-forward share one."""
        attention = self.of("forward_multiplier", Role.ATTENTION_OUT)
        same = math.isclose(attention, self.feed_forward("forward_multiplier"), abs_tol=1e-9)
        return attention if same else 0.0

    def rates_are_right(self, group: str) -> bool:
        """Whether no learning rate of the group is wrong: a multiplier cannot make up for one."""
        return all(math.isclose(self.of("lr", role), 0, abs_tol=1e-9) for role in GROUPS[group])

    def feed_forward(self, *names: str) -> float:
        """Of what the branch learns: its multiplier times its three learning rates, or the product of these factors.

        Routed and shared experts have each their own. Together they count by their share of the active width.
        """
        names = names or ("forward_multiplier", "lr")
        model = self.right.target.model
        if not isinstance(model.feed_forward, Experts):
            return self._product(names, Role.FFN_UP, Role.FFN_GATE, Role.FFN_DOWN)
        routed = self._product(names, Role.EXPERT_UP, Role.EXPERT_GATE, Role.EXPERT_DOWN)
        routed += self.of("forward_multiplier", Role.ROUTER)
        experts = model.feed_forward
        share = experts.activated * experts.hidden / experts.active_width
        shared = self._product(names, Role.SHARED_UP, Role.SHARED_GATE, Role.SHARED_DOWN)
        return math.log2(share * 2**routed + (1 - share) * 2**shared)

    def _product(self, names: Sequence[str], *roles: Role) -> float:
        return sum(self.of(name, role) for name in names for role in roles)


def predicted_drift(
    knob: Knob, reference: tuple[Prescription, Prescription], target: tuple[Prescription, Prescription]
) -> float | None:
    """The drift from a reference to a target under a tested prescription, in octaves; None where none is predicted.

    Each pair is (right, tested): what the right rule prescribes for this rung, and what is tested.
    """
    before, after = predicted_shift(knob, *reference), predicted_shift(knob, *target)
    return None if before is None or after is None else after - before
