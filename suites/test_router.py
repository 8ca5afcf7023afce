"""Conformance: is the router of --router what it claims to be, and do its weights fit the rule? Takes seconds."""

from collections.abc import Callable

from mue_check.conformance.api import BoundCheck


def test_router(router_check: BoundCheck, record_property: Callable[[str, object], None]) -> None:
    """One conformance check. A failed recommendation is reported as a warning and does not fail the test."""
    result = router_check()
    record_property(result.check, f"{'warning' if result.warning else result.outcome}: {result.measured}")
