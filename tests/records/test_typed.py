"""What the typed reader takes, and what it refuses by name."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import pytest

from mue_check.errors import StoreError
from mue_check.records.typed import from_json, refuse


@dataclass(frozen=True, kw_only=True)
class Arm:
    label: str
    seeds: tuple[int, ...]
    ends: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class Stored:
    kind: Literal["drift", "speed"]
    arms: tuple[Arm, ...]
    by_name: Mapping[str, Sequence[float]]
    sizes: Mapping[Literal["small", "large"], int]
    bound: float | None
    control: bool = False


GOOD = Stored(
    kind="drift",
    arms=(Arm(label="a", seeds=(0, 1)), Arm(label="b", seeds=(), ends=(2.0, 3.5))),
    by_name={"x": (1.0,)},
    sizes={"small": 1, "large": 2},
    bound=None,
)


def changed(path: str, value: object) -> object:
    raw = json.loads(json.dumps(asdict(GOOD)))
    *steps, last = [int(step) if step.isdecimal() else step for step in path.split("/")]
    inner = raw
    for step in steps:
        inner = inner[step]
    inner[last] = value
    return raw


def test_what_was_written_is_read() -> None:
    assert from_json(Stored, changed("control", False), "file") == GOOD
    assert from_json(Stored, changed("bound", 2), "file").bound == 2.0


def test_a_type_may_be_stored_in_another_form() -> None:
    def read_bool(value: object, where: str) -> bool:
        return value == "yes" if isinstance(value, str) else refuse(value, where, "yes or no")

    assert from_json(Stored, changed("control", "yes"), "file", {bool: read_bool}).control
    with pytest.raises(StoreError, match=r"file\.control is True: yes or no is needed"):
        from_json(Stored, changed("control", True), "file", {bool: read_bool})


def test_fields_with_a_default_may_be_absent() -> None:
    raw = json.loads(json.dumps(asdict(GOOD)))
    del raw["control"], raw["arms"][0]["ends"]
    assert from_json(Stored, raw, "file") == GOOD


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("kind", "shift", "file.kind is 'shift': 'drift' or 'speed' is needed"),
        ("kind", ["drift"], "file.kind is ['drift']: 'drift' or"),
        ("control", 1, "file.control is 1: true or false is needed"),
        ("bound", "2", "file.bound is '2': a finite number is needed"),
        ("bound", True, "file.bound is True: a finite number is needed"),
        ("bound", float("nan"), "file.bound is nan: a finite number is needed"),
        ("bound", float("inf"), "file.bound is inf: a finite number is needed"),
        ("by_name", [1.0], "file.by_name is [1.0]: an object is needed"),
        ("by_name/x", 1.0, "file.by_name.x is 1.0: a list is needed"),
        ("by_name/x", [1.0, None], "file.by_name.x[1] is None: a finite number is needed"),
        ("sizes", {"small": 1}, "file.sizes lacks 'large'"),
        ("sizes/medium", 3, "file.sizes is 'medium': 'small' or 'large' is needed"),
        ("arms", {}, "file.arms is {}: a list is needed"),
        ("arms/0", "a", "file.arms[0] is 'a': an object is needed"),
        ("arms/0/label", 3, "file.arms[0].label is 3: text is needed"),
        ("arms/0/seeds", [0, 1.0], "file.arms[0].seeds[1] is 1.0: a whole number is needed"),
        ("arms/0/seeds", [True], "file.arms[0].seeds[0] is True: a whole number is needed"),
        ("arms/1/ends", [1.0], "file.arms[1].ends has 1 values: 2 are needed"),
        ("arms/1/more", 1, "file.arms[1] has an unknown field 'more'"),
        ("arms/0", {"seeds": []}, "file.arms[0] lacks 'label'"),
        ("bound", "x" * 100, "file.bound is 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...: a finite"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(path: str, value: object, says: str) -> None:
    with pytest.raises(StoreError) as error:
        from_json(Stored, changed(path, value), "file")
    assert str(error.value).startswith(says)


def test_a_long_value_is_cut_to_forty_characters() -> None:
    for length, shown in ((38, "'" + "x" * 38 + "'"), (39, "'" + "x" * 36 + "...")):
        with pytest.raises(StoreError) as error:
            refuse("x" * length, "here", "a number")
        assert str(error.value) == f"here is {shown}: a number is needed"
