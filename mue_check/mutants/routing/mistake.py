"""The decorator that makes a mutant of a broken router, block or loss."""

from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeVar

from mue_check.mutants.mutant import Mutant, MutantKind, snake_case, summary_of

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
