"""Images on a device, cut into patches: noised examples for a stack of diffusion models.

Training noise and times come from a hash of the run's seed, the step and the place: on every device the same, in any
stack the same, and drawn inside a CUDA graph. Held-out noise and times are fixed and the same for all runs, so that
their scatter cancels between runs.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mue_check.data import Images
from mue_check.models.batch_order import set_order
from mue_check.models.parameters import stable_seed
from mue_check.models.patches import grid_of, to_patches
from mue_check.routing.content_blind import mix
from mue_check.spec import DiffusionSpec, TrainSpec

_MASK = 2**32 - 1
_STEP = 0x9E3779B9


class Noised(NamedTuple):
    """Examples and the noise that is mixed into them: ``clean`` and ``noise`` [R, B, T, P], ``time`` [R, B] from 0
    (clean) to 1 (noise), and the class ``label`` [R, B] int64."""

    clean: Tensor
    noise: Tensor
    time: Tensor
    label: Tensor

    @property
    def noisy(self) -> Tensor:
        """The point at ``time`` on the straight line from the example to its noise (arXiv 2210.02747)."""
        return torch.lerp(self.clean, self.noise, self.time[..., None, None])

    @property
    def velocity(self) -> Tensor:
        """The direction of that line, which a model predicts."""
        return self.noise - self.clean


class ImageExamples:
    """Examples of one corpus for R runs."""

    def __init__(self, spec: DiffusionSpec, train: TrainSpec, data: Images, runs: int, device: torch.device) -> None:
        grid = grid_of(spec, data)
        self.train, self.runs, self.device = train, runs, device
        self.patches = to_patches(torch.from_numpy(data.train), grid, spec).to(device)
        self.labels = torch.from_numpy(data.train_labels).to(device)
        self.order = torch.empty(train.steps, runs, train.batch, dtype=torch.int64, device=device)
        self.seeds = torch.empty(runs, dtype=torch.int64, device=device)
        clean = to_patches(torch.from_numpy(data.heldout), grid, spec)
        generator = torch.Generator().manual_seed(stable_seed("held-out noise", data.fingerprint))
        count = len(clean)
        self._heldout = Noised(
            clean=clean.to(device),
            noise=torch.randn(clean.shape, generator=generator).to(device),
            time=((torch.randperm(count, generator=generator) + 0.5) / count).to(device),
            label=torch.from_numpy(data.heldout_labels).to(device),
        )

    def restart(self, seeds: Sequence[int]) -> None:
        """Order the examples of each run by its seed, and draw its noise from it, in place."""
        set_order(self.order, len(self.patches), self.train, seeds)
        self.seeds.copy_(torch.tensor([stable_seed(seed, "noise") & _MASK for seed in seeds]))

    def at(self, step: Tensor) -> Noised:
        """The noised examples of a step, which a device counter names."""
        chosen = self.order.index_select(0, step)[0]
        clean = self.patches[chosen]
        key = mix((self.seeds + step * _STEP) & _MASK)
        # half of the hashes give radii and half angles (Box and Muller); an odd number of normals leaves one over
        pairs = -(-clean[0].numel() // 2)
        uniform = uniforms(key, 2 * pairs + self.train.batch)
        radius = uniform[:, :pairs].log().mul(-2).sqrt()
        angle = uniform[:, pairs : 2 * pairs] * (2 * math.pi)
        normal = torch.cat([radius * angle.cos(), radius * angle.sin()], 1)[:, : clean[0].numel()]
        return Noised(clean, normal.view_as(clean), stratified(uniform[:, 2 * pairs :]), self.labels[chosen])

    def drawn(self, runs: int, generator: torch.Generator) -> Noised:
        """Random training examples and noise."""
        shape = (runs, self.train.batch)
        chosen = torch.randint(0, len(self.patches), shape, generator=generator).to(self.device)
        clean = self.patches[chosen]
        noise = torch.randn(clean.shape, generator=generator).to(self.device)
        time = stratified(torch.rand(shape, generator=generator)).to(self.device)
        return Noised(clean, noise, time, self.labels[chosen])

    def heldout(self) -> Iterator[tuple[Noised, int]]:
        """The held-out examples by batches of the training's size."""
        for part in zip(*(torch.split(value, self.train.batch) for value in self._heldout), strict=True):
            yield self._for_all_runs(part), len(part[0])

    def observed(self, count: int | None = None) -> Noised:
        """Held-out examples."""
        return self._for_all_runs([value[:count] for value in self._heldout])

    def _for_all_runs(self, parts: Sequence[Tensor]) -> Noised:
        return Noised(*(part.expand(self.runs, *part.shape) for part in parts))


def uniforms(key_R: Tensor, count: int) -> Tensor:
    """[R, count] float32 in (0, 1]: hashes of a key below 2^32 and the place."""
    place = torch.arange(count, device=key_R.device)
    hashed = mix((key_R.unsqueeze(-1) + place * _STEP) & _MASK)
    return (hashed.float() + 0.5) * 2.0**-32


def stratified(uniform_RB: Tensor) -> Tensor:
    """[R, B] times: one in each of B equal parts of (0, 1]."""
    batch = uniform_RB.shape[-1]
    return (torch.arange(batch, device=uniform_RB.device) + uniform_RB) / batch
