"""Does the load reach its target? Our steering against the published rule of one update per step.

    python bench/load_control.py --out reports/bench

Trains the mixture of the sigma_0 laboratory (cpu tier, Markov text, where the optimum is sharp) under Zipf loads, at
its tuned learning rate and at four times that, as in a sweep. The published rule moves the bias by a fixed step after
each batch (arXiv 2408.15664, algorithm 1), here towards the same target. On held-out text its bias is frozen, as
published; steering continues batch by batch, as when the suites evaluate. Writes load_control.csv and load_control.md.
"""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from mue_check.catalog import get_tier
from mue_check.data import load_corpus
from mue_check.execute.process import prepare_process
from mue_check.models.balancing import LayerRouting
from mue_check.models.load_steering import LoadSteering
from mue_check.routing.choice import assignments
from mue_check.routing.variants import route
from mue_check.rules import get_rule
from mue_check.spec import Experts, Scenario
from mue_check.spec_text import parse_scenario
from mue_check.training import Stack

LOADS = ("zipf:0", "zipf:0.5", "zipf:1", "zipf:1.5")
STEPS = (200, 400)
SIGN_STEPS = (0.001, 0.003, 0.01, 0.03, 0.1)
"""The first is the published one."""
USUAL = "16e2a,h=16"
OTHERS = (
    "16e2a,h=16,router=softmax_norm",
    "16e2a,h=16,router=sigmoid_mean",
    "16e2a2g,h=16,router=sigmoid_group_norm",
    "16e2a2g,h=16,router=moge",
    "16e1a,h=16,router=switch",
    "16e2a1s,h=16,router=deepseek_v3",
)
"""Steered alone, for the shorter training: what the laboratory measures gamma of."""
SEEDS, RATES, WINDOW = (0, 1, 2, 3), (1.0, 4.0), 50
HELDOUT, CARRIED = "held-out", "held-out, carried on"
KEYS = ["model", "load", "steps", "control", "rate"]


class SignRule(LoadSteering):
    """One move of the bias after each batch, by ``step`` towards the target; a copy of it stays where it is."""

    def __init__(self, experts: Experts, *, depth: int, runs: int, device: torch.device, step: float) -> None:
        super().__init__(experts, depth=depth, runs=runs, device=device)
        self.step = step

    def copy(self) -> LoadSteering:
        depth, runs, _ = self.bias_LRE.shape
        other = SignRule(self.experts, depth=depth, runs=runs, device=self.bias_LRE.device, step=0.0)
        other.bias_LRE.copy_(self.bias_LRE)
        return other

    @torch.no_grad()
    def solve(self, layer: int, logits_RME: Tensor) -> Tensor:
        tokens, total = logits_RME.shape[1:]
        bias_RE = self.bias_LRE[layer].clone()
        met_RE = assignments(route(logits_RME, self.experts, bias_RE=bias_RE), tokens, total).sum(1)
        wanted_RE = self.target_E * (tokens * self.experts.activated)
        self.bias_LRE[layer] += torch.sign(wanted_RE - met_RE) * self.step
        return bias_RE


@dataclass(frozen=True, kw_only=True)
class LoadJob:
    """One training of all seeds at all rates; ``sign_step`` 0 is steering."""

    model: str
    load: str
    steps: int
    sign_step: float = 0.0

    @property
    def control(self) -> str:
        return f"sign rule, step {self.sign_step:g}" if self.sign_step else "steering"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("reports/bench"))
    parser.add_argument("--quick", action="store_true", help="one load, two controls, 60 steps: does it run?")
    options = parser.parse_args()
    prepare_process()
    rows: list[dict[str, object]] = []
    todo = jobs(quick=options.quick)
    for i, job in enumerate(todo):
        rows += measure(job)
        print(f"{i + 1}/{len(todo)} {job.model} {job.load} {job.steps} {job.control}", flush=True)
        write(pd.DataFrame(rows), options)
    print(render(pd.DataFrame(rows), options))


def jobs(*, quick: bool) -> list[LoadJob]:
    if quick:
        return [LoadJob(model=USUAL, load="zipf:1", steps=60, sign_step=step) for step in (0.0, 0.01)]
    controls = (0.0, *SIGN_STEPS)
    usual = [LoadJob(model=USUAL, load=x, steps=steps, sign_step=y) for x in LOADS for steps in STEPS for y in controls]
    return usual + [LoadJob(model=text, load=load, steps=STEPS[0]) for text in OTHERS for load in LOADS]


def measure(job: LoadJob) -> list[dict[str, object]]:
    """Distance of the load from its target, by window of training and on held-out text."""
    stack = build(job)
    assert stack.routers is not None
    experts = stack.routers.experts
    if job.sign_step:
        depth, runs = stack.routers.depth, stack.runs
        rule = SignRule(experts, depth=depth, runs=runs, device=stack.device, step=job.sign_step)
        stack.routers = replace(stack.routers, steering=rule)
    seen = watch(stack)
    stack.advance(job.steps)
    windows = {
        f"{first + 1}-{first + WINDOW}": torch.stack(seen[first : first + WINDOW]).mean(0)
        for first in range(0, job.steps - WINDOW + 1, WINDOW)
    }
    seen.clear()
    stack.evaluate()
    windows[HELDOUT] = torch.stack(seen).mean(0)
    seen.clear()
    evaluate_carried_on(stack)
    windows[CARRIED] = torch.stack(seen).mean(0)
    target_E = torch.tensor(experts.target_load)
    rows: list[dict[str, object]] = []
    for window, met_LRE in windows.items():
        load_LRE = met_LRE / met_LRE.sum(-1, keepdim=True)
        off_LVSE = (load_LRE / target_E - 1).unflatten(1, (len(RATES), len(SEEDS)))
        for rate, off_LSE in zip(RATES, off_LVSE.unbind(1), strict=True):
            size_E = off_LSE.abs().amax((0, 1))
            worst = int(size_E.argmax())
            rows.append(
                {
                    "model": job.model,
                    "load": job.load,
                    "steps": job.steps,
                    "control": job.control,
                    "rate": rate,
                    "window": window,
                    "max_error": float(size_E[worst]),
                    "mean_error": float(off_LSE.abs().mean()),
                    "worst_expert": worst,
                    "its_target": float(target_E[worst]),
                    "busiest_error": float(size_E[0]),
                }
            )
    return rows


def build(job: LoadJob) -> Stack:
    """The runs of every seed at every learning rate."""
    task = get_tier("cpu").task("markov", "sharp")
    train = replace(task.train, steps=job.steps, warmup=job.steps // 10)
    model = parse_scenario(f"d=32,L=2,{job.model},load={job.load}").model
    scenario = Scenario.of(model, train)
    return Stack(
        model,
        get_rule("complete_mue").prescribe(scenario, scenario),
        task.base,
        train,
        load_corpus("markov"),
        lrs=[task.base.lr * rate for rate in RATES for _ in SEEDS],
        seeds=[seed for _ in RATES for seed in SEEDS],
        device=torch.device("cpu"),
    )


@torch.no_grad()
def evaluate_carried_on(stack: Stack) -> None:
    """The held-out text again, each batch with the bias that the previous one left, as in training."""
    assert stack.routers is not None
    routers = stack.routers.frozen()
    for tokens_RBT, _ in stack.examples.heldout():
        stack.model.losses(stack.state.leaves, tokens_RBT, routers=routers)


def watch(stack: Stack) -> list[Tensor]:
    """Collects the assignments [L, R, E] of each batch from now on."""
    whole, seen = stack.model.losses, []

    def losses(*arguments: object, **given: object) -> Tensor:
        layers: list[LayerRouting] = []
        out = whole(*arguments, **given | {"layers": layers})
        seen.append(torch.stack([layer.assignments().sum(1) for layer in layers]))
        return out

    stack.losses = stack.model.losses = losses
    return seen


def write(table: pd.DataFrame, options: argparse.Namespace) -> None:
    """The table so far, so that an interrupted run leaves its results."""
    options.out.mkdir(parents=True, exist_ok=True)
    table.to_csv(options.out / "load_control.csv", index=False, float_format="%.4f")
    (options.out / "load_control.md").write_text(render(table, options), encoding="utf-8")


def render(table: pd.DataFrame, options: argparse.Namespace) -> str:
    """The last window of training and the held-out text, for each control."""
    quick = " --quick" if options.quick else ""
    usual = table[table["model"] == USUAL]
    lines = [
        "# Control of the load",
        "",
        f"`python bench/load_control.py --out {options.out}{quick}`; `load_control.csv` has every window.",
        "",
        "Largest error of any expert's load against its target, in percent of the target, over "
        f"{len(SEEDS)} seeds, both layers and all experts, and in brackets the mean: in the first and the last "
        f"{WINDOW} steps of training and on held-out text after it. There every batch begins where training ended, "
        "or is carried on from the one before. `rate` is the learning rate over the tuned one. Of the sign rule: the "
        "published step 0.001, and the step with the least error in the last window at the tuned rate.",
        "",
        f"## {USUAL}",
        "",
    ]
    best = _best(usual)
    shown = usual[[_shown(row, best) for row in usual.to_dict("records")]]
    lines += _markdown(shown)
    others = table[table["model"] != USUAL]
    if len(others):
        lines += ["", "## Other routers, steered", "", *_markdown(others)]
    return "\n".join(lines) + "\n"


def _best(usual: pd.DataFrame) -> dict[tuple[str, int], str]:
    """The sign rule's best step by load and steps."""
    last = usual[(usual["window"] == _last(usual)) & (usual["rate"] == RATES[0]) & (usual["control"] != "steering")]
    found: dict[tuple[str, int], str] = {}
    for row in last.sort_values("max_error").to_dict("records"):
        found.setdefault((row["load"], row["steps"]), row["control"])
    return found


def _shown(row: dict[str, object], best: dict[tuple[str, int], str]) -> bool:
    first = f"sign rule, step {SIGN_STEPS[0]:g}"
    return row["control"] in ("steering", first, best.get((row["load"], row["steps"])))


def _last(table: pd.DataFrame) -> pd.Series:
    """The last window of each row's own training."""
    end = table["steps"] // WINDOW * WINDOW
    return (end - WINDOW + 1).astype(str) + "-" + end.astype(str)


def _markdown(table: pd.DataFrame) -> list[str]:
    lines = [
        "| model | load | steps | control | rate | first window | last window | held-out | carried on |",
        "|" + "---|" * 9,
    ]
    for key, rows in table.groupby(KEYS, sort=False):
        by_window = rows.set_index("window")
        cells = [f"1-{WINDOW}", _last(rows).iloc[0], HELDOUT, CARRIED]
        errors = [f"{100 * by_window['max_error'][w]:.1f} ({100 * by_window['mean_error'][w]:.1f})" for w in cells]
        lines.append("| " + " | ".join(map(str, [*key, *errors])) + " |")
    return lines


if __name__ == "__main__":
    main()
