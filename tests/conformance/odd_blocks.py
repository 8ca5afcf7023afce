"""Blocks as people write them, each with something that makes it hard to open; then the same with one mistake each."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def gated(x, gate, up, down):
    return (F.silu(x @ gate) * (x @ up)) @ down


class TopK(nn.Module):
    """(weights, indices), normalized unless told otherwise."""

    def __init__(self, d, n, k, normalized=True):
        super().__init__()
        self.k, self.n, self.normalized = k, n, normalized
        self.weight = nn.Parameter(torch.randn(n, d) / d**0.5)

    def forward(self, x):
        weights, indices = F.softmax(x @ self.weight.T, dim=-1).topk(self.k, dim=-1)
        return (weights / weights.sum(-1, keepdim=True) if self.normalized else weights), indices


def dense(weights: Tensor, indices: Tensor, n: int) -> Tensor:
    return weights.new_zeros(len(weights), n).scatter(1, indices, weights)


class Plain(nn.Module):
    """gate, up and down [E, in, out]; the parts are methods, for others to change."""

    def __init__(self, d, f, n, k):
        super().__init__()
        self.n, self.d, self.f = n, d, f
        self.router = self.make_router(d, n, k)
        self.make_experts(d, f, n)

    def make_router(self, d, n, k):
        return TopK(d, n, k)

    def make_experts(self, d, f, n):
        self.gate, self.up = (nn.Parameter(torch.randn(n, d, f) / d**0.5) for _ in range(2))
        self.down = nn.Parameter(torch.randn(n, f, d) / f**0.5)

    def experts(self, x):
        """[E, T, d]."""
        return gated(x, self.gate, self.up, self.down)

    def combine(self, x):
        return dense(*self.router(x), self.n)

    def mix(self, x):
        return torch.einsum("te,etd->td", self.combine(x), self.experts(x))

    def forward(self, x):
        return self.mix(x.reshape(-1, self.d)).view(x.shape)


class InlineGate(nn.Module):
    """No router to be asked: a Linear and the rest inline; experts of two layers with biases, skipped when empty."""

    def __init__(self, d, f, n, k):
        super().__init__()
        self.k = k
        self.gate = nn.Linear(d, n, bias=False)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(d, f), nn.GELU(), nn.Linear(f, d)) for _ in range(n))

    def forward(self, x):
        rows = x.reshape(-1, x.shape[-1])
        weights, indices = F.softmax(self.gate(rows), dim=-1).topk(self.k, dim=-1)
        weights = weights / weights.sum(-1, keepdim=True)
        y = torch.zeros_like(rows)
        for e, expert in enumerate(self.experts):
            token, slot = torch.where(indices == e)
            if len(token):
                y.index_add_(0, token, expert(rows[token]) * weights[token, slot, None])
        return y.view(x.shape)


class Strided(Plain):
    """Flat [d, f*E] with the expert as the fast axis, no gate, squared relu, a bias on the output."""

    def make_experts(self, d, f, n):
        self.w_in = nn.Parameter(torch.randn(d, f * n) / d**0.5)
        self.w_out = nn.Parameter(torch.randn(f * n, d) / f**0.5)
        self.bias = nn.Parameter(torch.zeros(n, d))

    def experts(self, x):
        up = self.w_in.view(self.d, self.f, self.n).permute(2, 0, 1)
        down = self.w_out.view(self.f, self.n, self.d).permute(1, 0, 2)
        return F.relu(x @ up).square() @ down + self.bias.unsqueeze(1)


class ZeroDown(Plain):
    """Experts that say nothing at the start, under a leading axis of size 1, drawn by Xavier's law."""

    def make_experts(self, d, f, n):
        std = (2 / (d + f)) ** 0.5
        self.gate, self.up = (nn.Parameter(std * torch.randn(1, d, n, f)) for _ in range(2))
        self.down = nn.Parameter(torch.zeros(1, n, f, d))

    def experts(self, x):
        return gated(x, self.gate[0].transpose(0, 1), self.up[0].transpose(0, 1), self.down[0])


class Normed(Plain):
    """A norm inside, a residual around, logits beside."""

    def __init__(self, d, f, n, k):
        super().__init__(d, f, n, k)
        self.norm = nn.LayerNorm(d)

    def forward(self, x):
        rows = self.norm(x).reshape(-1, self.d)
        return x + self.mix(rows).view(x.shape), rows @ self.router.weight.T


class Odd(nn.Module):
    """One expert with a norm in its middle: no form that is known."""

    def __init__(self, d, f):
        super().__init__()
        self.up, self.norm, self.down = nn.Linear(d, f, bias=False), nn.LayerNorm(f), nn.Linear(f, d, bias=False)

    def forward(self, x):
        return self.down(F.silu(self.norm(self.up(x))))


class Called(Plain):
    """A list of odd experts, which can be called."""

    def make_experts(self, d, f, n):
        self.list = nn.ModuleList(Odd(d, f) for _ in range(n))

    def experts(self, x):
        return torch.stack([expert(x) for expert in self.list])


class Unknown(Plain):
    """The same in common parameters, which cannot."""

    def make_experts(self, d, f, n):
        self.up = nn.Parameter(torch.randn(n, d, f) / d**0.5)
        self.down = nn.Parameter(torch.randn(n, f, d) / f**0.5)

    def experts(self, x):
        return F.silu(F.layer_norm(x @ self.up, (self.f,))) @ self.down


class OnlyFloat32(Plain):
    """A type written into the code."""

    def mix(self, x):
        return super().mix(x.float()).to(torch.float32)

    def combine(self, x):
        return super().combine(x).to(torch.float32)

    def experts(self, x):
        return gated(x.float(), self.gate, self.up, self.down)


class NormalizesLater(Plain):
    """The router returns probabilities, and the block normalizes them."""

    def make_router(self, d, n, k):
        return TopK(d, n, k, normalized=False)

    def combine(self, x):
        combine = super().combine(x)
        return combine / combine.sum(1, keepdim=True)


class Shared(Plain):
    """A shared expert behind a gate of its own, and a routed scale."""

    def __init__(self, d, f, n, k):
        super().__init__(d, f, n, k)
        self.shared = nn.Sequential(nn.Linear(d, f), nn.SiLU(), nn.Linear(f, d))
        self.shared_gate = nn.Linear(d, 1)

    def mix(self, x):
        return 2.5 * super().mix(x) + torch.sigmoid(self.shared_gate(x)) * self.shared(x)


class NumbersInWords(Plain):
    """Experts that no list holds, and that see a norm of what the router sees."""

    def make_experts(self, d, f, n):
        self.norm = nn.LayerNorm(d)
        for e in range(n):
            self.add_module(f"expert_{e}", nn.ModuleDict({"up": nn.Linear(d, f), "down": nn.Linear(f, d)}))

    def experts(self, x):
        x, parts = self.norm(x), [getattr(self, f"expert_{e}") for e in range(self.n)]
        return torch.stack([part["down"](F.gelu(part["up"](x))) for part in parts])


class Unweighted(Unknown):
    """Experts of no known form, added up as they are."""

    def combine(self, x):
        return (super().combine(x) > 0).to(x.dtype)


class Swapped(Called):
    """Outputs of one expert where another was asked."""

    def experts(self, x):
        return super().experts(x).roll(1, dims=0)


class OnInput(Plain):
    """Weights on the wrong side of the experts."""

    def mix(self, x):
        combine = self.combine(x)
        return gated(combine.T.unsqueeze(-1) * x, self.gate, self.up, self.down).sum(0)


class BiasOutside(Strided):
    """Biases are added without the weight."""

    def mix(self, x):
        combine = self.combine(x)
        return (
            torch.einsum("te,etd->td", combine, super().experts(x) - self.bias.unsqueeze(1))
            + (combine > 0).to(x) @ self.bias
        )


class ScaledShared(Shared):
    """The routed scale on everything."""

    def mix(self, x):
        return 2.5 * (Plain.mix(self, x) + self.shared(x))


class RoutedShared(Shared):
    """The shared expert weighted by the router."""

    def mix(self, x):
        return 2.5 * Plain.mix(self, x) + self.combine(x).amax(1, keepdim=True) * self.shared(x)


class NothingShared(Plain):
    """A claim of shared experts, and none."""


class Detached(Plain):
    """Weights cut from the graph."""

    def combine(self, x):
        return super().combine(x).detach()


class HalfDetached(Plain):
    """One matrix cut from the graph."""

    def experts(self, x):
        return gated(x, self.gate.detach(), self.up, self.down)


class Frozen(Plain):
    """Experts that nobody thawed."""

    def make_experts(self, d, f, n):
        super().make_experts(d, f, n)
        self.up.requires_grad_(False)


class MeanOfNone(Plain):
    """A mean over the tokens of an expert, that is nan where there are none."""

    def mix(self, x):
        combine = self.combine(x)
        mean = (combine.T @ x) / (combine > 0).sum(0).unsqueeze(1)
        return super().mix(x) + 0 * mean.sum()


class LeakyEmpty(Plain):
    """Decay written into the forward pass: an expert without tokens has a gradient all the same."""

    def mix(self, x):
        return super().mix(x) + 1e-3 * (self.up - self.up.detach()).mean()


class SumOverTokens(torch.autograd.Function):
    """A gradient divided by the number of tokens in the batch."""

    @staticmethod
    def forward(ctx, x):
        ctx.tokens = x.shape[1]
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient / ctx.tokens


class DividedByBatch(Plain):
    """Experts' gradients depend on how the batch was split."""

    def experts(self, x):
        return SumOverTokens.apply(super().experts(x))


class Tied(Called):
    """One expert, many times."""

    def make_experts(self, d, f, n):
        self.list = nn.ModuleList([Odd(d, f)] * n)


class Equal(Plain):
    """Experts copied from one."""

    def make_experts(self, d, f, n):
        super().make_experts(d, f, n)
        for p in (self.gate, self.up, self.down):
            p.data[:] = p.data[:1]


class ZeroUp(Plain):
    """Zeros that were never overwritten."""

    def make_experts(self, d, f, n):
        super().make_experts(d, f, n)
        self.gate.data.zero_()
        self.up.data.zero_()


class LastLouder(Plain):
    """One expert left out of a loop over the experts."""

    def make_experts(self, d, f, n):
        super().make_experts(d, f, n)
        self.up.data[-1] = torch.randn(d, f)


class FlatFan(Strided):
    """Fan-in of the flat matrix, E * f, taken for one expert's."""

    def make_experts(self, d, f, n):
        super().make_experts(d, f, n)
        self.w_out.data *= n**-0.5


class FanOut(Plain):
    """Fan-in by the wrong axis."""

    def make_experts(self, d, f, n):
        super().make_experts(d, f, n)
        self.down.data = torch.randn(n, f, d) / d**0.5


class TwoSequences(Plain):
    """Batch and time change places on the way in, and not on the way out."""

    def forward(self, x):
        return self.mix(x.transpose(0, 1).reshape(-1, self.d)).view(x.shape)


class SharedForEach(Shared):
    """The shared expert is added once for each activated one."""

    def mix(self, x):
        return super().mix(x) + (self.router.k - 1) * (super().mix(x) - 2.5 * Plain.mix(self, x))


class TokensDetached(Plain):
    """Experts train, and nothing below them does."""

    def experts(self, x):
        return super().experts(x.detach())


class RouterAside(Plain):
    """The router trains, and the tokens get no gradient through it."""

    def combine(self, x):
        return super().combine(x.detach())


class Ones(Plain):
    """One number everywhere."""

    def make_experts(self, d, f, n):
        super().make_experts(d, f, n)
        nn.init.constant_(self.down, 0.01)


class FewDigits(Plain):
    """Added up in bfloat16, returned as float32."""

    def mix(self, x):
        return super().mix(x).bfloat16().to(x.dtype)
