"""``check_model``: measure a user's model at several sizes and judge how it scales."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from mue_check.audit import audit_model
from mue_check.global_state import preserved_globals
from mue_check.judge.verdict import Verdict
from mue_check.own_model.base import at_base
from mue_check.own_model.candidate import Candidate, ModelError, Recipe, require_sizes
from mue_check.own_model.judge import judge_rows
from mue_check.own_model.library import find
from mue_check.own_model.measure import Coordinates, measure
from mue_check.own_model.report import Audited, ModelReport
from mue_check.own_model.roles import Sized, expected_of
from mue_check.own_model.transfer import Study, ask_transfer
from mue_check.rules import HyperParameters
from mue_check.user_code import UserCodeExit, no_exit

SEEDS = tuple(range(2, 9))
"""The numbers of seeds at which the verdict is read, until no row is open."""


def check_model(
    candidate: object,
    *,
    axis: str = "width",
    sizes: Sequence[float] = (),
    lr: float = 1e-3,
    roles: Mapping[str, str] | None = None,
    base: float | None = None,
    tolerance: float = 0.25,
    seeds: Sequence[int] = SEEDS,
    reference: str | None = None,
    rule: str = "complete_mue",
    values: HyperParameters | None = None,
    study: Study | None = None,
) -> ModelReport:
    """Check how the outputs and parameters of a model scale along an axis.

    ``candidate``: an object, module or mapping with ``model(**size)``, ``optimizer(model, lr=...)``,
    ``loss(model, batch)`` and ``batches(seed)`` (``own_model.candidate``), or the name of one; ``hf:CONFIG`` is a tiny
    model of transformers with the groups that ``rule`` prescribes (``own_model.library``). ``sizes`` may be left
    out for mup's table of models. ``roles`` maps patterns of names to roles, in order (``own_model.roles``). ``base``
    is the size at which every factor must be 1, by default the smallest if there is no table; 0: not checked.
    ``tolerance`` is that of an exponent. With a ``reference`` (a SPEC), each size is also audited against ``rule`` with
    the tuned ``values``. With a ``study``, whether tuned values stay best is measured too: early curve, tune once and
    drift (``own_model.transfer``). Its folder holds all runs, none is trained twice, and ``mue_check report`` judges
    it.

    ModelError, in one line, if something cannot be used. Under torch.distributed every process calls this alike.
    """
    user = _given(candidate, axis, sizes, base, rule, values)
    chosen = require_sizes(user, axis, sizes)
    looks = tuple(seeds)
    if not looks or looks[0] < 2 or list(looks) != sorted(set(looks)):
        raise ModelError(f"seeds {', '.join(map(str, looks)) or 'none'}: ascending numbers from 2 are needed")
    if not lr > 0:
        raise ModelError(f"lr {lr:g}: must be above 0")
    try:
        with preserved_globals() as changes, no_exit():
            # the base of mup's table need not be in it
            start = next((b for b in (base, user.base) if b is not None), 0 if user.sizes else chosen[0])
            declared = dict(roles or {})
            declared |= {k: v for k, v in (user.roles or {}).items() if k not in declared}
            report, first = _coordinates(user, axis, chosen, lr, declared, tolerance, looks)
            faults = list(at_base(user, axis, start, lr, first.get(start))) if start else []
            audits = _audits(user, axis, chosen, lr, reference, rule, values) if reference else ()
            answers = ask_transfer(user, axis, chosen, study) if study else ()
    except UserCodeExit as error:
        raise ModelError(f"the model's code raises {error}") from error
    if changes.functions:
        raise ModelError(f"the model's code replaces {', '.join(changes.functions)}")
    return replace(report, faults=tuple(faults), audits=tuple(audits), transfer=tuple(answers))


def _given(
    candidate: object,
    axis: str,
    sizes: Sequence[float],
    base: float | None,
    rule: str,
    values: HyperParameters | None,
) -> Candidate:
    if not isinstance(candidate, str):
        return Candidate.of(candidate)
    return find(Recipe(name=candidate, axis=axis, base=base or next(iter(sizes), 0), rule=rule, values=values))


def measure_study(
    name: str,
    axis: str,
    sizes: Sequence[float],
    study: Study,
    *,
    base: float | None = None,
    rule: str = "complete_mue",
    values: HyperParameters | None = None,
) -> None:
    """Measure a study that another process asks and judges, to share its runs. Arguments as in ``check_model``."""
    user = _given(name, axis, sizes, base, rule, values)
    with preserved_globals(), no_exit():
        ask_transfer(user, axis, require_sizes(user, axis, sizes), study, helping=True)


def _coordinates(
    user: Candidate,
    axis: str,
    sizes: Sequence[float],
    lr: float,
    roles: Mapping[str, str],
    tolerance: float,
    looks: tuple[int, ...],
) -> tuple[ModelReport, dict[float, Coordinates]]:
    """The report, and the coordinates of the first seed at each size."""
    table: dict[float, list[Coordinates]] = {size: [] for size in sizes}
    updates: int | None = None
    for seeds in looks:
        for seed in range(len(table[sizes[0]]), seeds):
            for size in sizes:
                table[size].append(measure(user, axis, size, seed, lr, updates))
                updates = updates or table[size][0].updates  # those that the first model needed
        sized = Sized(sizes=(sizes[0], sizes[-1]), small=table[sizes[0]][0], large=table[sizes[-1]][0])
        if (sized.small.losses, sized.small.rms) == (sized.large.losses, sized.large.rms):
            raise ModelError(f"{axis}={sizes[0]:g} and {axis}={sizes[-1]:g} train alike: the model does not use {axis}")
        growth, expected, warnings = expected_of(sized, roles)
        rows = judge_rows(table, expected, tolerance, looks)
        if not any(row.verdict is Verdict.INCONCLUSIVE for row in rows):
            break
    report = ModelReport(
        axis=axis,
        sizes=tuple(sizes),
        seeds=seeds,
        lr=lr,
        updates=updates or 0,
        tolerance=tolerance,
        growth=growth,
        rows=tuple(rows),
        warnings=tuple(warnings),
    )
    return report, {size: found[0] for size, found in table.items()}


def _audits(
    user: Candidate,
    axis: str,
    sizes: Sequence[float],
    lr: float,
    reference: str,
    rule: str,
    values: HyperParameters | None,
) -> list[Audited]:
    out = []
    for size in sizes:
        model = user.build(axis, size, 0)
        optimizer = user.optimize(model, lr)
        scheduler, batch = user.schedule(optimizer), user.batch(0)
        report = audit_model(
            model,
            optimizer,
            scheduler,
            reference=reference,
            rule=rule,
            base=values,
            loss=lambda model=model, batch=batch: user.loss_of(model, batch),  # type: ignore[misc]
        )
        out.append(Audited(size=size, report=report))
    return out
