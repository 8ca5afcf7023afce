"""A few kinds of the campaign ``hostile``. ``python -m tests.reliability.hostile`` runs all of them."""

import pytest

from tests.reliability.hostile import Command, attempt
from tests.reliability.hostile_code import KINDS


@pytest.mark.parametrize(
    ("kind", "command", "right", "code"),
    [
        ("end_process_build", "audit", False, 2),
        ("default_device_import", "audit", True, 0),
        ("replace_torch_forward", "router", False, 1),
    ],
)
def test_hostile_code_does_not_pass(kind: str, command: Command, right: bool, code: int) -> None:
    outcome = attempt(KINDS[kind], command, right, few=True)
    assert (outcome.problem, outcome.code) == ("", code), outcome.text
