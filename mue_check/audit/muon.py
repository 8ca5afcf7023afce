"""Matrices that Muon steps, beside others that AdamW steps: each is judged by the law of its own optimizer.

Muon makes every gradient an orthogonal matrix. The spectral norm of its step is then the LR times a factor of the
matrix's size: n^0 as first published, or n^1/2 where the step is to have the RMS of AdamW's (``match_rms_adamw``, arXiv
2502.16982). For a change of the output that does not depend on the width the norm must not either (arXiv 2310.17813).
So the LR of Muon scales with rho_d^0 or rho_d^-1/2, where AdamW's scales with rho_d^-1. The rules do not give Muon's
own LR and decay: they are those of the reference's Muon, and one for all matrices.
"""

import math
from collections.abc import Mapping

from mue_check.audit.prescribed import ModelPrescription
from mue_check.audit.report import AuditFindings
from mue_check.audit.updates import EffectiveValues
from mue_check.judge.audit import RELATIVE_TOLERANCE
from mue_check.rules.roles import HIDDEN


def judge_muon(prescribed: ModelPrescription, values: Mapping[str, EffectiveValues], found: AuditFindings) -> None:
    """Report LRs that have AdamW's scaling on top of Muon's, and those that are not one LR times Muon's scaling."""
    known = {name: v for name, v in values.items() if v.is_muon}
    if not known:
        return
    p, base = prescribed.prescription, prescribed.base
    width = p.target.model.width / p.reference.model.width
    other = [name for name in known if prescribed.expected[name].role not in HIDDEN]
    if other or p.rule == "standard":
        found.unjudged.append(
            f"Muon steps {len(other or known)} parameters, the first {(other or list(known))[0]}, and no rule covers "
            "that: its law is for matrices inside a block, under a rule that scales the LR with the width"
        )
        return
    bases, products, twice = {}, {}, False
    for name, v in known.items():
        row, label = prescribed.expected[name].row, prescribed.expected[name].label
        wanted = row.lr * width ** (1 - v.power)
        bases[name] = base.lr * v.lr / wanted
        products[name] = v.lr * v.weight_decay / (row.lr * row.weight_decay or 1)
        if _close(v.lr, row.lr) and not _close(v.lr, wanted):
            twice = True
            says = (
                f"Muon steps it, whose step scales with the width by itself: this is AdamW's LR, x 1/{width:g} too much"
            )
            says = says if v.power == 0 else says.replace(f"1/{width:g}", f"{width:g}^-1/2")
            found.add("lr", name, label, says, measured=v.lr, prescribed=wanted)
    if twice:
        return
    for what, each in (("LR", bases), ("LR times weight decay", products)):
        low, high = min(each, key=lambda n: each[n]), max(each, key=lambda n: each[n])
        if not _close(each[low], each[high]):
            found.unjudged.append(
                f"{what} of {len(each)} matrices that Muon steps: what the rule folds into them apart, {high} has "
                f"{each[high] / (each[low] or math.nan):.3g} times that of {low}, and no rule says how Muon's differ"
            )
            return
    scaling = "does not change" if all(v.power == 0 for v in known.values()) else "scales by rho_d^-1/2"
    found.notes.append(
        f"Muon steps {len(known)} matrices: its LR {scaling} with the width; correct if the reference's "
        f"Muon had LR {next(iter(bases.values())):.4g}"
    )


def _close(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=RELATIVE_TOLERANCE, abs_tol=1e-15)
