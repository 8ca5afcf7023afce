"""Blocks as people write them, each with something that hides its parts from the checks; then one mistake each."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from mue_check.mutants.routing.experts import SwiGLU
from tests.specimens import Experts, Softmax, normalized, spread, variant


def gated(x, gate, up, down):
    return (F.silu(x @ gate) * (x @ up)) @ down


def drawn(*shape):
    """A parameter [..., in, out] with a standard deviation of 1/sqrt(in)."""
    return nn.Parameter(torch.randn(*shape) / shape[-2] ** 0.5)


class Plain(nn.Module):
    """gate, up and down [E, in, out]; the parts are methods, for others to change."""

    router_class = Softmax

    def __init__(self, d, f, n, k):
        super().__init__()
        self.n, self.d, self.f, self.k = n, d, f, k
        self.router = self.router_class(d, n, k)
        self.make_experts(d, f, n)

    def make_experts(self, d, f, n):
        self.gate, self.up, self.down = drawn(n, d, f), drawn(n, d, f), drawn(n, f, d)

    def experts(self, x):
        """[E, T, d]."""
        return gated(x, self.gate, self.up, self.down)

    def combine(self, x):
        return spread(*self.router(x), self.n)

    def mix(self, x):
        return torch.einsum("te,etd->td", self.combine(x), self.experts(x))

    def forward(self, x):
        return self.mix(x.reshape(-1, self.d)).view(x.shape)


class DropsInside(Plain):
    """An expert takes 2 T a / E tokens; the router does not know."""

    def combine(self, x):
        combine = super().combine(x)
        taken = combine > 0
        return combine * (taken.cumsum(0) <= math.ceil(2 * len(x) * self.router.top_k / self.n))


class ScaledByA(Plain):
    """Multiplies the routed sum by Complete-muE's R = a."""

    def mix(self, x):
        return self.router.top_k * super().mix(x)


class AddsItsInput(Plain):
    def mix(self, x):
        return x + super().mix(x)


class InlineGate(nn.Module):
    """No router module: a Linear and the rest inline; experts of two layers with biases, skipped when empty."""

    def __init__(self, d, f, n, k):
        super().__init__()
        self.top_k = k
        self.gate = nn.Linear(d, n, bias=False)
        self.experts = Experts(nn.Sequential(nn.Linear(d, f), nn.GELU(), nn.Linear(f, d)) for _ in range(n))

    def forward(self, x):
        rows = x.reshape(-1, x.shape[-1])
        return self.experts.mixed(rows, *normalized(F.softmax(self.gate(rows), dim=-1), self.top_k)).view(x.shape)


class Strided(Plain):
    """Flat [d, f*E] with the expert as the fast axis, no gate, squared relu, a bias on the output."""

    def make_experts(self, d, f, n):
        self.w_in = drawn(d, f * n)
        self.w_out = nn.Parameter(torch.randn(f * n, d) / f**0.5)
        self.bias = nn.Parameter(torch.zeros(n, d))

    def experts(self, x):
        up = self.w_in.view(self.d, self.f, self.n).permute(2, 0, 1)
        down = self.w_out.view(self.f, self.n, self.d).permute(1, 0, 2)
        return F.relu(x @ up).square() @ down + self.bias.unsqueeze(1)


class ZeroDown(Plain):
    """Experts that output 0 at the start, under a leading axis of size 1, drawn by Xavier's law."""

    def make_experts(self, d, f, n):
        std = (2 / (d + f)) ** 0.5
        self.gate, self.up = (nn.Parameter(std * torch.randn(1, d, n, f)) for _ in range(2))
        self.down = nn.Parameter(torch.zeros(1, n, f, d))

    def experts(self, x):
        return gated(x, self.gate[0].transpose(0, 1), self.up[0].transpose(0, 1), self.down[0])


class Normed(Plain):
    """A norm inside, a residual around, and the logits as a second output."""

    def __init__(self, d, f, n, k):
        super().__init__(d, f, n, k)
        self.norm = nn.LayerNorm(d)

    def forward(self, x):
        rows = self.norm(x).reshape(-1, self.d)
        return x + self.mix(rows).view(x.shape), self.router.logits(rows)


class Odd(nn.Module):
    """One expert with a norm in its middle: no form that the checks know."""

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
        self.up, self.down = drawn(n, d, f), drawn(n, f, d)

    def experts(self, x):
        return F.silu(F.layer_norm(x @ self.up, (self.f,))) @ self.down


class OnlyFloat32(Plain):
    """A type written into the code."""

    def mix(self, x):
        return super().mix(x.float()).to(torch.float32)

    def combine(self, x):
        return super().combine(x).to(torch.float32)

    def experts(self, x):
        return super().experts(x.float())


class NormalizesLater(Plain):
    """The router returns probabilities, and the block normalizes them."""

    router_class = variant(Softmax, "Probabilities", forward=lambda m, x: m.scores(x).topk(m.top_k, dim=-1))

    def combine(self, x):
        combine = super().combine(x)
        return combine / combine.sum(1, keepdim=True)


class Shared(Plain):
    """A shared expert behind its own gate, and a routed scale."""

    def __init__(self, d, f, n, k):
        super().__init__(d, f, n, k)
        self.shared = nn.Sequential(nn.Linear(d, f), nn.SiLU(), nn.Linear(f, d))
        self.shared_gate = nn.Linear(d, 1)

    def mix(self, x):
        return 2.5 * super().mix(x) + torch.sigmoid(self.shared_gate(x)) * self.shared(x)


class NumbersInWords(Plain):
    """Experts that are in no list, with a norm of the router's input as their own."""

    def make_experts(self, d, f, n):
        self.norm = nn.LayerNorm(d)
        for e in range(n):
            self.add_module(f"expert_{e}", nn.ModuleDict({"up": nn.Linear(d, f), "down": nn.Linear(f, d)}))

    def experts(self, x):
        x, parts = self.norm(x), [getattr(self, f"expert_{e}") for e in range(self.n)]
        return torch.stack([part["down"](F.gelu(part["up"](x))) for part in parts])


class OneShared(Plain):
    """One more expert that sees every token, times a factor."""

    factor = 1.0

    def __init__(self, d, f, n, k):
        super().__init__(d, f, n, k)
        self.make_shared(d, f)

    def make_shared(self, d, f):
        self.shared = SwiGLU(d, f)

    def shared_part(self, x):
        return self.shared(x)

    def mix(self, x):
        return super().mix(x) + self.factor * self.shared_part(x)


class GatedShared(OneShared):
    def make_shared(self, d, f):
        self.shared, self.shared_gate = SwiGLU(d, f), nn.Linear(d, 1, bias=False)

    def shared_part(self, x):
        return self.shared_gate(x).sigmoid() * self.shared(x)


class BareShared(OneShared):
    """No module, just two parameters."""

    def make_shared(self, d, f):
        self.to_hidden, self.to_width = drawn(d, f), drawn(f, d)

    def shared_part(self, x):
        return F.relu(x @ self.to_hidden) @ self.to_width


class TwoShared(OneShared):
    def make_shared(self, d, f):
        self.shared = nn.ModuleList(SwiGLU(d, f) for _ in range(2))

    def shared_part(self, x):
        return self.shared[0](x) + self.shared[1](x)


class Nulls(Plain):
    """Three more columns of null experts, which pass their input on."""

    router_class = staticmethod(lambda d, n, k: Softmax(d, n + 3, k))
    passes = True

    def combine(self, x):
        return spread(*self.router(x), self.n + 3)[:, : self.n]

    def mix(self, x):
        nulls = spread(*self.router(x), self.n + 3)[:, self.n :].sum(-1, keepdim=True)
        return super().mix(x) + (nulls * x if self.passes else 0.0)


class Lora(Plain):
    """Adapters on experts that are frozen."""

    live = True

    def make_experts(self, d, f, n):
        super().make_experts(d, f, n)
        self.requires_grad_(False)
        self.router.requires_grad_(True)
        self.a, self.b = drawn(n, f, 3), nn.Parameter(torch.zeros(n, 3, d))

    def experts(self, x):
        more = self.a @ self.b
        return gated(x, self.gate, self.up, self.down + (more if self.live else more.detach()))


class OnInput(Plain):
    """Weights on the experts' input."""

    def mix(self, x):
        return self.experts(self.combine(x).T.unsqueeze(-1) * x).sum(0)


class Inside(OnInput):
    """A linear router: the block itself gates."""

    router_class = staticmethod(lambda d, n, k: nn.Linear(d, n, bias=False))

    def combine(self, x):
        logits = self.router(x)
        best = logits.topk(self.k, -1)
        return torch.full_like(logits, -torch.inf).scatter(1, best.indices, best.values).sigmoid()


class Scaled(Plain):
    """One gate for each channel, which starts at zero."""

    def make_experts(self, d, f, n):
        super().make_experts(d, f, n)
        self.scale = nn.Parameter(torch.zeros(d))

    def mix(self, x):
        return self.scale * super().mix(x)


class Modulated(Plain):
    """Shift, scale and gate of a fixed condition start at zero, on a residual stream."""

    factor = 1.0

    def make_experts(self, d, f, n):
        super().make_experts(d, f, n)
        self.modulation = nn.Linear(d, 3 * d)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)
        self.register_buffer("condition", torch.linspace(-1, 1, d))

    def forward(self, x):
        shift, scale, gate = self.modulation(F.silu(self.condition)).chunk(3, -1)
        return x + self.factor * gate * super().forward(F.rms_norm(x, x.shape[-1:]) * (1 + scale) + shift)


class Silent(Plain):
    """No gate: its experts start at zero, and so does a bias that opens nothing."""

    def make_experts(self, d, f, n):
        super().make_experts(d, f, n)
        self.bias = nn.Parameter(torch.zeros(d))
        nn.init.zeros_(self.down)

    def mix(self, x):
        return super().mix(x) + self.bias


# Broken: what a block routes, and how it mixes

# the mixture counts half, behind a gate that starts at zero
Halved = variant(Modulated, "Halved", factor=0.5)
GatedTwice = variant(GatedShared, "GatedTwice", factor=2.0)
# the softmax of one number is 1: the gate is dead
GatedByOne = variant(GatedShared, "GatedByOne", shared_part=lambda m, x: m.shared_gate(x).softmax(-1) * m.shared(x))
InsideOnOutput = variant(Inside, "InsideOnOutput", mix=Plain.mix)

# experts of no known form, added up without weights
Unweighted = variant(Unknown, "Unweighted", combine=lambda m, x: (Unknown.combine(m, x) > 0).to(x.dtype))
# outputs of another expert than the one that was chosen
Swapped = variant(Called, "Swapped", experts=lambda m, x: Called.experts(m, x).roll(1, dims=0))
# the last matrix of another expert than the one that was chosen
NextDown = variant(Plain, "NextDown", experts=lambda m, x: gated(x, m.gate, m.up, m.down.roll(1, dims=0)))
# a claim of shared experts, and none
NothingShared = variant(Plain, "NothingShared")
# added up in bfloat16, returned as float32
FewDigits = variant(Plain, "FewDigits", mix=lambda m, x: Plain.mix(m, x).bfloat16().to(x.dtype))
# batch and time change places on the way in, and not on the way out
TwoSequences = variant(
    Plain, "TwoSequences", forward=lambda m, x: m.mix(x.transpose(0, 1).reshape(-1, m.d)).view(x.shape)
)
# the routed scale on everything
ScaledShared = variant(Shared, "ScaledShared", mix=lambda m, x: 2.5 * (Plain.mix(m, x) + m.shared(x)))


class BiasOutside(Strided):
    """Biases are added without the weight."""

    def mix(self, x):
        combine = self.combine(x)
        weighted = torch.einsum("te,etd->td", combine, self.experts(x) - self.bias.unsqueeze(1))
        return weighted + (combine > 0).to(x) @ self.bias


class NextBias(Plain):
    """The bias inside is that of another expert."""

    def make_experts(self, d, f, n):
        super().make_experts(d, f, n)
        self.bias = nn.Parameter(torch.zeros(n, f))

    def experts(self, x):
        return F.silu(x @ self.gate + self.bias.roll(1, dims=0).unsqueeze(1)) * (x @ self.up) @ self.down


class RoutedShared(Shared):
    """The shared expert weighted by the router."""

    def mix(self, x):
        return 2.5 * Plain.mix(self, x) + self.combine(x).amax(1, keepdim=True) * self.shared(x)


class SharedForEach(Shared):
    """The shared expert is added once for each activated one."""

    def mix(self, x):
        return super().mix(x) + (self.router.top_k - 1) * (super().mix(x) - 2.5 * Plain.mix(self, x))


# Broken: gradients


class DividesGradient(torch.autograd.Function):
    """A gradient divided by the number of tokens in the batch."""

    @staticmethod
    def forward(ctx, x):
        ctx.tokens = x.shape[1]
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient / ctx.tokens


# weights cut from the graph
Detached = variant(Plain, "Detached", combine=lambda m, x: Plain.combine(m, x).detach())
# one matrix cut from the graph
HalfDetached = variant(Plain, "HalfDetached", experts=lambda m, x: gated(x, m.gate.detach(), m.up, m.down))
# experts' gradients depend on how the batch was split
DividedByBatch = variant(Plain, "DividedByBatch", experts=lambda m, x: DividesGradient.apply(Plain.experts(m, x)))
# decay written into the forward pass: an expert without tokens has a gradient all the same
LeakyEmpty = variant(Plain, "LeakyEmpty", mix=lambda m, x: Plain.mix(m, x) + 1e-3 * (m.up - m.up.detach()).mean())
# experts train, and nothing below them does
TokensDetached = variant(Plain, "TokensDetached", experts=lambda m, x: Plain.experts(m, x.detach()))
# the router trains, and the tokens get no gradient through it
RouterAside = variant(Plain, "RouterAside", combine=lambda m, x: Plain.combine(m, x.detach()))


class MeanOfNone(Plain):
    """A mean over the tokens of an expert, that is nan where there are none."""

    def mix(self, x):
        combine = self.combine(x)
        mean = (combine.T @ x) / (combine > 0).sum(0).unsqueeze(1)
        return super().mix(x) + 0 * mean.sum()


# adapters cut from the graph
DeadLora = variant(Lora, "DeadLora", live=False)


# Broken: initial values


def started(name, change, base=Plain):
    """The block with its initial values changed."""

    def make_experts(self, d, f, n):
        base.make_experts(self, d, f, n)
        with torch.no_grad():
            change(self)

    return variant(base, name, make_experts=make_experts)


# one expert, many times
Tied = variant(Called, "Tied", make_experts=lambda m, d, f, n: setattr(m, "list", nn.ModuleList([Odd(d, f)] * n)))
# experts that were never unfrozen
Frozen = started("Frozen", lambda m: m.up.requires_grad_(False))
# adapters that were never unfrozen
FrozenLora = started("FrozenLora", lambda m: m.a.requires_grad_(False), Lora)
# experts copied from one
Equal = started("Equal", lambda m: [p.copy_(p[:1].expand_as(p)) for p in (m.gate, m.up, m.down)])
# zeros that were never overwritten
ZeroUp = started("ZeroUp", lambda m: (m.gate.zero_(), m.up.zero_()))
# one expert left out of a loop over the experts
LastLouder = started("LastLouder", lambda m: m.up[-1].normal_())
# fan-in of the flat matrix, E * f, taken for one expert's
FlatFan = started("FlatFan", lambda m: m.w_out.mul_(m.n**-0.5), Strided)
# fan-in by the wrong axis
FanOut = started("FanOut", lambda m: m.down.normal_(std=m.d**-0.5))
# one number everywhere
Ones = started("Ones", lambda m: nn.init.constant_(m.down, 0.01))
