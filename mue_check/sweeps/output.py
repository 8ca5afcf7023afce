"""A judged sweep as text, as a report of page and Markdown, and as numbers."""

import math
from dataclasses import asdict
from pathlib import Path

from mue_check.report.exponents import exponent_table, plot_exponents
from mue_check.report.format import NONE, interval_text, number_text, printable
from mue_check.report.section import Part, Picture, Report, Section
from mue_check.report.table import Table, make_table, text_table
from mue_check.report.write import write_files
from mue_check.sweeps.judged import ArmFound, Judged
from mue_check.sweeps.laws import exponents, what_next
from mue_check.sweeps.plots import plot_sweep
from mue_check.sweeps.traps import traps

_JSON = "judge.json"


def lines(judged: Judged, read: list[str]) -> list[str]:
    """For a terminal: how the table was read, what it hides, the arms, the exponents, the verdict."""
    table = text_table(arm_table(judged))
    powers = ["", *text_table(exponent_table(exponents(judged)))] if judged.exponent.n else []
    causes = [f"  {at}. {cause}" for at, cause in enumerate(what_next(judged), 1)]
    return [
        f"columns  {printable(judged.sweep.columns.text)}",
        *notes(judged, read),
        "",
        *table,
        *powers,
        *(["", "what next, in order of likelihood:", *causes] if causes else []),
        "",
        summary(judged),
    ]


def notes(judged: Judged, read: list[str]) -> list[str]:
    """What was done to the table, and what it hides."""
    return [
        *(f"read     {printable(text)}" for text in (*read, *judged.sweep.said)),
        *(f"trap     {printable(text)}" for text in traps(judged.sweep)),
    ]


def summary(judged: Judged) -> str:
    """The verdict in one line."""
    judgments = [found.verdict.value for found in judged.arms if found.verdict is not None]
    if not judgments:
        return f"{judged.verdict}: there is one arm, and nothing to compare it with"
    counts = ", ".join(f"{judgments.count(word)} {word}" for word in dict.fromkeys(judgments))
    law = f"size^{judged.law:g} times that of" if judged.law else "that of"
    return (
        f"{judged.verdict}: is the optimum {law} {printable(judged.reference.label)}, "
        f"within {judged.tolerance:g} octave? {counts}"
    )


def arm_table(judged: Judged) -> Table:
    """One row for each arm."""
    seeds = "seeds" if judged.sweep.is_seeded else "replicates"
    columns = {
        str(judged.sweep.columns.arm or "arm"): lambda found: found.arm.label,
        "optimum (log2)": _optimum,
        "rate": lambda found: f"{2**found.optimum.mean:.3g}" if math.isfinite(found.optimum.mean) else NONE,
        seeds: lambda found: f"{found.resolved} of {found.replicates}",
        "drift [95 %] (octaves)": lambda found: _drift(judged, found),
        f"regret, {judged.sweep.columns.losses[0]}": lambda found: number_text(found.regret, 4),
        "detectable": lambda found: number_text(found.detectable),
        "verdict": lambda found: "reference" if found.verdict is None else found.verdict.value,
    }
    return make_table(
        "Optimum of every arm", judged.arms, columns, numeric=("rate", "detectable"), note=lambda a: a.note
    )


def _optimum(found: ArmFound) -> str:
    if not math.isfinite(found.optimum.mean):
        return NONE
    return found.optimum.text() if found.optimum.n > 1 else f"{found.optimum.mean:+.2f}"


def _drift(judged: Judged, found: ArmFound) -> str:
    if found.arm is judged.reference:
        return NONE
    bounded = math.isfinite(found.drift.half_width)
    return found.drift.text() if found.drift.n and bounded else interval_text(found.drift)


def write_report(judged: Judged, read: list[str], name: str, folder: Path) -> Path:
    """Write report.html, report.md, figures and judge.json; return the page's path."""
    found = "; ".join(f"{each.arm.label} {_drift(judged, each)}" for each in judged.arms)
    sections = [
        Section(
            part=Part.ANSWERS,
            anchor="drift",
            title="Optimum of every arm",
            text="Drift: by how many octaves the optimum lies above that of the reference. Regret: what the arm loses "
            "by keeping the reference's rate. Detectable: the smallest drift that would FAIL in 95 of 100 sweeps.",
            tables=(arm_table(judged),),
            pictures=(Picture.of(("sweep",), f"Losses and drifts. {found}", plot_sweep, judged),),
        ),
        Section(
            part=Part.DETAILS,
            anchor="table",
            title="How the table was read, and what it hides",
            lines=(f"columns: {judged.sweep.columns.text}", *notes(judged, read)),
        ),
    ]
    if causes := what_next(judged):
        text = "The likely causes of the drift, in order, each with what decides it."
        sections.append(Section(part=Part.DETAILS, anchor="next", title="What next", text=text, lines=tuple(causes)))
    if judged.exponent.n:
        title, rows = "Exponent of the optimal learning rate", exponents(judged)
        picture = Picture.of(("exponents",), f"{title}: {judged.exponent}", plot_exponents, rows, title)
        sections.insert(
            1,
            Section(
                part=Part.ANSWERS,
                anchor="exponent",
                title=title,
                text="Octaves of the optimum per doubling of the arm's size. A base rate that a rule multiplies is to "
                "stay at 0.",
                tables=(exponent_table(rows),),
                pictures=(picture,),
            ),
        )
    said = summary(judged).removeprefix(f"{judged.verdict}: ")
    report = Report(
        name=name, verdict=judged.verdict, conclusion=f"{said[0].upper()}{said[1:]}", sections=tuple(sections)
    )
    return write_files(folder, report, {_JSON: as_json(judged, read)}, latest=False)


def as_json(judged: Judged, read: list[str]) -> dict[str, object]:
    """All numbers; None where there is none."""
    columns = judged.sweep.columns
    return {
        "verdict": judged.verdict.value,
        "columns": asdict(columns),
        "read": [*read, *judged.sweep.said],
        "traps": traps(judged.sweep),
        "what_next": what_next(judged),
        "tolerance": judged.tolerance,
        "law": judged.law,
        "reference": judged.reference.label,
        "arms": [
            {
                "arm": found.arm.label,
                "size": _finite(found.arm.size),
                "log2_optimum": found.optimum.as_json(),
                "resolved": found.resolved,
                "replicates": found.replicates,
                "drift": found.drift.as_json(),
                "regret": _finite(found.regret),
                "gain": _finite(found.gain),
                "detectable": _finite(found.detectable),
                "verdict": None if found.verdict is None else found.verdict.value,
                "note": found.note,
            }
            for found in judged.arms
        ],
        "exponent": judged.exponent.as_json(),
        "exponents": [
            {"axis": row.ladder, "what": row.what, "source": row.source, **row.interval.as_json()}
            for row in exponents(judged)
        ],
    }


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
