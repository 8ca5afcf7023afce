"""ModelSpec and TrainSpec: a model and its training in standard terms. ``spec_text`` reads them from one line.

Notation of experts: ``<N>e<a>a<G>g<s>s`` is N routed experts, a activated per token, G groups, and s shared experts.
G = 1 and s = 0 are omitted, as in ``128e8a1s`` (arXiv 2605.23893).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from mue_check.errors import SpecError
from mue_check.loads import Load, parse_load, require_target
from mue_check.routing.choice import Mixture
from mue_check.routing.claim import RoutingSpec
from mue_check.routing.variants import BALANCES, get_variant

REFERENCE_HEAD_WIDTH = 16
"""The head width at which attention scaled by 1/d_head and by 1/sqrt(d_head) agree."""
_NOTATION = re.compile(r"(?P<n>\d{1,18})e(?P<a>\d{1,18})a(?:(?P<g>\d{1,18})g)?(?:(?P<s>\d{1,18})s)?", re.ASCII)


_LARGEST = 10**15
"""No size is larger, and floating-point numbers hold all up to here."""
_MOST_EXPERTS = 1 << 20


def require_positive(owner: object, *names: str) -> None:
    """Refuse fields that are not integers of at least 1, or that are larger than any size."""
    for name in names:
        value = getattr(owner, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise SpecError(f"{type(owner).__name__}.{name}={value!r}: must be a whole number of at least 1")
        if value > _LARGEST:
            raise SpecError(f"{type(owner).__name__}.{name}={str(value)[:20]}...: must be at most {_LARGEST:g}")


@dataclass(frozen=True, kw_only=True)
class Dense:
    """A dense feed-forward layer with ``hidden`` units (H)."""

    hidden: int

    def __post_init__(self) -> None:
        require_positive(self, "hidden")

    @property
    def active_width(self) -> int:
        """H_act: the units that process each token."""
        return self.hidden

    def __str__(self) -> str:
        return f"H={self.hidden}"


@dataclass(frozen=True, kw_only=True)
class Experts(Mixture):
    """A mixture: ``total`` routed experts (N), ``activated`` per token (a), each ``hidden`` wide (h).

    ``groups`` (G) splits the routed experts, and each token takes a/G of every group. ``shared`` (s) experts of the
    same width process every token. ``activated == total`` is a Dense MoE. ``router`` names the routing variant,
    ``balance`` the method that balances its load. ``load`` is a target load (``loads.parse_load``) or empty. It is
    reached through the selection bias, or through the random draw of content_blind.
    """

    hidden: int
    shared: int = 0
    router: str = "sigmoid_norm"
    balance: str = "none"
    load: str = ""

    def __post_init__(self) -> None:
        require_positive(self, "total", "activated", "hidden", "groups")
        if not isinstance(self.shared, int) or not 0 <= self.shared <= _MOST_EXPERTS:
            raise SpecError(f"Experts.shared={self.shared!r}: must be a whole number from 0 to {_MOST_EXPERTS}")
        if self.total > _MOST_EXPERTS:
            raise SpecError(f"Experts.total={self.total}: must be at most {_MOST_EXPERTS}")
        if self.activated > self.total:
            raise SpecError(f"{self.notation}: activated experts a={self.activated} must be at most N={self.total}")
        for name, value in (("N", self.total), ("a", self.activated)):
            if value % self.groups:
                raise SpecError(f"{self.notation}: groups G={self.groups} must divide {name}={value}")
        self._require_routable()

    def _require_routable(self) -> None:
        """Refuse a router, groups, balance and load that do not fit together."""
        variant, claim = get_variant(self.router), self.claim
        fixed = variant.fixed_activated
        if fixed is not None and self.activated > fixed:
            raise SpecError(f"{self.notation}: router {self.router!r} activates at most {fixed} expert(s) per token")
        if self.activated < (fixed or 1) or not claim.takes(self.total, self.activated):
            raise SpecError(
                f"{self.notation}: router {self.router!r} claims to activate at least {fixed or 1}, from "
                f"{claim.group_limit or claim.groups} of {claim.groups} group(s)"
            )
        if self.groups > 1 and not variant.grouped:
            raise SpecError(
                f"{self.notation}: router {self.router!r} does not take a/G of each group: leave groups G at 1"
            )
        if self.balance not in BALANCES:
            raise SpecError(f"unknown balance {self.balance!r}: allowed are {', '.join(BALANCES)}")
        if self.balance != "none" and not variant.scored:
            raise SpecError(
                f"{self.notation}: balance {self.balance!r} has no meaning with router {self.router!r}, "
                "which does not select by score: use balance none"
            )
        if self.load:
            if not variant.scored and not variant.by_place:
                raise SpecError(
                    f"{self.notation}: load {self.load!r} has no meaning with router {self.router!r}, "
                    "which does not select by score"
                )
            if self.balance != "selection_bias" and variant.scored:
                raise SpecError(f"{self.notation}: load {self.load!r} is reached by balance=selection_bias: set it")
            require_target(self.target_load, activated=self.activated, groups=self.groups)

    @property
    def claim(self) -> RoutingSpec:
        """What the router claims in this mixture."""
        return get_variant(self.router).claim_at(self.total, self.activated, self.groups)

    @property
    def target_load(self) -> Load:
        """Target share of all assignments for each expert; empty without a target load."""
        return parse_load(self.load, experts=self.total, groups=self.groups) if self.load else ()

    @classmethod
    def from_notation(cls, text: str, *, hidden: int) -> "Experts":
        """Parse a notation such as ``128e8a4g1s``. Raises SpecError for anything else."""
        match = _NOTATION.fullmatch(text.strip())
        if match is None:
            raise SpecError(f"{text!r} is not a notation of experts: write <N>e<a>a[<G>g][<s>s], for example 128e8a1s")
        part = {key: int(value) for key, value in match.groupdict().items() if value is not None}
        return cls(
            total=part["n"],
            activated=part["a"],
            groups=part.get("g", 1),
            shared=part.get("s", 0),
            hidden=hidden,
        )

    @property
    def notation(self) -> str:
        """The shortest text that ``from_notation`` reads as these experts."""
        groups = f"{self.groups}g" if self.groups != 1 else ""
        shared = f"{self.shared}s" if self.shared else ""
        return f"{self.total}e{self.activated}a{groups}{shared}"

    @property
    def active_width(self) -> int:
        """H_act = (a + s) * h."""
        return (self.activated + self.shared) * self.hidden

    @property
    def weight_sum(self) -> float | None:
        """The claimed sum of a token's active weights if R follows from it (1, or 1 per group); otherwise None."""
        claim = self.claim
        known = claim.weight_sum in ("one", "groups", 1)
        return claim.at(self.activated).expected_sum() if known else None

    @property
    def claimed_sum(self) -> float | None:
        """The sum that the router claims for every token; None if it claims none, or if tokens may lose experts."""
        return self.claim.at(self.activated).expected_sum() if self.claim.kind == "token_choice" else None

    def __str__(self) -> str:
        router = f",router={self.router}" if self.router != "sigmoid_norm" else ""
        balance = f",balance={self.balance}" if self.balance != "none" else ""
        load = f",load={self.load}" if self.load else ""
        return f"{self.notation},h={self.hidden}{router}{balance}{load}"


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A reference model, here a language model: width d, depth L (number of blocks), and its feed-forward layers."""

    width: int
    depth: int
    feed_forward: Dense | Experts
    head_width: int = REFERENCE_HEAD_WIDTH

    def __post_init__(self) -> None:
        require_positive(self, "width", "depth", "head_width")
        if self.width % self.head_width:
            raise SpecError(
                f"width d={self.width} is not divisible by the head width dh={self.head_width} (set dh=<divisor of d>)"
            )

    @property
    def expansion(self) -> float:
        """H_act / d, the active expansion of the feed-forward layer. 1 is called unit expansion."""
        return self.feed_forward.active_width / self.width

    @property
    def parameters(self) -> int:
        """Weights of all blocks (attention 4 d^2, SwiGLU 3 d H), active or not. Embeddings and routers do not count."""
        ffn = self.feed_forward
        width = ffn.hidden if isinstance(ffn, Dense) else (ffn.total + ffn.shared) * ffn.hidden
        return self.depth * (4 * self.width**2 + 3 * self.width * width)

    def __str__(self) -> str:
        head = f",dh={self.head_width}" if self.head_width != REFERENCE_HEAD_WIDTH else ""
        return f"d={self.width},L={self.depth},{self.feed_forward}{head}"


@dataclass(frozen=True, kw_only=True)
class DiffusionSpec(ModelSpec):
    """A diffusion transformer (arXiv 2212.09748) that predicts the velocity of images, key frames or clips.

    A token is a patch of ``frames_per_patch`` frames by ``patch`` x ``patch`` pixels. ``labels``: conditioned on the
    class too, where the data have classes. ``zero_gates``: modulations and final layer start at zero, as published;
    otherwise they are drawn. ``shared_modulation``: one modulation for all blocks, and a drawn scale-shift table for
    each (arXiv 2310.00426).
    """

    patch: int = 2
    frames_per_patch: int = 1
    labels: bool = True
    zero_gates: bool = False
    shared_modulation: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "patch", "frames_per_patch")

    def __str__(self) -> str:
        frames = f"{self.frames_per_patch}x" if self.frames_per_patch != 1 else ""
        gates = ",gates=zero" if self.zero_gates else ""
        labels = "" if self.labels else ",labels=off"
        modulation = ",modulation=shared" if self.shared_modulation else ""
        return f"{super().__str__()},patch={frames}{self.patch}{gates}{labels}{modulation}"


@dataclass(frozen=True, kw_only=True)
class TrainSpec:
    """A short training of ``steps`` steps with ``batch`` sequences of ``context`` tokens per step.

    Linear warm-up over ``warmup`` steps, then linear decay to ``final_lr`` times the peak.
    """

    steps: int
    batch: int
    context: int = 32
    warmup: int = 0
    final_lr: float = 0.1

    def __post_init__(self) -> None:
        require_positive(self, "steps", "batch", "context")
        if not 0 <= self.warmup < self.steps:
            raise SpecError(f"TrainSpec.warmup={self.warmup}: must be at least 0 and below steps={self.steps}")
        if not 0 <= self.final_lr <= 1:
            raise SpecError(f"TrainSpec.final_lr={self.final_lr}: must lie in [0, 1]")

    @property
    def tokens_per_step(self) -> int:
        """B, in tokens."""
        return self.batch * self.context

    def __str__(self) -> str:
        return f"B={self.tokens_per_step},T={self.steps}"


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """The input of a transfer rule: a model, its tokens per step (B) and its number of steps (T).

    Rules use only the ratios of B and T between two scenarios.
    """

    model: ModelSpec
    tokens_per_step: int = 1
    steps: int = 1

    def __post_init__(self) -> None:
        require_positive(self, "tokens_per_step", "steps")

    @classmethod
    def of(cls, model: ModelSpec, train: TrainSpec) -> "Scenario":
        """The scenario of training ``model`` as ``train`` says."""
        return cls(model=model, tokens_per_step=train.tokens_per_step, steps=train.steps)

    def __str__(self) -> str:
        return f"{self.model},B={self.tokens_per_step},T={self.steps}"


def described(model: Mapping[str, object], train: Mapping[str, object]) -> str:
    """Model and training, which a cell stores as plain values, in one line. SpecError if they are not of these classes.

    Nothing is checked against the known routers: the model's may be a user's that is not loaded.
    """
    try:
        layers = dict(cast(Mapping[str, object], model["feed_forward"]))
        feed_forward = _unchecked(Experts if "total" in layers else Dense, layers)
        family = DiffusionSpec if "patch" in model else ModelSpec
        return f"{_unchecked(family, {**model, 'feed_forward': feed_forward})},{_unchecked(TrainSpec, train)}"
    except (KeyError, TypeError, ValueError, AttributeError):
        raise SpecError(f"{model} and {train} are no model and training") from None


def is_diffusion(described: str) -> bool:
    """Whether a model that is described in one line is a diffusion model. Its loss is a mean squared error."""
    return ",patch=" in described


def _unchecked(kind: type, values: Mapping[str, object]) -> object:
    made: object = object.__new__(kind)
    vars(made).update(values)
    return made
