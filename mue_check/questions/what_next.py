"""What next: where a drift, a law or a value fails, the likely causes from all that a study knows of that ladder."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mue_check.axes.ladder import BY_GROUP
from mue_check.judge import diagnosis as signs
from mue_check.judge.diagnosis import Suspect, suspects
from mue_check.judge.law import Law
from mue_check.judge.verdict import Verdict, meets
from mue_check.questions.display import grouped
from mue_check.questions.drift import DriftFinding
from mue_check.questions.question import Finding, QuestionKind
from mue_check.questions.scales import ScalesFinding
from mue_check.questions.summary import Summary
from mue_check.questions.values import ValuesFinding
from mue_check.report.format import in_words
from mue_check.report.section import Part, Section
from mue_check.report.table import make_table
from mue_check.rules.knob import GROUPS, group_of, quantity_of
from mue_check.rules.roles import parse_role

_AXES = {
    "width": signs.WIDTH,
    "width_of_mixture": signs.WIDTH,
    "width_of_heads": signs.HEADS,
    "depth": signs.DEPTH,
    "batch_at_fixed_steps": signs.BATCH,
    "batch_at_fixed_tokens": signs.BATCH,
    "duration_at_fixed_batch": signs.DURATION,
    "heldout": signs.SEVERAL,
}
"""By ladder; all others change the experts alone."""
_ACTIVATIONS = {
    ("ffn_branch", True): signs.FFN_DRAWN,
    ("attention_branch", True): signs.ATTENTION_DRAWN,
    ("logits", True): signs.LOGITS_DRAWN,
    ("attention_logits", True): signs.ATTENTION_LOGITS,
    ("logits", False): signs.LOGITS_MOVE,
    ("router_logits", False): signs.ROUTER_LOGITS,
}
"""By coordinate, and whether it is wrong at initialization; what else moves wrongly is a branch or the stream."""


@dataclass(frozen=True, kw_only=True)
class WhatNext:
    """The suspects for one rule on one ladder. ``surprising``: an answer there is against its expected verdict."""

    ladder: str
    rule: str
    failed: str
    surprising: bool
    suspects: tuple[Suspect, ...]


class WhatNextKind(QuestionKind):
    """The likely causes of what fails, after everything was judged."""

    label = "what next"

    def headlines(self, summary: Summary) -> list[str]:
        """The causes of what fails against its expected verdict."""
        lines = []
        for found in what_next(summary):
            if found.surprising and found.suspects:
                lines.append(
                    f"what next, {in_words(found.ladder)}, {found.rule}: {found.failed}. In order of likelihood:"
                )
                lines += [f"  {at}. {suspect}" for at, suspect in enumerate(found.suspects, start=1)]
        return lines

    def sections(self, summary: Summary) -> Iterator[Section]:
        """A table of all that fails, wrong rules and mutants included."""
        found = [each for each in what_next(summary) if each.suspects]
        if not found:
            return
        columns = {
            "axis": lambda each: in_words(each.ladder),
            "rule or mutant": lambda each: each.rule,
            "what fails": lambda each: each.failed,
            "likeliest": lambda each: each.suspects[0].cause.says,
            "what decides it": lambda each: each.suspects[0].cause.command,
            "then": lambda each: "; ".join(suspect.cause.name for suspect in each.suspects[1:]),
        }
        table = make_table("Likely causes, in order", found, columns)
        text = "Found from the axis, the laws, the sweeps of groups and the values, without knowing the rule."
        yield Section(part=Part.DETAILS, anchor="next", title="What next", text=text, tables=(table,))


def what_next(summary: Summary) -> list[WhatNext]:
    """One for each ladder and rule with a failure, in the order of the report."""
    kinds = (DriftFinding, ScalesFinding, ValuesFinding)
    found = [f for f in summary.findings.found if isinstance(f, kinds) and not f.comparison.is_control]
    out = []
    for (ladder, rule), group in grouped(
        found, lambda f: (f.comparison.ladder.removesuffix(BY_GROUP), f.comparison.rule)
    ):
        failed = [f for f in group if f.verdict is Verdict.FAIL]
        if failed:
            names = {DriftFinding: "drift", ScalesFinding: "laws", ValuesFinding: "values"}
            surprising = any(f.comparison.expected and not meets(Verdict.FAIL, f.comparison.expected) for f in failed)
            out.append(
                WhatNext(
                    ladder=ladder,
                    rule=rule,
                    failed=f"{', '.join(dict.fromkeys(names[type(f)] for f in failed))} FAIL",
                    surprising=surprising,
                    suspects=tuple(suspects(set(_signs(ladder, group)))),
                )
            )
    return out


def _signs(ladder: str, found: Sequence[Finding]) -> Iterator[str]:
    """What was found of one rule on one ladder."""
    yield _AXES.get(ladder, signs.EXPERTS)
    laws = [result for f in found if isinstance(f, ScalesFinding) for result in f.results]
    failed = [result.law for result in laws if result.verdict is Verdict.FAIL]
    if not laws:
        yield signs.UNKNOWN
    elif not failed:
        yield signs.HOLD
    for law in failed:
        yield _of_law(law)
    steps = [law for law in (result.law for result in laws) if _role_of(law) and law.quantity == "change"]
    if steps and not any(law in failed for law in steps):
        yield signs.STEPS_HOLD
    if any(r.law.coordinate == "ffn_branch" and r.law.quantity == "change" and r.law not in failed for r in laws):
        yield signs.FFN_HOLDS
    starts = [r.law for r in laws if r.law.coordinate.endswith("_branch") and r.law.quantity == "rms"]
    if starts and not any(law in failed for law in starts):
        yield signs.BRANCHES_START
    for f in found:
        if isinstance(f, DriftFinding) and f.verdict is Verdict.FAIL:
            knob = f.comparison.knob
            yield signs.drift_of(group_of(knob) or quantity_of(knob))
        if isinstance(f, ValuesFinding):
            for offence in f.audit.offences:
                value = "betas" if offence.value.startswith("beta") else offence.value
                yield signs.off(_group_of(offence.role), value)


def _of_law(law: Law) -> str:
    if role := _role_of(law):
        group = _group_of(role)
        return signs.drawn(group) if law.quantity == "rms" else signs.stepped(group)
    return _ACTIVATIONS.get((law.coordinate, law.quantity == "rms"), signs.MOVES)


def _group_of(role: str) -> str:
    """embedding, hidden, router, unembedding or vector."""
    known = parse_role(role)
    group = next((name for name, roles in GROUPS.items() if known in roles), "vector")
    return "hidden" if group in ("attention", "feed_forward") else group


def _role_of(law: Law) -> str:
    """The role whose weights a law is about; empty for an activation."""
    return law.coordinate.removeprefix("weight.") if law.coordinate.startswith("weight.") else ""
