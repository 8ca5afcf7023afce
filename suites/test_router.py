"""Conformance: is the router of --router what it claims to be, and will tuned values carry over to it? Seconds."""

from collections.abc import Callable

from mue_check.conformance.api import BoundCheck


def test_router(router_check: BoundCheck, record_property: Callable[[str, object], None]) -> None:
    """One check of routing. A failed recommendation is reported and does not fail the test."""
    result = router_check()
    record_property(result.check, f"{'warning' if result.warning else result.outcome}: {result.measured}")
