"""The check of a user's own model as tests: one case of pytest for each part of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

from mue_check.errors import unknown
from mue_check.judge.verdict import Verdict
from mue_check.own_model.api import check_model
from mue_check.own_model.candidate import ModelError
from mue_check.own_model.report import ModelReport

_ALWAYS = ("base", "parameters", "outputs", "blocks")
_KINDS = {"parameters": "parameter", "outputs": "output", "blocks": "added"}


def parametrize_with_model_checks(
    candidates: Sequence[object], *, expected: Mapping[str, str] | None = None, **options: Any
) -> Callable[[Callable[..., object]], Callable[..., object]]:
    """A decorator that passes each check to a test as ``check``: ``def test_mine(check): check()``.

    The checks are base, parameters, outputs and blocks (what each residual block adds); audit with a ``reference``;
    and early, tune_once and drift with a ``study``. ``options`` are those of ``check_model``. A model is measured once,
    in the first of its tests. An expected failure (check -> reason) is a strict xfail.
    """
    import pytest

    study = options.get("study")
    names = (*_ALWAYS, *(("audit",) if options.get("reference") else ()), *(study.ask if study else ()))
    marked = dict(expected or {})
    for name in marked:
        if name not in names:
            raise ModelError(f"expected: {unknown('check', name, names)}")
    cases = []
    for at, candidate in enumerate(candidates):
        measured = cache(partial(check_model, candidate, **options))
        label = candidate if isinstance(candidate, str) else getattr(candidate, "__name__", f"model{at}")
        for name in names:
            marks = [pytest.mark.xfail(reason=marked[name], strict=True)] if name in marked else []
            case = ModelCheck(name=name, label=label, measured=measured)
            cases.append(pytest.param(case, id=repr(case), marks=marks))
    return pytest.mark.parametrize("check", cases)


@dataclass(frozen=True, kw_only=True, repr=False)
class ModelCheck:
    """One check of one model. Calling it in a test fails the test with the lines of the report that are about it."""

    name: str
    label: str
    measured: Callable[[], ModelReport]

    def __call__(self) -> ModelReport:
        """Measure the model, unless that is done, and judge this part of it."""
        import pytest

        try:
            report = part_of(self.measured(), self.name)
        except ModelError as error:
            pytest.fail(str(error), pytrace=False)
        if self.name != "base" and not report.verdicts:
            pytest.skip("nothing of it is judged")
        if report.verdicts and report.verdict is not Verdict.PASS:
            pytest.fail(str(report), pytrace=False)
        return report

    def __repr__(self) -> str:
        return f"{self.label}-{self.name}"


def part_of(report: ModelReport, name: str) -> ModelReport:
    """The report with what one check is about."""
    kind = _KINDS.get(name)
    asked = {"early": "early_curve"}.get(name, name)
    return replace(
        report,
        rows=tuple(row for row in report.rows if row.kind == kind),
        faults=report.faults if name == "base" else (),
        audits=report.audits if name == "audit" else (),
        transfer=tuple(found for found in report.transfer if found.comparison.kind == asked),
    )
