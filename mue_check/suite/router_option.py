"""``--router``: the routing of a run of the suites, and the first calls of a user's router, before anything trains."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mue_check.errors import ClaimError, SpecError, unknown

if TYPE_CHECKING:
    from mue_check.axes import LadderUse
    from mue_check.models.user_router.trial import Trial
    from mue_check.routing.claim import RoutingSpec
    from mue_check.routing.factory import Shape
    from mue_check.suite.settings import Settings


def trains_nothing(arguments: Sequence[str]) -> bool:
    """Whether only conformance is checked. A router that cannot train then fails its checks rather than the run."""
    named = [argument.partition("::")[0] for argument in arguments if not argument.startswith("-")]
    return bool(named) and all(name.endswith("test_router.py") for name in named)


def users_router(config: pytest.Config) -> str | None:
    """The text of ``--router`` if it names a user's router."""
    text = config.getoption("router")
    return text if text and ":" in text and not text.startswith("builtin:") else None


def read_claim_option(config: pytest.Config, folder: Path) -> RoutingSpec | None:
    """The claim in the file of ``--claim``. SpecError without a user's router."""
    from mue_check.routing.claim import read_claim

    path = config.getoption("claim")
    if path and not users_router(config):
        raise SpecError("--claim: goes with a router of your own; a built-in one carries its claim")
    return read_claim(folder / path) if path else None


def routing_of(text: str | None, folder: Path, claim: RoutingSpec | None, *, trains: bool) -> tuple[str, str]:
    """Router and balance of ``builtin:NAME[+BALANCE]``. A user's router is loaded, and has no balance."""
    from mue_check.routing.variants import BALANCES, VARIANTS, get_variant

    if text is None:
        return "sigmoid_norm", "none"
    kind, colon, rest = text.rpartition(":")
    name, plus, balance = rest.partition("+")
    if not colon:
        names = ", ".join(VARIANTS)
        raise SpecError(f"--router {text!r}: write builtin:NAME, MODULE:FACTORY or FILE.py:FACTORY; NAMEs are {names}")
    if kind == "builtin":
        if balance and balance not in BALANCES:
            raise SpecError(f"--router {text!r}: {unknown('balance', balance, BALANCES)}")
        return get_variant(name).name, balance or "none"
    if plus:
        raise SpecError(f"--router {text!r}: +{balance} goes with builtin:NAME only; your router balances itself")
    from mue_check.models.user_router.loaded import load_router

    with _named(text):
        return load_router(text, folder, claim, trains=trains).name, "none"


@contextmanager
def isolated_router(config: pytest.Config, folder: Path) -> Iterator[Trial | None]:
    """A user's router in a separate process. None in workers, which start after it has been tried."""
    router = users_router(config)
    if router is None or hasattr(config, "workerinput"):
        yield None
        return
    from mue_check.models.user_router.trial import try_isolated

    with ExitStack() as stack:
        with _named(router):
            trial = stack.enter_context(try_isolated(router, folder, read_claim_option(config, folder)))
        yield trial


@contextmanager
def _named(router: str) -> Iterator[None]:
    """Turn an error of a user's router into a usage error that names the router."""
    try:
        yield
    except ClaimError as error:
        raise SpecError(f"--router {router!r}: {error}") from None


def name_elsewhere(text: str, trial: Trial) -> str:
    """A user's router called with fixed tokens in the trial's process: the name that it has there."""
    with _named(text):
        return trial.name()


def try_users_router(settings: Settings, text: str | None, trial: Trial | None) -> tuple[str, ...]:
    """Call a user's router at every size that the run will use, before anything trains. Returns notices."""
    from mue_check.routing.variants import is_users

    if text is None or not is_users(settings.router):
        return ()
    from mue_check.models.user_router.loaded import try_router

    sizes = _sizes(settings)
    with _named(text):
        if trial is not None:
            trial.at(sizes)
        return try_router(settings.router, sizes, settings.tier.device)


def require_same_router(settings: Settings, text: str | None) -> None:
    """SpecError if a user's router behaves differently than when the study was measured."""
    from mue_check.routing.variants import is_users

    if text is None or not is_users(settings.router):
        return
    from mue_check.execute.same_router import require_same_behavior

    with _named(text):
        require_same_behavior(settings.router, _sizes(settings), settings.root)


def _sizes(settings: Settings) -> list[Shape]:
    """Every size at which the run calls a user's router."""
    from mue_check.models.user_router.loaded import sizes_of

    questions: tuple[LadderUse, ...] = ("drift", "scales", "speed", "tune_once")
    ladders = [
        ladder
        for axis in settings.axes
        for corpus in settings.corpora
        for question in questions
        for ladder in settings.ladders(axis, corpus, question)
    ]
    return sizes_of(settings.router, (rung.model for ladder in ladders for rung in ladder.rungs))
