"""Routers that were not in mind when the checks were written: right ones that were refused, broken ones that passed."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def normalized(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    weights, indices = scores.topk(k, dim=-1)
    return weights / weights.sum(-1, keepdim=True), indices


class Softmax(nn.Module):
    """A bias on the logits, which is no selection bias; the parts are methods, for others to change."""

    def __init__(self, d, n, k):
        super().__init__()
        self.n, self.k, self.gate = n, k, nn.Linear(d, n)

    def logits(self, x):
        return self.gate(x)

    def scores(self, x):
        return self.logits(x).softmax(-1)

    def forward(self, x):
        return normalized(self.scores(x), self.k)


# right: logits that are no x W^T


class Normed(Softmax):
    def logits(self, x):
        return self.gate(F.layer_norm(x, x.shape[-1:]) * 1.7)


class Temperature(Softmax):
    def logits(self, x):
        return self.gate(x) / 0.5


class Cosine(Softmax):
    def logits(self, x):
        return F.normalize(x, dim=-1) @ F.normalize(self.gate.weight, dim=-1).T / 0.1


class TwoLayers(Softmax):
    def __init__(self, d, n, k):
        super().__init__(d, n, k)
        self.gate = nn.Sequential(nn.Linear(d, 2 * d), nn.GELU(), nn.Linear(2 * d, n))


class Noisy(Softmax):
    """Noise in training alone, and the weights as one [T, E]."""

    def forward(self, x):
        logits = self.logits(x)
        if self.training:
            logits = logits + 0.1 * torch.randn_like(logits)
        values, indices = logits.topk(self.k, dim=-1)
        return torch.zeros_like(logits).scatter(1, indices, values.softmax(-1))


class CastsByHand(Softmax):
    """A float32 gate in a model of any type."""

    def logits(self, x):
        return F.linear(x.to(torch.float32), self.gate.weight.float(), self.gate.bias.float())


class Lazy(Softmax):
    def __init__(self, d, n, k):
        super().__init__(d, n, k)
        self.gate = nn.LazyLinear(n)


class Sequences(Softmax):
    """Takes [B, T, D] alone."""

    def forward(self, x):
        batch, time, _ = x.shape
        weights, indices = super().forward(x.flatten(0, 1))
        return weights.view(batch, time, -1), indices.view(batch, time, -1)


# right: other losses, sizes and kinds


class ZLoss(Softmax):
    def forward(self, x):
        return *super().forward(x), self.logits(x).logsumexp(-1).square().mean()


class Importance(Softmax):
    """The squared variation of weights summed over tokens: constant at a = 1."""

    def forward(self, x):
        weights, indices = super().forward(x)
        importance = weights.new_zeros(len(x), self.n).scatter(1, indices, weights).sum(0)
        return weights, indices, importance.var(unbiased=False) / importance.mean() ** 2


class BareAtOne(Softmax):
    """Normalizes where there is something to normalize, as DeepSeek's releases do."""

    def forward(self, x):
        scores = self.scores(x)
        return normalized(scores, self.k) if self.k > 1 else scores.topk(1, dim=-1)


class MapOfOne(nn.Module):
    """Switch in transformers: a map of integers, one weight, and the logits."""

    def __init__(self, d, n, k):
        super().__init__()
        self.n, self.gate = n, nn.Linear(d, n, bias=False)

    def forward(self, x):
        logits = self.gate(x)
        weight, index = logits.softmax(-1).max(-1, keepdim=True)
        return F.one_hot(index.squeeze(-1), self.n), weight, logits


class Jumps(nn.Module):
    """SparseMixer: what is far below the best is cut off, so that weights jump where the choice stays."""

    def __init__(self, d, n, k):
        super().__init__()
        self.k, self.gate = k, nn.Linear(d, n, bias=False)

    def forward(self, x):
        scores, weights, chosen = self.gate(x), [], []
        left = scores
        for _ in range(self.k):
            best, index = left.max(-1, keepdim=True)
            far = (best - scores) / scores.abs().maximum(best.abs()) > 0.02
            weights.append(left.masked_fill(far, -torch.inf).softmax(-1).gather(-1, index))
            chosen.append(index)
            left = left.scatter(-1, index, -torch.inf)
        return torch.cat(weights, -1), torch.cat(chosen, -1)


class Relu(Softmax):
    """ReMoE: as many experts as have a positive logit."""

    def forward(self, x):
        return F.relu(self.logits(x))


class Cumulated(Softmax):
    """As many of the best as it takes to 40 % of the probability."""

    def forward(self, x):
        scores = self.scores(x)
        ordered, order = scores.sort(-1, descending=True)
        mask = torch.zeros_like(scores, dtype=torch.bool).scatter(1, order, ordered.cumsum(-1) - ordered < 0.4)
        return scores * mask / (scores * mask).sum(-1, keepdim=True), mask


class Null(Softmax):
    """AdaMoE: half as many experts again that do nothing."""

    def __init__(self, d, n, k):
        super().__init__(d, n + n // 2, k)

    def forward(self, x):
        return self.scores(x).topk(self.k, dim=-1)


RIGHT = {
    Normed: {"gate": "softmax"},
    Temperature: {"gate": "softmax"},
    Cosine: {"gate": "softmax"},
    TwoLayers: {"gate": "softmax"},
    Noisy: {"gate": "softmax"},
    CastsByHand: {"gate": "softmax", "fp32_gate": True},
    Lazy: {},
    Sequences: {},
    ZLoss: {},
    Importance: {},
    BareAtOne: {"gate": "softmax"},
    MapOfOne: {"gate": "softmax", "weight_sum": "free", "top_k": 1},
    Jumps: {"weight_sum": "free"},
    Relu: {"kind": "variable", "weight_sum": "free"},
    Cumulated: {"kind": "variable", "gate": "softmax"},
    Null: {"kind": "variable", "weight_sum": "free"},
}


# broken


class WeightsReversed(Softmax):
    """The weights in the order of another sort than the indices."""

    def forward(self, x):
        weights, indices = super().forward(x)
        return weights.flip(-1), indices


class SkipsTheBest(Softmax):
    def forward(self, x):
        if self.k == self.n:
            return super().forward(x)
        weights, indices = self.scores(x).topk(self.k + 1, dim=-1)
        return normalized(weights[:, 1:], self.k)[0], indices[:, 1:]


class TrainedBias(Softmax):
    """DeepSeek's correction bias is a parameter, and its values are in the weights."""

    def __init__(self, d, n, k):
        super().__init__(d, n, k)
        self.e_score_correction_bias = nn.Parameter(torch.zeros(n))

    def scores(self, x):
        return super().scores(x) + self.e_score_correction_bias


class Overflows(Softmax):
    """exp(x) / sum exp(x) by hand."""

    def scores(self, x):
        exponentials = self.logits(x).exp()
        return exponentials / exponentials.sum(-1, keepdim=True)


class LogOfZero(Softmax):
    """A loss of log p is infinite where p underflows."""

    def scores(self, x):
        return self.logits(x).softmax(-1).log().exp()


class MaskedInPlace(Softmax):
    """The logits that it returns for a loss have lost the experts that were not chosen."""

    def forward(self, x):
        logits = self.logits(x)
        weights, indices = normalized(logits.softmax(-1), self.k)
        logits.data.masked_fill_(torch.ones_like(logits, dtype=torch.bool).scatter(1, indices, False), -1e4)
        return logits, weights, indices


class NotNormalizedInTraining(Softmax):
    def forward(self, x):
        scores = self.scores(x)
        return scores.topk(self.k, dim=-1) if self.training else normalized(scores, self.k)


class WhereTokensAreExperts(Softmax):
    """Tells axes by size."""

    def forward(self, x):
        scores = self.scores(x)
        indices = scores.topk(self.k, dim=-1).indices
        weights = scores.gather(0 if len(x) == self.n else 1, indices)
        return weights / weights.sum(-1, keepdim=True), indices


class OneBuffer(Softmax):
    """Returns its own memory, and writes over it in the next call."""

    def forward(self, x):
        weights, indices = super().forward(x)
        if torch.is_grad_enabled():
            return weights, indices
        if getattr(self, "kept", weights).shape != weights.shape or not hasattr(self, "kept"):
            self.kept = weights.clone()
        return self.kept.copy_(weights), indices


class Frozen(Softmax):
    def __init__(self, d, n, k):
        super().__init__(d, n, k)
        self.gate.requires_grad_(False)


class LeavesGradientsOn(Softmax):
    def forward(self, x):
        torch.set_grad_enabled(True)
        return super().forward(x)


BROKEN = {
    WeightsReversed: ({"gate": "any"}, "gate"),
    SkipsTheBest: ({}, "selection"),
    TrainedBias: ({}, "bias-selection"),
    Overflows: ({}, "extreme-logits"),
    LogOfZero: ({}, "extreme-logits"),
    MaskedInPlace: ({}, "selection"),
    NotNormalizedInTraining: ({}, "weight-sum"),
    WhereTokensAreExperts: ({}, "token-independence"),
    OneBuffer: ({}, "deterministic"),
    Frozen: ({}, "router-gradient"),
    LeavesGradientsOn: ({}, "global-state"),
}
"""Router -> (claim, the check that must fail)."""
