"""On a GPU every way to train, the captured step among them, gives the same losses before it is timed."""

from dataclasses import replace

import pytest
import torch

from mue_check.bench import make_plan, run_bench

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def test_the_quick_bench_measures_every_way() -> None:
    plan = replace(make_plan("cuda", ("fp32",), quick=True), rounds=2, seconds=0.01)
    result = run_bench(plan)
    assert {row.way for row in result.steps} == {"captured", "eager", "alone", "plain", "plain batched", "vmap"}
    assert all(row.seconds is not None and not row.note for row in result.steps)
    assert [row.way for row in result.latency] == ["captured", "eager"]
