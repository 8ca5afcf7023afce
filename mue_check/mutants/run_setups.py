"""Does the audit see what it must: every shipped broken set-up of a model and its optimizer."""

from collections.abc import Iterator
from dataclasses import dataclass

from mue_check.audit.audit import audit_model
from mue_check.mutants.setups.broken import MUTANTS
from mue_check.mutants.setups.workbench import BASE, REFERENCE, TARGET


@dataclass(frozen=True, kw_only=True)
class SetUpOutcome:
    """What became of one broken set-up: the offence that names it, in words, or everything else that was said."""

    name: str
    summary: str
    seen: str
    caught_by: str
    said: str
    caught: bool


def run_set_ups() -> Iterator[SetUpOutcome]:
    """Each broken set-up before the audit, at one seed."""
    for mutant in MUTANTS:
        model, optimizer, scheduler, loss = mutant()
        report = audit_model(model, optimizer, scheduler, reference=REFERENCE, target=TARGET, base=BASE, loss=loss)
        naming = [o for o in report.offences if o.check == mutant.check and o.role == mutant.role]
        yield SetUpOutcome(
            name=mutant.name,
            summary=mutant.summary,
            seen=mutant.seen,
            caught_by=f"{mutant.check} of {mutant.role}" if mutant.role else mutant.check,
            said=str(naming[0]) if naming else "; ".join(map(str, report.offences)) or "nothing",
            caught=bool(naming),
        )
