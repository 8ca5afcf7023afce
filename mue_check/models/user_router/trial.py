"""A user's router tried in a child process first: one that hangs or ends its process would take pytest along.

An ordinary error is left to the parent, which tries the router too and has the better message.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from mue_check.errors import ClaimError
from mue_check.isolation import Child, ChildError, isolated
from mue_check.routing.claim import RoutingSpec
from mue_check.routing.factory import Shape

IMPORT_LIMIT, SIZE_LIMIT = 120.0, 60.0
"""Seconds after which it hangs: while it is imported, and at one size."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A child process that has imported the router."""

    child: Child

    def name(self, limit: float = SIZE_LIMIT) -> str:
        """Its name in that process, or "" where the parent finds out why it has none. ClaimError if it hangs."""
        try:
            name: str = self.child.call("name", limit=limit)
        except ChildError as error:
            raise ClaimError(f"called with fixed tokens, it {error}") from None
        return name

    def at(self, shapes: Iterable[Shape], limit: float = SIZE_LIMIT) -> None:
        """Build and call it at every size; ClaimError if it hangs, ends its process or raises a BaseException."""
        for shape in shapes:
            try:
                self.child.call("profile", shape, limit=limit)
            except ChildError as error:
                where = f"at d_model={shape.d}, n_experts={shape.experts}, top_k={shape.activated}"
                raise ClaimError(f"{where}: it {error}") from None


@contextmanager
def try_isolated(text: str, folder: Path, claim: RoutingSpec | None, limit: float = IMPORT_LIMIT) -> Iterator[Trial]:
    """Import the router of MODULE:FACTORY or FILE.py:FACTORY in a child process, which ends with the context."""
    try:
        with isolated(_Candidate, text, folder, claim, limit=limit) as child:
            yield Trial(child=child)
    except ChildError as error:
        raise ClaimError(f"importing it {error}") from None


class _Candidate:
    """The router in the child; None if the parent cannot load it either."""

    def __init__(self, text: str, folder: Path, claim: RoutingSpec | None) -> None:
        import torch

        from mue_check.models.user_router.loaded import UserRouter, find_router
        from mue_check.routing.variants import Variant

        torch.set_num_threads(1)
        self.router = None
        with suppress(ClaimError):
            candidate, named = find_router(text, folder, claim)
            unnamed = Variant(name="", claim=candidate.claim, grouped=False)
            self.router = UserRouter(variant=unnamed, candidate=candidate, named=named)

    def name(self) -> str:
        """Its name."""
        from mue_check.models.user_router.loaded import add_router

        with suppress(ClaimError):
            if self.router is not None:
                return add_router(self.router.candidate, self.router.named).name
        return ""

    def profile(self, shape: Shape) -> None:
        """Try it at a size."""
        if self.router is not None:
            with suppress(ClaimError):
                self.router.profile(shape)
