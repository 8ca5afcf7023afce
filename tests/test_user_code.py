"""What user code raises becomes one line with its place, and an exit is never a result."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mue_check.errors import UnreadableError
from mue_check.plain import plain, require_plain
from mue_check.user_code import UserCodeExit, describe_error, no_exit, one_line
from tests.reliability.hostile_code import Dispatcher, Liar, Unprintable


@pytest.mark.parametrize(
    "stop", [SystemExit(0), GeneratorExit(), pytest.skip.Exception("no"), pytest.exit.Exception("")]
)
def test_an_exit_is_an_error(stop: BaseException) -> None:
    with pytest.raises(UserCodeExit, match=rf"^{type(stop).__name__}.* \(test_user_code.py:\d+\)$"), no_exit():
        raise stop


@pytest.mark.parametrize("kept", [ValueError("x"), KeyboardInterrupt()])
def test_other_errors_stay(kept: BaseException) -> None:
    with pytest.raises(type(kept)), no_exit():
        raise kept


def test_an_error_is_one_line_with_the_users_own_place(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text("import torch\n\ndef build():\n    return torch.ones(2) @ torch.ones(3)\n")
    found: dict[str, Any] = {}
    exec(compile(script.read_text(), str(script), "exec"), found)
    with pytest.raises(RuntimeError) as caught:
        found["build"]()
    assert describe_error(caught.value).endswith("(train.py:4)")
    code = "(train.py:4: return torch.ones(2) @ torch.ones(3))"
    assert describe_error(caught.value, code=True).endswith(code)
    assert describe_error(Unprintable()) == "Unprintable: its text raises SystemExit"
    assert describe_error(ValueError("a\x1b[2J\nb")) == "ValueError: a\\x1b[2J"
    assert one_line("a\nb\ud800é") == "a\\nb\\ud800é"


def test_tensors_that_lie_are_read_as_they_are() -> None:
    lie = torch.zeros(3).as_subclass(Liar)
    assert float(lie.sum()) == 1
    assert float(plain(lie).sum()) == 0
    weights = torch.ones(3, requires_grad=True)
    plain((2 * weights).as_subclass(Liar)).sum().backward()
    assert weights.grad is not None
    assert weights.grad.tolist() == [2, 2, 2]
    with pytest.raises(UnreadableError, match="a Dispatcher computes in its own way"):
        plain(Dispatcher(torch.zeros(3)))


def test_parameters_may_be_of_a_subclass_that_changes_nothing() -> None:
    class Marked(nn.Parameter):
        pass

    class Hidden(nn.Parameter):
        def abs(self) -> Tensor:
            return torch.zeros(())

    module = nn.Sequential(nn.Linear(2, 2), nn.LazyLinear(2), nn.BatchNorm1d(2))
    module[0].weight = Marked(module[0].weight.data)
    require_plain(module)
    module[0].bias = Hidden(module[0].bias.data)
    with pytest.raises(UnreadableError, match=r"0\.bias is a Hidden with its own abs"):
        require_plain(module)
