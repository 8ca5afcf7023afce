"""What next: from the rows that fail to the likely causes (``judge.diagnosis``)."""

import re
from collections.abc import Collection, Iterator, Sequence

from mue_check.judge import diagnosis as signs
from mue_check.judge.diagnosis import Suspect, suspects
from mue_check.judge.verdict import Verdict
from mue_check.own_model.judge import Row
from mue_check.own_model.measure import WHOLE
from mue_check.own_model.roles import Growth, ModelRole

_AXES = {Growth.WIDTH: signs.WIDTH, Growth.DEPTH: signs.DEPTH, Growth.PARTS: signs.EXPERTS}
_GROUPS = {
    ModelRole.INPUT: "embedding",
    ModelRole.HIDDEN: "hidden",
    ModelRole.OUTPUT: "unembedding",
    ModelRole.VECTOR: "vector",
}
_ROUTER = re.compile(r"(^|\.)(gate|router)\b")
_READOUTS = (ModelRole.READOUT, ModelRole.RAW_READOUT)


def what_next(axis: str, growth: Growth, rows: Sequence[Row]) -> list[Suspect]:
    """The likely causes of what fails along an axis; none where nothing does."""
    failed = [row for row in rows if row.verdict is Verdict.FAIL]
    drawn = {row.name for row in failed if row.kind != "parameter" and "RMS" in _wrong(row)}
    return suspects({*_axis(axis, growth), *(sign for row in failed for sign in _signs(row, drawn))}) if failed else []


def _axis(axis: str, growth: Growth) -> Iterator[str]:
    if growth in _AXES:
        yield signs.HEADS if "head" in axis else _AXES[growth]
    elif axis in ("batch", "batch_size"):
        yield signs.BATCH


def _wrong(row: Row) -> set[str]:
    return {q.name for q in row.quantities if q.verdict is Verdict.FAIL}


def _signs(row: Row, drawn: Collection[str]) -> Iterator[str]:
    """``drawn``: the modules whose outputs are wrong at initialization."""
    wrong = _wrong(row)
    at_init = "RMS" in wrong
    if "learning rate" in wrong:
        yield signs.off("scheduled", "lr")
    if row.kind == "parameter":
        group = "router" if _ROUTER.search(row.name) else _GROUPS.get(ModelRole(row.role), "")
        # a weight is judged by its change over its RMS: the output of its module at init tells which of them is wrong
        started = at_init or row.name.rpartition(".")[0] in drawn
        if group and wrong & {"RMS", "change", "change / RMS"}:
            yield signs.drawn(group) if started else signs.stepped(group)
    elif _ROUTER.search(row.name):
        yield signs.ROUTER_LOGITS
    elif row.role in _READOUTS or row.name == WHOLE:
        yield signs.LOGITS_DRAWN if at_init else signs.LOGITS_MOVE
    else:
        yield signs.FFN_DRAWN if at_init else signs.MOVES
