"""Small modules with the public interface of torchtitan's MoE and Megatron-core's MoELayer, written for these tests."""

from types import SimpleNamespace

import torch
from torch import Tensor, nn

from mue_check.mutants.routing.capacity import MegatronRouter
from mue_check.mutants.routing.experts import SeparateExperts


class _TorchtitanRouter(nn.Module):
    def __init__(self, d: int, n: int, k: int, *, norm: bool, scale: float) -> None:
        super().__init__()
        self.gate = nn.Linear(d, n, bias=False)
        self.top_k, self.score_func, self.route_norm, self.route_scale = k, "sigmoid", norm, scale

    def forward(self, x: Tensor, expert_bias: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        scores = self.gate(x).float().sigmoid()
        chosen = (scores if expert_bias is None else scores + expert_bias).topk(self.top_k, dim=1).indices
        top = scores.gather(1, chosen)
        top = top / top.sum(1, keepdim=True) if self.route_norm else top
        return top * self.route_scale, chosen, torch.bincount(chosen.flatten(), minlength=scores.shape[1]).float()


class Torchtitan(nn.Module):
    before = True
    forgets_scale = False

    def __init__(self, d: int, f: int, n: int, k: int) -> None:
        super().__init__()
        self.router, self.experts = _TorchtitanRouter(d, n, k, norm=True, scale=2.0), SeparateExperts(d, f, n)
        self.shared_experts, self.score_before_experts = None, self.before
        self.register_buffer("expert_bias", torch.zeros(n))

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        top, chosen, _ = self.router(flat, self.expert_bias)
        top = top / self.router.route_scale if self.forgets_scale else top
        weights = flat.new_zeros(len(flat), self.experts.w1.shape[0]).scatter(1, chosen, top.to(flat.dtype))
        each = weights.T.unsqueeze(-1)
        before, after = (each, 1) if self.score_before_experts else (1, each)
        return (after * self.experts(before * flat.expand(len(each), -1, -1))).sum(0).view_as(x)


class TorchtitanAfter(Torchtitan):
    before = False


class TorchtitanForgetsScale(TorchtitanAfter):
    forgets_scale = True


class Megatron(nn.Module):
    weighted = True

    def __init__(self, d: int, f: int, n: int, k: int) -> None:
        super().__init__()
        self.config = SimpleNamespace(moe_router_topk=k, moe_router_score_function="softmax")
        self.router, self.experts = MegatronRouter(d, n, k), SeparateExperts(d, f, n)

    def forward(self, x_TBD: Tensor) -> tuple[Tensor, None]:
        flat = x_TBD.reshape(-1, x_TBD.shape[-1])
        probs, chosen = self.router(flat)
        y = self.experts(flat.expand(len(self.experts.w1), -1, -1))
        return torch.einsum("te,etd->td", (probs if self.weighted else chosen).to(y.dtype), y).view_as(x_TBD), None


class MegatronUnweighted(Megatron):
    weighted = False
