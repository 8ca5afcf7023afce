"""How often the true cause of a mistake stands first or second: mistakes that are not among the shipped mutants.

python bench/diagnosis.py STUDY measures the laws of each (tier smoke, about a minute) and prints what is suspected.
"""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from mue_check.catalog import get_tier, summarize
from mue_check.mutants.rules import Change, examine_rule, mutant_rule
from mue_check.questions.question import Findings
from mue_check.questions.values import ValuesFinding
from mue_check.questions.what_next import what_next
from mue_check.rules import Prescription, Role, get_rule
from mue_check.rules.roles import EMBEDDINGS, HIDDEN
from mue_check.study.folder import Study

EXPERTS = (Role.EXPERT_UP, Role.EXPERT_GATE, Role.EXPERT_DOWN)
LAST = (Role.ATTENTION_OUT, Role.FFN_DOWN, Role.EXPERT_DOWN)
ATTENTION = (Role.ATTENTION_QKV, Role.ATTENTION_OUT)


def rho(p: Prescription) -> float:
    return p.target.model.width / p.reference.model.width


def depths(p: Prescription) -> float:
    return p.target.model.depth / p.reference.model.depth


def times(roles: object, factor: str, by: Callable[[Prescription], float]) -> Change:
    """Multiply one factor of these roles."""

    def change(p: Prescription) -> Prescription:
        for role in roles:  # type: ignore[attr-defined]
            if role in p.factors:
                p = p.with_factors(role, **{factor: getattr(p[role], factor) * by(p)})
        return p

    return change


MISTAKES: dict[str, tuple[str, str, Change]] = {
    "emb_rate": ("width", "embedding rate", times(EMBEDDINGS, "lr", lambda p: 1 / rho(p))),
    "emb_init": ("width", "embedding rate", times(EMBEDDINGS, "init_std", lambda p: rho(p) ** -0.5)),
    "readout_rate": ("width", "readout", times([Role.UNEMBEDDING], "lr", lambda p: 1 / rho(p))),
    "readout_multiplier": ("width", "readout", times([Role.UNEMBEDDING], "forward_multiplier", rho)),
    "hidden_init": ("width", "hidden init", times(HIDDEN, "init_std", lambda p: rho(p) ** 0.5)),
    "attention_rate": ("width", "hidden rate", times(ATTENTION, "lr", rho)),
    "hidden_rate_sqrt": ("width", "hidden rate", times(HIDDEN, "lr", lambda p: rho(p) ** 0.5)),
    "gains": ("width", "gains and biases", times([Role.NORM_GAIN], "lr", rho)),
    "router_init": ("width_of_mixture", "router rate", times([Role.ROUTER], "init_std", lambda p: rho(p) ** 0.5)),
    "expert_rate": ("width_of_mixture", "hidden rate", times(EXPERTS, "lr", rho)),
    "residual_sqrt": ("depth", "residual multiplier", times(LAST, "forward_multiplier", lambda p: depths(p) ** 0.5)),
    "depth_rate": ("depth", "hidden rate", times(HIDDEN, "lr", lambda p: 1 / depths(p))),
    "depth_init": ("depth", "hidden init", times(LAST, "init_std", lambda p: depths(p) ** -0.5)),
    "R_doubled": ("activated_experts", "expert multipliers", times([Role.ROUTER], "forward_multiplier", lambda p: 2)),
    "A_not_on_shared": (
        "shared_experts",
        "expert multipliers",
        times([Role.SHARED_DOWN], "forward_multiplier", lambda p: p.target.model.expansion),
    ),
    "shared_init": (
        "shared_experts",
        "down init",
        times([Role.SHARED_DOWN], "init_std", lambda p: p.target.model.expansion**-0.5),
    ),
    "attention_scale": (
        "width_of_heads",
        "attention scale",
        times([Role.ATTENTION_QKV], "forward_multiplier", lambda p: p.target.model.head_width / 16),
    ),
}
"""Ladder, true cause, and the mistake."""


def main(root: Path) -> None:
    rule = get_rule("complete_mue")
    study = Study(root=root, tier=get_tier("smoke"), corpus="markov", rule=rule, tolerance=0.5, command="bench")
    study.store.prepare()
    for name, (ladder, _, change) in MISTAKES.items():
        mutant = mutant_rule(change, ladder=ladder, law="a law", name=name, summary=name)
        examine_rule(study, mutant, ["scales", "audit"])
    summary = summarize(root)
    laws = tuple(f for f in summary.findings.found if not isinstance(f, ValuesFinding))
    for label, known in (("laws and values", summary), ("laws alone", replace(summary, findings=Findings(laws)))):
        places = []
        for found in what_next(known):
            names, true = [s.cause.name for s in found.suspects], MISTAKES[found.rule][1]
            places.append(names.index(true) if true in names else len(names) + 9)
            print(f"{found.rule} ({true}): {', '.join(names)}")
        print(f"{label}: first {places.count(0)}, first or second {sum(p < 2 for p in places)} of {len(places)}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
