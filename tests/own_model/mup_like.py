"""An MLP, a transformer and a vision transformer as they are written with base shapes, right and without them."""

from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BASE = 32
LABELS, HEAD = 10, 8


class Readout(nn.Linear):
    """A linear layer whose input is divided by its width over that of the base."""

    divisor = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x / self.divisor)


class MLP(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(64, width, bias=False)
        self.hidden = nn.Linear(width, width, bias=False)
        self.readout = Readout(width, LABELS, bias=False)

    def forward(self, image: Tensor) -> Tensor:
        return self.readout(F.relu(self.hidden(F.relu(self.first(image.flatten(1))))))


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, -1, HEAD)).permute(2, 0, 3, 1, 4)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, scale=1 / HEAD).transpose(1, 2).flatten(2))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class Transformer(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(LABELS, width)
        self.places = nn.Parameter(0.02 * torch.randn(1, 16, width))
        self.blocks = nn.ModuleList(Block(width) for _ in range(2))
        self.norm, self.readout = nn.LayerNorm(width), Readout(width, LABELS)

    def forward(self, image: Tensor) -> Tensor:
        x = self.tokens(image.flatten(1)[:, :16].mul(3).long().remainder(LABELS)) + self.places
        for block in self.blocks:
            x = block(x)
        return self.readout(self.norm(x).mean(1))


class ViT(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 2, 2)
        self.first = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.places = nn.Parameter(0.02 * torch.randn(1, 17, width))
        self.blocks = nn.ModuleList(Block(width) for _ in range(2))
        self.norm, self.readout = nn.LayerNorm(width), Readout(width, LABELS)

    def forward(self, image: Tensor) -> Tensor:
        x = self.patches(image[:, None]).flatten(2).mT
        x = torch.cat((self.first.expand(len(x), -1, -1), x), 1) + self.places
        for block in self.blocks:
            x = block(x)
        return self.readout(self.norm(x[:, 0]))


KINDS = {"mlp": MLP, "transformer": Transformer, "vit": ViT}


class WithBaseShapes:
    """The four functions. Without ``shapes``, as where they are forgotten, every factor is 1."""

    def __init__(self, kind: str, *, shapes: bool = True, noise: float = 0.3) -> None:
        self.make, self.noise = KINDS[kind], noise
        self.base: float = BASE
        with torch.random.fork_rng(devices=[]):
            of_base = {name: p.shape for name, p in self.make(BASE).named_parameters()}
        self.shapes: Mapping[str, torch.Size] | None = of_base if shapes else None

    def factor(self, name: str, p: Tensor) -> float:
        """Fan-in over that of the base, for a matrix that grows along both axes or for a readout."""
        shape = self.shapes[name] if self.shapes else p.shape
        return p.shape[1] / shape[1] if p.ndim == 2 else 1.0

    @torch.no_grad()
    def model(self, width: int) -> nn.Module:
        """torch's own initialization; biases and the readout are given the base's scale."""
        model = self.make(width)
        for name, module in model.named_modules():
            if isinstance(module, nn.Linear):
                factor = self.factor(f"{name}.weight", module.weight)
                if module.bias is not None:
                    module.bias.mul_(factor**0.5)
                if isinstance(module, Readout):
                    module.divisor = factor
                    module.weight.mul_(factor**0.5)
        return model

    def optimizer(self, model: nn.Module, lr: float) -> torch.optim.Optimizer:
        """One group for each learning rate."""
        groups: dict[float, list[Tensor]] = {}
        for name, p in model.named_parameters():
            hidden = p.ndim == 2 and not name.startswith(("tokens", "first", "readout"))
            groups.setdefault(lr / self.factor(name, p) if hidden else lr, []).append(p)
        return torch.optim.Adam([{"params": group, "lr": rate} for rate, group in groups.items()])

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Cross-entropy."""
        images, labels = batch
        return F.cross_entropy(model(images), labels)

    def batches(self, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Noise around one picture for each label."""
        generator = torch.Generator().manual_seed(seed)
        pictures = torch.randn(LABELS, 8, 8, generator=generator)
        while True:
            labels = torch.randint(LABELS, (32,), generator=generator)
            yield pictures[labels] + self.noise * torch.randn(32, 8, 8, generator=generator), labels


class Accumulated(WithBaseShapes):
    """Its own step adds up the gradients of two halves of the batch."""

    def step(self, model: nn.Module, optimizer: torch.optim.Optimizer, batch: tuple[Tensor, Tensor]) -> None:
        """One update."""
        optimizer.zero_grad()
        for part in zip(batch[0].chunk(2), batch[1].chunk(2), strict=True):
            (self.loss(model, part) / 2).backward()
        optimizer.step()


noisy_mlp = WithBaseShapes("mlp", noise=4.0)
"""Its loss does not end at zero, so its learning rate has an optimum."""
