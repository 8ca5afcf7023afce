"""What next: from what failed and what held to the likely causes, in order, each with the command that decides it.

A sign is one thing that was measured, in words. A cause has weights for signs, or for several signs together; the
likelier cause has the larger sum. The weights follow from what each mistake does to activations, updates and optima.
They order causes and are no probabilities; docs/suites.md says how often the true one comes first.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

Signs = tuple[str, ...]
LR, HOLD, UNKNOWN = "drift of lr", "laws hold", "no laws"
WIDTH, HEADS, DEPTH, BATCH, DURATION, EXPERTS, SEVERAL = (
    f"axis {name}" for name in ("width", "heads", "depth", "batch", "duration", "experts", "several")
)
STEPS_HOLD, MOVES = "first updates hold", "branches or stream move wrongly"
LOGITS_DRAWN, LOGITS_MOVE = "logits wrong at init", "logits move wrongly"
FFN_DRAWN, ATTENTION_DRAWN = "feed-forward branch wrong at init", "attention branch wrong at init"
ROUTER_LOGITS, ATTENTION_LOGITS = "router logits move wrongly", "attention logits wrong at init"
FFN_HOLDS, BRANCHES_START = "feed-forward branch moves as it should", "branches start as they should"


def drift_of(group: str) -> str:
    """The sign that the optimum of a group's value drifts, or of a value other than the learning rate."""
    return f"drift of {group}"


def drawn(group: str) -> str:
    """The sign that a group's weights start at a wrong scale."""
    return f"{group} weights wrong at init"


def stepped(group: str) -> str:
    """The sign that the first update of a group's weights is wrong, which in Adam is its learning rate."""
    return f"{group} weights make wrong updates"


def off(group: str, value: str) -> str:
    """The sign that the optimizer applies another value to a group than prescribed."""
    return f"{group} {value} not as prescribed"


@dataclass(frozen=True, kw_only=True)
class Cause:
    """One mistake: what it says of the set-up, the command that decides it, and weights by the signs it needs."""

    name: str
    says: str
    command: str
    weights: Mapping[Signs, float]


_AUDIT = "mue_check audit FACTORY --reference SPEC --target SPEC"
CAUSES = (
    Cause(
        name="base shapes",
        says="nothing follows the width: the target is taken for its own reference",
        command="mue_check model MODULE --axis width",
        weights={(stepped("hidden"), LOGITS_DRAWN): 6, (WIDTH, LR, UNKNOWN): 1},
    ),
    Cause(
        name="hidden rate",
        says="the learning rate of hidden matrices, experts included, does not scale as prescribed",
        command=_AUDIT,
        weights={
            (stepped("hidden"),): 5,
            (off("hidden", "lr"),): 4,
            (DEPTH, MOVES, BRANCHES_START): 4,
            (EXPERTS, MOVES, BRANCHES_START): 4,
            (HEADS, MOVES): 3,
            (SEVERAL, LR): 1,
            (WIDTH, LR, UNKNOWN): 3,
            (WIDTH, drift_of("feed_forward")): 3,
            (EXPERTS, drift_of("feed_forward")): 1,
            (WIDTH, drift_of("attention")): 3,
        },
    ),
    Cause(
        name="schedule",
        says="the schedule overwrites the groups' rates, or warm-up and decay do not follow the run",
        command=f"{_AUDIT},T=STEPS",
        weights={
            (STEPS_HOLD, MOVES): 4,
            (LR, HOLD): 3,
            (LR, UNKNOWN): 2.5,
            (DURATION, LR): 1,
            (off("scheduled", "lr"),): 6,
        },
    ),
    Cause(
        name="decay convention",
        says="weight decay follows another convention: coupled or decoupled, per step or per learning rate",
        command="pytest suites/ --knob weight_decay; " + _AUDIT,
        weights={
            (drift_of("weight_decay"),): 4,
            (LR, HOLD): 2.5,
            (LR, UNKNOWN): 2,
            (off("hidden", "weight_decay"),): 5,
            (off("hidden", "weight_decay"), off("hidden", "lr")): -4,  # decay is prescribed with the rate
        },
    ),
    Cause(
        name="embedding rate",
        says="the embeddings' learning rate or init follows the width, which it should not",
        command="pytest suites/test_width.py --knob lr:embedding",
        weights={
            (stepped("embedding"),): 5,
            (drawn("embedding"),): 5,
            (off("embedding", "lr"),): 3,
            (off("embedding", "init_std"),): 3,
            (drift_of("embedding"),): 4,
            (WIDTH, LR, HOLD): 2,
            (WIDTH, LR, UNKNOWN): 1,
        },
    ),
    Cause(
        name="readout",
        says="the readout is tied, or mixes two forms of multiplier, init and learning rate",
        command="mue_check model MODULE --axis width; pytest suites/test_width.py --knob lr:unembedding",
        weights={
            (LOGITS_DRAWN,): 4,
            (drawn("unembedding"),): 4,
            (stepped("unembedding"),): 4,
            (LOGITS_MOVE,): 2,
            (STEPS_HOLD, LOGITS_MOVE): 2,
            (off("unembedding", "lr"),): 3,
            (off("unembedding", "init_std"),): 3,
            (drift_of("unembedding"),): 4,
            (WIDTH, LR, HOLD): 1.5,
            (WIDTH, LR, UNKNOWN): 0.5,
        },
    ),
    Cause(
        name="batch factors",
        says="learning rate, eps, betas or decay do not follow batch and duration by their square root",
        command=f"{_AUDIT},B=TOKENS,T=STEPS",
        weights={
            (BATCH, LR): 5,
            (DURATION, LR): 5,
            (LR, HOLD): 0.5,
            **{(axis, off("hidden", value)): 5 for axis in (BATCH, DURATION) for value in ("lr", "eps", "betas")},
            **{(axis, off("hidden", "weight_decay")): 4 for axis in (BATCH, DURATION)},
        },
    ),
    Cause(
        name="residual multiplier",
        says="a branch lacks 1/m_L, or has it twice",
        command="mue_check model MODULE --axis depth",
        weights={
            **{(axis, sign): 4 for axis in (DEPTH, SEVERAL) for sign in (FFN_DRAWN, ATTENTION_DRAWN)},
            (SEVERAL, FFN_DRAWN): 1,  # experts alone do that too
            (DEPTH, MOVES): 2,
            (DEPTH, MOVES, BRANCHES_START): -1,  # a multiplier is seen at the start too
            (DEPTH, LR): 3,
            (DEPTH, drift_of("feed_forward")): 3,
            (DEPTH, drift_of("attention")): 3,
        },
    ),
    Cause(
        name="expert multipliers",
        says="the branch lacks A = d/H_act, or R does not fit the sum of the routed weights or scales shared experts",
        command="mue_check block FACTORY; pytest suites/test_activated_experts.py --knob lr:feed_forward",
        weights={
            (EXPERTS, FFN_DRAWN): 4,
            (SEVERAL, FFN_DRAWN): 4,
            (EXPERTS, FFN_DRAWN, MOVES): 2,
            (EXPERTS, drift_of("feed_forward")): 5,
            (EXPERTS, LR): 3,
        },
    ),
    Cause(
        name="down init",
        says="the experts' down-projection starts at another scale than (H_act/d)^1/2",
        command=_AUDIT,
        weights={
            (EXPERTS, FFN_DRAWN): 4,
            (EXPERTS, FFN_DRAWN, FFN_HOLDS): 3,
            (SEVERAL, FFN_DRAWN): 1,
            (EXPERTS, off("hidden", "init_std")): 3,
            (EXPERTS, drift_of("init_std")): 3,
        },
    ),
    Cause(
        name="hidden init",
        says="the init of hidden matrices does not follow their width",
        command=_AUDIT,
        weights={
            (drawn("hidden"),): 5,
            (DEPTH, FFN_DRAWN, FFN_HOLDS): 3,
            (off("hidden", "init_std"),): 3,
            (HOLD, drift_of("init_std")): 3,
        },
    ),
    Cause(
        name="router rate",
        says="the router has the learning rate or init of another group",
        command=_AUDIT,
        weights={
            (stepped("router"),): 4.5,
            (drawn("router"),): 4.5,
            (off("router", "lr"),): 2,
            (off("router", "lr"), off("hidden", "lr")): -2,
            (stepped("router"), stepped("hidden")): -4,  # then it is no mistake of the router
            (ROUTER_LOGITS,): 2,
            (drift_of("router"),): 4,
        },
    ),
    Cause(
        name="attention scale",
        says="attention logits do not scale with 1/d_head",
        command="mue_check model MODULE --axis heads",
        weights={(ATTENTION_LOGITS,): 5, (HEADS, LR): 3, (HEADS, MOVES): 1},
    ),
    Cause(
        name="gains and biases",
        says="norm gains or biases have a rate or start of their own",
        command=_AUDIT,
        weights={(stepped("vector"),): 4, (drawn("vector"),): 4, (off("vector", "lr"),): 1},
    ),
)
"""Where two are equally likely, the first here is named first: the one that people meet more often."""


@dataclass(frozen=True, kw_only=True)
class Suspect:
    """A cause, and the signs that speak for it."""

    cause: Cause
    because: Signs

    def __str__(self) -> str:
        return f"{self.cause.name}: {self.cause.says} ({', '.join(self.because)}). Decide: {self.cause.command}"


def suspects(signs: Collection[str], most: int = 3) -> list[Suspect]:
    """The likely causes, the likeliest first; none where no cause fits."""
    known = set(signs)
    found = []
    for cause in CAUSES:
        fitting = {need: weight for need, weight in cause.weights.items() if known.issuperset(need)}
        because = dict.fromkeys(sign for need, weight in fitting.items() if weight > 0 for sign in need)
        found.append((sum(fitting.values()), Suspect(cause=cause, because=tuple(because))))
    likely = sorted((each for each in found if each[0] > 0), key=lambda each: -each[0])
    return [suspect for _, suspect in likely[:most]]
