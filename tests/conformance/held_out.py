"""Routers that were not in mind when the checks were written: right ones that were refused, broken ones that passed."""

import torch
import torch.nn.functional as F
from torch import nn

from tests.specimens import Gated, Softmax, normalized, spread, variant

Biased = variant(Softmax, "Biased", gate_bias=True)
"""The bias is on the logits, so it is no selection bias."""


class TwoLayers(Biased):
    def __init__(self, d, n, k):
        super().__init__(d, n, k)
        self.gate = nn.Sequential(nn.Linear(d, 2 * d), nn.GELU(), nn.Linear(2 * d, n))


class Noisy(Biased):
    """Noise in training alone, and the weights as one [T, E]."""

    def forward(self, x):
        logits = self.logits(x)
        if self.training:
            logits = logits + 0.1 * torch.randn_like(logits)
        values, indices = logits.topk(self.top_k, dim=-1)
        return spread(values.softmax(-1), indices, self.n)


class Lazy(Biased):
    def __init__(self, d, n, k):
        super().__init__(d, n, k)
        self.gate = nn.LazyLinear(n)


class Sequences(Biased):
    """Takes only [B, T, D]."""

    def forward(self, x):
        return tuple(part.view(*x.shape[:2], -1) for part in super().forward(x.flatten(0, 1)))


class Importance(Biased):
    """The squared variation of weights summed over tokens: constant at a = 1."""

    def forward(self, x):
        weights, indices = super().forward(x)
        importance = spread(weights, indices, self.n).sum(0)
        return weights, indices, importance.var(unbiased=False) / importance.mean() ** 2


class MapOfOne(Gated):
    """Switch in transformers: a map of integers, one weight, and the logits."""

    def forward(self, x):
        logits = self.logits(x)
        weight, index = logits.softmax(-1).max(-1, keepdim=True)
        return F.one_hot(index.squeeze(-1), self.n), weight, logits


class Jumps(Gated):
    """SparseMixer: scores far below the best are cut off, so that weights jump where the choice stays."""

    def forward(self, x):
        scores, weights, chosen = self.logits(x), [], []
        left = scores
        for _ in range(self.top_k):
            best, index = left.max(-1, keepdim=True)
            far = (best - scores) / scores.abs().maximum(best.abs()) > 0.02
            weights.append(left.masked_fill(far, -torch.inf).softmax(-1).gather(-1, index))
            chosen.append(index)
            left = left.scatter(-1, index, -torch.inf)
        return torch.cat(weights, -1), torch.cat(chosen, -1)


class Cumulated(Biased):
    """As many of the best as it takes to reach 40 % of the probability."""

    def forward(self, x):
        scores = self.scores(x)
        ordered, order = scores.sort(-1, descending=True)
        mask = torch.zeros_like(scores, dtype=torch.bool).scatter(1, order, ordered.cumsum(-1) - ordered < 0.4)
        return scores * mask / (scores * mask).sum(-1, keepdim=True), mask


class Null(Biased):
    """AdaMoE: half as many experts again that do nothing."""

    def __init__(self, d, n, k):
        super().__init__(d, n + n // 2, k)

    def forward(self, x):
        return self.scores(x).topk(self.top_k, dim=-1)


class WeightNorm(Biased):
    """The norm of the weight is a parameter, so its rows are no logits' directions alone."""

    def __init__(self, d, n, k):
        super().__init__(d, n, k)
        self.gate = nn.utils.parametrizations.weight_norm(self.gate)


def _by_hand(m, x):
    """A float32 gate in a model of any type."""
    return F.linear(x.to(torch.float32), m.gate.weight.float(), m.gate.bias.float())


def _cosine(m, x):
    return F.normalize(x, dim=-1) @ F.normalize(m.gate.weight, dim=-1).T / 0.1


class LowRankCosine(Gated):
    """X-MoE: a learned temperature, so steep that finite differences of a usual step are off by 4 %."""

    def __init__(self, d, n, k):
        super().__init__(d, n, k)
        self.project, self.temperature = nn.Linear(d, 8, bias=False), nn.Parameter(torch.tensor(-2.66))
        self.gate = nn.Linear(8, n, bias=False)
        nn.init.normal_(self.gate.weight)

    def forward(self, x):
        logits = F.normalize(self.project(x), dim=-1) @ F.normalize(self.gate.weight, dim=-1).T
        values, indices = (logits / self.temperature.exp()).topk(self.top_k, dim=-1)
        return values.softmax(-1), indices


RIGHT = {
    variant(Biased, "Normed", logits=lambda m, x: m.gate(F.layer_norm(x, x.shape[-1:]) * 1.7)): {"gate": "softmax"},
    variant(Biased, "Temperature", logits=lambda m, x: m.gate(x) / 0.5): {"gate": "softmax"},
    variant(Softmax, "Cosine", logits=_cosine): {"gate": "softmax"},
    LowRankCosine: {"gate": "softmax"},
    TwoLayers: {"gate": "softmax"},
    Noisy: {"gate": "softmax"},
    variant(Biased, "CastsByHand", logits=_by_hand): {"gate": "softmax", "fp32_gate": True},
    Lazy: {},
    Sequences: {},
    WeightNorm: {"gate": "softmax"},
    variant(
        Biased, "ZLoss", forward=lambda m, x: (*Biased.forward(m, x), m.logits(x).logsumexp(-1).square().mean())
    ): {},
    Importance: {},
    # normalizes only at a > 1, as DeepSeek's releases do
    variant(
        Biased, "BareAtOne", forward=lambda m, x: Biased.forward(m, x) if m.top_k > 1 else m.scores(x).topk(1, dim=-1)
    ): {"gate": "softmax"},
    MapOfOne: {"gate": "softmax", "weight_sum": "free", "top_k": 1},
    Jumps: {"weight_sum": "free"},
    # ReMoE: as many experts as have a positive logit
    variant(Biased, "Relu", forward=lambda m, x: F.relu(m.logits(x))): {"kind": "variable", "weight_sum": "free"},
    Cumulated: {"kind": "variable", "gate": "softmax"},
    # Soft MoE: every token takes every expert
    variant(Biased, "Soft", forward=lambda m, x: Biased.scores(m, x)): {
        "kind": "variable",
        "weight_sum": "free",
        "returns": {"combine": 0},
    },
    Null: {"kind": "variable", "weight_sum": "free"},
}


class SkipsTheBest(Biased):
    def forward(self, x):
        if self.top_k == self.n:
            return super().forward(x)
        weights, indices = self.scores(x).topk(self.top_k + 1, dim=-1)
        return normalized(weights[:, 1:], self.top_k)[0], indices[:, 1:]


class TrainedBias(Biased):
    """DeepSeek's correction bias is a parameter, and its values are in the weights."""

    def __init__(self, d, n, k):
        super().__init__(d, n, k)
        self.e_score_correction_bias = nn.Parameter(torch.zeros(n))

    def scores(self, x):
        return super().scores(x) + self.e_score_correction_bias


class UnsavedBias(Gated):
    """The balancing bias is lost at every resume."""

    def __init__(self, d, n, k):
        super().__init__(d, n, k)
        self.register_buffer("bias", torch.zeros(n), persistent=False)

    def forward(self, x):
        scores = self.scores(x)
        indices = (scores + self.bias).topk(self.top_k, dim=-1).indices
        weights = scores.gather(1, indices)
        return weights / weights.sum(-1, keepdim=True), indices


class MovesItsBias(TrainedBias):
    """The bias is a parameter without a gradient, moved by the load of every batch instead of every step."""

    def forward(self, x):
        if self.training:
            self.e_score_correction_bias.requires_grad_(False).add_(0.01 * (self.logits(x).mean(0) > 0))
        return Biased.forward(self, x)


class BiasInTraining(Gated):
    """The bias is in the weights in training mode."""

    def __init__(self, d, n, k):
        super().__init__(d, n, k)
        self.register_buffer("bias", torch.zeros(n))

    def forward(self, x):
        scores = self.scores(x)
        biased = scores + self.bias
        indices = biased.topk(self.top_k, dim=-1).indices
        weights = (biased if self.training else scores).gather(1, indices)
        return weights / weights.sum(-1, keepdim=True), indices


class MaskedInPlace(Biased):
    """The logits that it returns for a loss have lost the experts that were not chosen."""

    def forward(self, x):
        logits = self.logits(x)
        weights, indices = normalized(logits.softmax(-1), self.top_k)
        logits.data.masked_fill_(torch.ones_like(logits, dtype=torch.bool).scatter(1, indices, False), -1e4)
        return logits, weights, indices


class WhereTokensAreExperts(Biased):
    """Infers axes from sizes."""

    def forward(self, x):
        scores = self.scores(x)
        indices = scores.topk(self.top_k, dim=-1).indices
        weights = scores.gather(0 if len(x) == self.n else 1, indices)
        return weights / weights.sum(-1, keepdim=True), indices


class OneBuffer(Biased):
    """Returns its own memory, and writes over it in the next call."""

    kept = torch.empty(0)

    def forward(self, x):
        weights, indices = super().forward(x)
        if torch.is_grad_enabled():
            return weights, indices
        if self.kept.shape != weights.shape:
            self.kept = weights.clone()
        return self.kept.copy_(weights), indices


class Frozen(Biased):
    def __init__(self, d, n, k):
        super().__init__(d, n, k)
        self.gate.requires_grad_(False)


class InAList(Biased):
    """A layer that is no module's: it does not move, is not saved, and no optimizer gets it."""

    def __init__(self, d, n, k):
        super().__init__(d, n, k)
        self.before = [nn.Linear(d, d)]

    def logits(self, x):
        return self.gate(self.before[0](x))


class InABuffer(Biased):
    def __init__(self, d, n, k):
        super().__init__(d, n, k)
        weight = self.gate.weight.detach()
        del self.gate
        self.register_buffer("weight", weight)

    def logits(self, x):
        return x @ self.weight.T


def _seeded_noise(m, x):
    if m.training:
        torch.manual_seed(5)
    return m.gate(x) + 0.1 * m.training * torch.randn(len(x), m.n)


def _unless_training(m, x):
    scores = m.scores(x)
    return scores.topk(m.top_k, dim=-1) if m.training else normalized(scores, m.top_k)


def _reversed(m, x):
    """The weights in the order of another sort than the indices."""
    weights, indices = Biased.forward(m, x)
    return weights.flip(-1), indices


def _exponentials(m, x):
    exponentials = m.logits(x).exp()
    return exponentials / exponentials.sum(-1, keepdim=True)


def _in_bfloat16(m, x):
    return (x.bfloat16() @ m.gate.weight.bfloat16().T).softmax(-1).to(x.dtype)


def _with_gradients(m, x):
    torch.set_grad_enabled(True)
    return Biased.forward(m, x)


def _worst(m, x):
    scores, indices = m.scores(x).topk(m.top_k, dim=-1, largest=False)
    return scores / scores.sum(-1, keepdim=True), indices


def _same_as_at_first(m, x):
    logits = m.logits(x)
    if len(getattr(m, "seen", ())) != len(x):
        m.seen = logits.topk(m.top_k, dim=-1).indices
    return logits.gather(-1, m.seen).softmax(-1), m.seen


def _best_a_times(m, x):
    indices = m.logits(x).argmax(-1, keepdim=True).expand(-1, m.top_k)
    return m.logits(x).gather(-1, indices).softmax(-1), indices


def _half_detached(m, x):
    weights, indices = Softmax.forward(m, x)
    return 0.5 * weights + 0.5 * weights.detach(), indices


def _by_hand_exponentials(m, x):
    values, indices = m.logits(x).topk(m.top_k, dim=-1)
    exponentials = (10 * values).exp()
    return exponentials / exponentials.sum(-1, keepdim=True), indices


BROKEN = {
    variant(Biased, "WeightsReversed", forward=_reversed): ({"gate": "any"}, "gate"),
    SkipsTheBest: ({}, "selection"),
    TrainedBias: ({}, "bias-selection"),
    variant(Biased, "Overflows", scores=_exponentials): ({}, "extreme-logits"),
    # a loss of log p is infinite where p underflows
    variant(Biased, "LogOfZero", scores=lambda m, x: Biased.scores(m, x).log().exp()): ({}, "extreme-logits"),
    UnsavedBias: ({}, "bias-selection"),
    BiasInTraining: ({}, "bias-selection"),
    MovesItsBias: ({"selection_bias": "e_score_correction_bias"}, "micro-batches"),
    MaskedInPlace: ({}, "selection"),
    variant(Biased, "NotNormalizedInTraining", forward=_unless_training): ({}, "weight-sum"),
    WhereTokensAreExperts: ({}, "token-independence"),
    OneBuffer: ({}, "deterministic"),
    Frozen: ({}, "router-gradient"),
    InAList: ({}, "runs"),
    InABuffer: ({}, "router-gradient"),
    variant(Biased, "SeedsInTraining", logits=_seeded_noise): ({}, "global-state"),
    # with two experts a token, any choice is the best of some groups
    variant(Softmax, "InBfloat16", scores=_in_bfloat16): ({}, "gate-precision"),
    variant(Gated, "WorstExperts", forward=_worst): ({}, "selection"),
    variant(Gated, "Stale", forward=_same_as_at_first): ({}, "token-permutation"),
    variant(Gated, "BatchNormed", logits=lambda m, x: m.gate(x) - m.gate(x).mean(0)): (
        {},
        "token-independence causality padding",
    ),
    variant(Gated, "Repeats", forward=_best_a_times): ({}, "load"),
    variant(Softmax, "NoisyInEvaluation", logits=lambda m, x: m.gate(x) + 0.1 * torch.randn(len(x), m.n)): (
        {},
        "deterministic",
    ),
    variant(Softmax, "FavorsByName", logits=lambda m, x: m.gate(x) + 0.2 * torch.arange(m.n)): (
        {},
        "expert-permutation",
    ),
    variant(Softmax, "OverflowsAmongTheBest", forward=_by_hand_exponentials): ({}, "extreme-logits"),
    variant(Softmax, "HalvesTheGradient", forward=_half_detached): ({}, "router-gradient-exact"),
    variant(Biased, "LeavesGradientsOn", forward=_with_gradients): ({}, "global-state"),
}
"""Router -> (claim, the checks that must fail)."""
