"""Parameters that are split over a mesh of devices are gathered for the audit, and left split."""

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from tests.audit.set_ups import GPT, audited, made


@pytest.fixture
def mesh() -> Iterator[DeviceMesh]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


def test_a_sharded_model_is_audited_as_a_whole_one(mesh: DeviceMesh) -> None:
    def sharded() -> GPT:
        model = GPT()
        for block in model.transformer["h"]:  # type: ignore[union-attr]
            fully_shard(block, mesh=mesh)
        return fully_shard(model, mesh=mesh)  # type: ignore[return-value]

    model, groups = made(sharded)
    assert all(isinstance(p, DTensor) for group in groups for p in group["params"])
    before = {name: p.to_local().clone() for name, p in model.named_parameters()}  # type: ignore[attr-defined]
    report = audited(model, torch.optim.AdamW(groups))
    assert report.verdict == "PASS", str(report)
    groups[1]["lr"] *= 2
    assert {o.check for o in audited(model, torch.optim.AdamW(groups)).offences} == {"lr"}
    for name, p in model.named_parameters():
        assert isinstance(p, DTensor)
        assert torch.equal(p.to_local(), before[name])
    # and it still trains
    optimizer = torch.optim.AdamW(groups)
    model(torch.arange(16)[None])[0].sum().backward()
    optimizer.step()
    assert not torch.equal(model.lm_head.weight.to_local(), before["lm_head.weight"])  # type: ignore[operator,union-attr]
