"""The coordinate check of several widths and seeds: ours and that of microsoft/mup give the same numbers.

Both train each model on its own batches with AdamW at one learning rate, and measure the RMS of every branch and of
the logits in each forward pass. mup uses hooks, one model at a time; here all seeds are one stack.
"""

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from mue_check.bench.cases import BenchCase
from mue_check.bench.results import CoordinateRow
from mue_check.bench.setup import BenchSetup
from mue_check.bench.timing import Spread, ratios, time_calls
from mue_check.bench.torch_ways import plain_models
from mue_check.bench.ways import Disagreement
from mue_check.rules import HyperParameters

STEPS = 3
"""mup's own default."""
ABSENT = "mup is not installed: pip install --no-deps mup pyyaml"
TOLERANCE = 1e-3
ADAMW = HyperParameters(lr=2.0**-7, init_std=0.1, weight_decay=0.0, beta2=0.999)
"""Values that mup does not change: torch's defaults, and no weight decay, which its optimizers set to 0."""
RULE = "standard"
"""One learning rate for every role, as get_coord_data sets it for models whose base shapes are their own."""

Coordinates = dict[tuple[int, int, int, str], float]
"""RMS by width, seed, step and name."""


def mup_is_installed() -> bool:
    """Whether microsoft/mup can be imported."""
    return find_spec("mup") is not None and find_spec("yaml") is not None


def fused_coordinates(setups: Sequence[BenchSetup]) -> Coordinates:
    """Ours: one stack for each width."""
    found: Coordinates = {}
    for setup in setups:
        width, runs = setup.case.spec.width, setup.case.runs
        stack = setup.stack(range(runs))
        for step in range(STEPS):
            tokens = stack.batch()[..., :-1]
            rms: dict[str, Tensor] = {}

            def tap(name: str, value: Tensor, rms: dict[str, Tensor] = rms) -> None:
                if name == "logits" or name.endswith("_branch"):
                    rms[name] = value.flatten(1).square().mean(1).sqrt()

            stack.probe(tap, tokens)
            table = torch.stack(list(rms.values())).tolist()
            for name, row in zip(rms, table, strict=True):
                for seed, value in enumerate(row):
                    found[width, seed, step, name] = value
            stack.advance(1)
    return found


class MupCheck:
    """mup's: ``get_coord_data`` with its MuAdamW, over models whose base shapes are their own."""

    def __init__(self, setups: Sequence[BenchSetup]) -> None:
        self.seeds = setups[0].case.runs
        self.device = setups[0].device
        self.models = {s.case.spec.width: [m for m, _ in plain_models(s, self.seeds, batched=False)] for s in setups}
        batches = setups[0].batches(range(self.seeds))
        steps = [batches.of(step) for step in range(STEPS)]
        self.batches = [[(b[seed, :, :-1], b[seed, :, 1:].flatten()) for b in steps] for seed in range(self.seeds)]

    def __call__(self) -> Coordinates:
        """The same numbers as ``fused_coordinates``."""
        from mup.coord_check import get_coord_data

        data = get_coord_data(
            {width: self._lazy(width) for width in self.models},
            _Loader(self.batches, len(self.models)),
            optimizer="adamw",
            lr=ADAMW.lr,
            mup=True,
            nsteps=STEPS,
            nseeds=self.seeds,
            fix_data=False,
            cuda=self.device.type == "cuda",
            output_fdict={"rms": "l2"},
            filter_module_by_name=_is_read,
            show_progress=False,
        )
        rows = zip(data["width"], data["module"], data["t"], data["rms"], strict=True)
        per_run = len(data) // (self.seeds * len(self.models))
        return {
            (width, at // (per_run * len(self.models)), t - 1, _our_name(module)): rms
            for at, (width, module, t, rms) in enumerate(rows)
        }

    def _lazy(self, width: int) -> Any:
        from mup import set_base_shapes

        seeds = iter(self.models[width])
        return lambda: set_base_shapes(deepcopy(next(seeds)), None)


class _Loader:
    """The data loader that mup iterates over once per model: all widths of the first seed, then of the next."""

    def __init__(self, batches: Sequence[Sequence[tuple[Tensor, Tensor]]], widths: int) -> None:
        self.batches, self.widths, self.models = batches, widths, 0

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        seed = self.models // self.widths
        self.models += 1
        return iter(self.batches[seed])


def _is_read(module: str) -> bool:
    return module == "" or module.endswith((".attention", ".ffn"))


def _our_name(module: str) -> str:
    module = module.partition(":")[0]
    if module == "":
        return "logits"
    _, layer, part = module.split(".")
    return f"block{layer}.{part}_branch"


def measure_coordinates(cases: Sequence[BenchCase], device: torch.device, rounds: int) -> Iterator[CoordinateRow]:
    """Time both in interleaved rounds, after comparing their numbers. If mup is missing, its row says so."""
    setups = [BenchSetup(case, device, rule=RULE, base=ADAMW, constant=True) for case in cases]
    calls: dict[str, Callable[[], Coordinates]] = {"fused": partial(fused_coordinates, setups)}
    if mup_is_installed():
        calls["mup"] = MupCheck(setups)  # made before the clock runs; ours draws its weights within
    ours, *theirs = [call() for call in calls.values()]
    for coordinates in theirs:
        require_same(ours, coordinates)
    seconds = time_calls(calls, device, rounds)
    models, seeds = tuple(case.model for case in cases), cases[0].runs
    for way, taken in seconds.items():
        spread, times = Spread.of(taken), ratios(taken, seconds["fused"])
        yield CoordinateRow(way=way, models=models, seeds=seeds, steps=STEPS, seconds=spread, times=times)
    if "mup" not in calls:
        yield CoordinateRow(way="mup", models=models, seeds=seeds, steps=STEPS, note=ABSENT)


def require_same(ours: Coordinates, theirs: Coordinates) -> None:
    """Disagreement if the two have different places, or different numbers."""
    if ours.keys() != theirs.keys():
        raise Disagreement("coordinate check: mup and we measure different places")
    worst = max(abs(ours[key] - theirs[key]) / abs(theirs[key]) for key in ours)
    if not worst <= TOLERANCE:
        raise Disagreement(f"coordinate check: mup's RMS differ by up to {worst:.3g} (tolerance {TOLERANCE:g})")
