"""A mutant is a right thing with one mistake in it: what it is, and what the checks find in it."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal, TypeVar

MutantKind = Literal["rule", "router", "block", "auxiliary_loss", "setup"]


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One mistake. Calling a mutant builds it, so ``MODULE:NAME`` is a factory where a module holds mutants.

    ``build`` depends on ``kind``. rule: the target's right prescription -> the one with the mistake. router, block:
    the candidate's factory. auxiliary_loss: the loss itself. setup: (seed, config) -> model, optimizer, scheduler and
    loss.

    ``caught_by`` is the check that must fail, and ``finding`` what it must name: a law of scale, or the role of a
    parameter. ``seen`` is the bug report where people met the mistake. A rule's mistake shows on ``ladder``, and where
    it happens during training rather than in the prescription, ``flaw`` names it. ``row`` is the number of the bug in
    conformance/pages/README.md, ``twin`` the right implementation from which the mutant was made.
    """

    name: str
    summary: str
    kind: MutantKind
    build: Callable[..., Any]
    caught_by: str
    finding: str = ""
    seen: str = ""
    ladder: str = ""
    flaw: str = ""
    row: int = 0
    twin: Callable[..., Any] | None = None

    def __call__(self, *args: Any, **options: Any) -> Any:
        """What ``build`` returns."""
        return self.build(*args, **options)


def summary_of(build: Callable[..., Any]) -> str:
    """The first line of a docstring, without its period."""
    return (build.__doc__ or "").strip().splitlines()[0].removesuffix(".")


@dataclass(frozen=True, kw_only=True)
class CheckOutcome:
    """What one check found in a mutant. ``named``: its finding names what the mutant says that it must name."""

    check: str
    verdict: str
    measured: str
    caught: bool
    named: bool = True


@dataclass(frozen=True, kw_only=True)
class MutantResult:
    """A mutant and the outcome of every check that looked at it."""

    mutant: Mutant
    outcomes: tuple[CheckOutcome, ...]

    @property
    def naming(self) -> tuple[CheckOutcome, ...]:
        """The outcomes of the check that must catch the mutant, those with the finding that names it first."""
        own = [o for o in self.outcomes if o.check == self.mutant.caught_by]
        return tuple(sorted(own, key=lambda o: not (o.caught and o.named)))

    @property
    def killed(self) -> bool:
        """The check that must catch the mutant catches it, by the finding that names it."""
        return any(o.caught and o.named for o in self.naming)

    @property
    def measured(self) -> str:
        """What the check that must catch the mutant measured."""
        return self.naming[0].measured if self.naming else "nothing"

    @property
    def also(self) -> tuple[str, ...]:
        """The other checks that catch the mutant."""
        return tuple(o.check for o in self.outcomes if o.caught and o.check != self.mutant.caught_by)


def killed(results: Iterable[MutantResult]) -> int:
    """How many mutants the checks that must catch them caught."""
    return sum(result.killed for result in results)


def snake_case(name: str) -> str:
    """CamelCase in snake_case."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


Broken = TypeVar("Broken", bound=Callable[..., Any])
_ATTRIBUTE = "mutant"


def mistake(
    row: int, caught_by: str, name: str = "", *, seen: str, twin: Callable[..., Any] | None = None
) -> Callable[[Broken], Broken]:
    """A decorator: the class or function has one mistake, which its docstring states; ``row`` is its number.

    Without ``name``, the mutant has that of the class in snake case; without ``twin``, its twin is the nearest base
    class that has no mistake.
    """

    def decorate(broken: Broken) -> Broken:
        kind: MutantKind = "auxiliary_loss"
        right = twin
        if isinstance(broken, type):
            right = next(base for base in broken.__mro__[1:] if _ATTRIBUTE not in vars(base))
            kind = "block" if broken.routing_spec.router else "router"  # type: ignore[attr-defined]
        mutant = Mutant(
            name=name or snake_case(broken.__name__),
            summary=summary_of(broken),
            kind=kind,
            build=broken,
            caught_by=caught_by,
            seen=seen,
            row=row,
            twin=right,
        )
        setattr(broken, _ATTRIBUTE, mutant)
        return broken

    return decorate


def mutants_of(*modules: ModuleType) -> tuple[Mutant, ...]:
    """The mutants that these modules define, in the order of their rows."""
    defined = (value for module in modules for value in vars(module).values() if callable(value))
    marks = (vars(value).get(_ATTRIBUTE) for value in defined if hasattr(value, "__dict__"))
    mutants = dict.fromkeys(mark for mark in marks if isinstance(mark, Mutant))  # modules import from one another
    return tuple(sorted(mutants, key=lambda mutant: mutant.row))
