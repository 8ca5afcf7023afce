"""A user's router as ``--router`` names it: loaded, named after a hash of its source and behavior, and registered.

Every process that trains loads it by itself, since a factory cannot be pickled; records and reports hold the name.
"""

import re
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from mue_check.errors import ClaimError, SpecError
from mue_check.models.user_router.examine import RouterProfile, build, examine
from mue_check.models.user_router.fingerprint import fingerprint
from mue_check.models.user_router.sources import digits, source_hash
from mue_check.routing.adapter import Layout
from mue_check.routing.claim import RoutingSpec
from mue_check.routing.factory import Candidate, Shape, load_candidate
from mue_check.routing.variants import USER_ROUTERS, Variant
from mue_check.spec import Experts, ModelSpec
from mue_check.user_code import describe_error, no_exit


@dataclass(kw_only=True)
class UserRouter:
    """One user's router."""

    variant: Variant
    candidate: Candidate
    named: str = ""
    """The module or file in which its factory was looked up."""
    layout: Layout | None = None
    profiles: dict[Shape, RouterProfile] = field(default_factory=dict)
    troubles: dict[Shape, str] = field(default_factory=dict)
    notices: dict[str, str] = field(default_factory=dict)
    """What the user must know about it, the first of each kind."""
    reported: int = 0
    """How many notices ``new_notices`` has returned."""

    @property
    def name(self) -> str:
        """The name that a cell holds."""
        return self.variant.name

    def profile(self, shape: Shape) -> RouterProfile:
        """How it behaves at a size; tried once."""
        if shape not in self.profiles:
            found = self.profiles[shape] = examine(self.candidate, shape, self.layout)
            self.layout = found.layout
            for kind, text in _notices(found, self.candidate):
                self.notify(kind, text)
        return self.profiles[shape]

    def capture_trouble(self, shape: Shape) -> str:
        """Why a training step with it cannot be captured; "" if no reason is known. Tried once per size."""
        if shape not in self.troubles:
            if trouble := _capture_trouble(self.candidate, shape, self.profile(shape)):
                self.cannot_be_captured(shape, trouble)
            self.troubles[shape] = trouble
        return self.troubles[shape]

    def cannot_be_captured(self, shape: Shape, trouble: str) -> None:
        """Remember that a step at this size cannot be captured, and why."""
        self.troubles[shape] = trouble
        self.notify("capture", f"cannot be captured, so that it trains step by step: {trouble}")

    def new_notices(self) -> tuple[str, ...]:
        """The notices since the last call."""
        new = list(self.notices.values())[self.reported :]
        self.reported += len(new)
        return tuple(new)

    def notify(self, kind: str, text: str) -> None:
        """Leave a notice, unless there is one of that kind."""
        self.notices.setdefault(kind, f"router {self.candidate.name} {text}")


def loaded_router(name: str) -> UserRouter:
    """The user's router of that name; SpecError if this process has not loaded it."""
    router = USER_ROUTERS.get(name)
    if not isinstance(router, UserRouter):
        raise SpecError(f"router {name!r} is a user's and not loaded here: name it with --router")
    return router


def shape_of(experts: Experts, width: int) -> Shape:
    """The sizes that a factory is called with."""
    return Shape(d=width, f=0, experts=experts.total, activated=experts.activated, tokens=0)


def _capture_trouble(candidate: Candidate, shape: Shape, profile: RouterProfile) -> str:
    """Two runs of one layer, forward and backward, on fake tensors: a step that needs a value on the host raises."""
    from torch._subclasses.fake_tensor import FakeTensorMode  # slow to import, and for a GPU alone

    from mue_check.models.capture_guard import capture_guard

    call, modules = profile.call(training=True), [build(candidate, shape, 0).train(profile.trains) for _ in range(2)]
    try:
        with no_exit(), FakeTensorMode(allow_non_fake_inputs=True), capture_guard(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            forms = {**profile.matrices, **{name: form for name, (form, _) in profile.vectors.items()}}
            tensors = {name: torch.empty(2, *form, requires_grad=True) for name, form in forms.items()}
            tensors |= {name: torch.empty(2, *v.shape, dtype=v.dtype) for name, v in profile.untrained.items()}
            x_RMD = torch.empty(2, 48, shape.d)
            found = call.looped(modules, tensors, x_RMD) if profile.slow else call.stacked(modules[0], tensors, x_RMD)
            weights = profile.reading.choice(found, 48, shape.experts, x_RMD.dtype).weights
            if weights.requires_grad:
                torch.autograd.backward(weights.sum())
    except Exception as error:  # a user's module may raise anything
        return describe_error(error, code=True)
    return ""


def _notices(profile: RouterProfile, candidate: Candidate) -> Iterator[tuple[str, str]]:
    """What makes a router slow, or makes it behave otherwise than its author expects."""
    if profile.slow:
        yield "slow", f"is called run after run, since vmap refuses it: {profile.slow}"
    if profile.unbatched:
        yield "unbatched", f"is called for all runs at once, but for {', '.join(profile.unbatched)}: run after run"
    if not profile.trains:
        yield "noise", "draws random numbers in training mode: it stays in eval mode, without them"
    if profile.mutates:
        yield "mutates", "changes the tokens that it is given, in place: the experts get the changed ones"
    if profile.loose or candidate.claim.auxiliary_loss:
        where = ", ".join(profile.loose) or "auxiliary_loss of its claim"
        yield "auxiliary", f"has a loss ({where}) that is left out: returns = {{'aux': ...}} in its claim adds it"
    if candidate.claim.apply_on == "input":
        yield "input", "claims that weights multiply the experts' input: here they multiply the output"


_LONGEST = 40
"""Of a name's readable part, which goes into file names."""


def find_router(text: str, folder: Path, claim: RoutingSpec | None = None) -> tuple[Candidate, str]:
    """The router of ``MODULE:FACTORY`` or ``FILE.py:FACTORY`` (from ``folder``), and its module or file. ClaimError."""
    where, colon, attribute = text.rpartition(":")
    path = str(folder / where) if where.endswith(".py") else where
    try:
        candidate = load_candidate("router", path + colon + attribute, claim)
    except ClaimError as error:
        raise ClaimError(str(error).removeprefix(f"{path}:{attribute}: ")) from None
    return replace(candidate, name=text), path


def load_router(text: str, folder: Path, claim: RoutingSpec | None = None, *, trains: bool = True) -> UserRouter:
    """Find and register it. ``trains``: whether cells will be named after it, so that its behavior matters."""
    return add_router(*find_router(text, folder, claim), trains=trains)


def add_router(candidate: Candidate, named: str = "", *, trains: bool = True) -> UserRouter:
    """Register a candidate under a hash of its source, claim and behavior; ``named``: the module or file that has it.

    ClaimError where the behavior cannot be repeated.
    """
    where, _, attribute = candidate.name.rpartition(":")
    stem = Path(where).stem if where.endswith(".py") else where.rpartition(".")[2]
    readable = re.sub(r"\W+", "-", f"{stem}-{attribute}").strip("-")[:_LONGEST]
    behavior = [fingerprint(candidate)] if trains else []
    name = f"{readable}-{digits(source_hash(candidate.factory, named), repr(candidate.claim), *behavior)}"
    variant = Variant(name=name, claim=candidate.claim, grouped=False)
    router = USER_ROUTERS[name] = UserRouter(variant=variant, candidate=candidate, named=named)
    return router


def sizes_of(name: str, models: Iterable[ModelSpec]) -> list[Shape]:
    """Every size at which these models call a user's router."""
    mixtures = [(model, e) for model in models if isinstance(e := model.feed_forward, Experts) and e.router == name]
    shapes = {shape_of(experts, model.width) for model, experts in mixtures}
    # with all experts activated a layout is ambiguous: learn it elsewhere if possible
    return sorted(shapes, key=lambda s: (s.activated == s.experts, s.experts, s.d))


def try_router(name: str, shapes: Iterable[Shape], device: str) -> tuple[str, ...]:
    """Try it at these sizes, and return its notices for the user. ClaimError where it cannot serve."""
    router = loaded_router(name)
    for shape in shapes:
        router.profile(shape)
        if device == "cuda":
            router.capture_trouble(shape)
    return router.new_notices()
