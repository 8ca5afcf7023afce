"""R runs as one against the same runs one by one: seconds per run and step, medians, in one process.

    python bench/fused_runs.py [--device cpu|cuda] [--json OUT] [--quick]

Three ways do the same work, and their losses are compared before anything is timed:
fused: R runs in one stack (captured on CUDA); alone: the same code with R = 1, run after run;
plain: an ordinary torch.nn model with torch.optim.AdamW, run after run, as a sweep is usually written.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mue_check import HyperParameters, Role, TrainSpec, get_rule, parse_scenario
from mue_check.data import load_corpus
from mue_check.execute.process import prepare_process
from mue_check.rules import Row
from mue_check.training import Stack
from mue_check.training.adamw import schedule_table

BASE = HyperParameters(lr=1.0, init_std=0.1, weight_decay=0.1)
LR = 2.0**-7
ROUNDS, STEPS = 7, 12
# model, tokens per step as sequences x context, R
CASES = [("d=32,H=32", 8, 8), ("d=32,H=32", 16, 8), ("d=64,H=64", 8, 8), ("d=128,H=128", 8, 8)]
CASES_QUICK = [("d=32,H=32", 2, 2)]
CASES_CUDA = [("d=32,H=32", 16, 8), ("d=128,H=128", 16, 32), ("d=128,H=128", 128, 32)]


class Block(nn.Module):
    def __init__(self, width: int, hidden: int, branch: float) -> None:
        super().__init__()
        self.attention_norm, self.ffn_norm = (nn.RMSNorm(width, eps=1e-6) for _ in range(2))
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.up, self.gate = (nn.Linear(width, hidden, bias=False) for _ in range(2))
        self.down = nn.Linear(hidden, width, bias=False)
        self.branch = branch

    def forward(self, x: Tensor) -> Tensor:
        batch, positions, width = x.shape
        qkv = self.qkv(self.attention_norm(x)).view(batch, positions, 3, width // 16, 16)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(x.shape))
        y = self.ffn_norm(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y)) * self.branch


class Plain(nn.Module):
    """The reference's architecture for dense models, written the ordinary way, with one run of a stack's weights."""

    def __init__(self, stack: Stack, run: int) -> None:
        super().__init__()
        spec, p = stack.model.spec, {name: value[run].detach() for name, value in stack.state.parameters.items()}
        d = spec.width
        hidden = spec.feed_forward.hidden
        self.tokens, self.positions = nn.Embedding(stack.model.vocab, d), nn.Embedding(stack.model.context, d)
        self.blocks = nn.ModuleList(Block(d, hidden, d / hidden) for _ in range(spec.depth))
        self.norm, self.head = nn.RMSNorm(d, eps=1e-6), nn.Linear(d, stack.model.vocab, bias=False)
        self.head_multiplier = 32 / d
        with torch.no_grad():
            self.tokens.weight.copy_(p["token_embedding"])
            self.positions.weight.copy_(p["position_embedding"])
            self.head.weight.copy_(p["unembedding"].T)
            for i, block in enumerate(self.blocks):
                b = f"block{i}."
                block.qkv.weight.copy_(p[b + "attention_qkv"].flatten(1).T)
                for linear, name in (
                    (block.out, "attention_out"),
                    (block.up, "ffn_up"),
                    (block.gate, "ffn_gate"),
                    (block.down, "ffn_down"),
                ):
                    linear.weight.copy_(p[b + name].T)

    def forward(self, tokens: Tensor) -> Tensor:
        positions = torch.arange(tokens.shape[-1] - 1, device=tokens.device)
        x = self.tokens(tokens[:, :-1]) + self.positions(positions)
        for block in self.blocks:
            x = block(x)
        logits = self.head(self.norm(x)) * self.head_multiplier
        return F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())


def build(text: str, train: TrainSpec, seeds: list[int], device: torch.device) -> tuple[Stack, dict[Role, Row]]:
    """The stack of these seeds, and what the rule prescribes for it."""
    reference = parse_scenario(f"d=32,L=2,H=32,B={train.tokens_per_step},T={train.steps}")
    target = parse_scenario(text, default=reference)
    prescription = get_rule("complete_mue").prescribe(reference, target)
    lrs = [LR] * len(seeds)
    stack = Stack(target.model, prescription, BASE, train, load_corpus("markov"), lrs=lrs, seeds=seeds, device=device)
    return stack, {Role(row.role): row for row in prescription.values(BASE)}


def plain_trainer(stack: Stack, run: int, rows: dict[Role, Row], train: TrainSpec):
    """One step of run ``run`` as people write it: zero_grad, backward, optimizer, scheduler."""
    model = Plain(stack, run).to(stack.device)
    hidden = [p for block in model.blocks for name, p in block.named_parameters() if "norm" not in name]
    ids = {id(p) for p in hidden}
    groups = []
    for members, role in ((hidden, Role.FFN_UP), ([p for p in model.parameters() if id(p) not in ids], Role.NORM_GAIN)):
        row = rows[role]
        groups.append({"params": members, "lr": LR * row.lr, "weight_decay": row.weight_decay, "eps": row.eps})
    optimizer = torch.optim.AdamW(groups, betas=(BASE.beta1, BASE.beta2))
    rates = schedule_table(train, BASE.beta1, BASE.beta2)[:, 0].tolist()
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rates[min(step, len(rates) - 1)])
    starts, losses = stack.starts[:, run], []

    def step(i: int) -> None:
        batch = stack.tokens[starts[i].unsqueeze(-1) + stack.offsets]
        optimizer.zero_grad()
        loss = model(batch)
        loss.backward()
        optimizer.step()
        scheduler.step()
        losses.append(loss.detach())

    return step, losses


def measure(text: str, batch: int, runs: int, device: torch.device) -> dict[str, object]:
    train = TrainSpec(steps=STEPS * (ROUNDS + 1), batch=batch, context=32, warmup=5)
    fused, rows = build(text, train, list(range(runs)), device)
    alone = [build(text, train, [run], device)[0] for run in range(runs)]
    plain = [plain_trainer(fused, run, rows, train) for run in range(runs)]

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    fused_step = fused.step
    alone_steps = [stack.step for stack in alone]
    seconds: dict[str, list[float]] = {"fused": [], "alone": [], "plain": []}
    for part in range(ROUNDS + 1):
        steps = range(part * STEPS, (part + 1) * STEPS)

        def run_fused(steps=steps) -> None:
            for _ in steps:
                fused_step()

        def run_alone(steps=steps) -> None:
            for one in alone_steps:
                for _ in steps:
                    one()

        def run_plain(steps=steps) -> None:
            for one, _ in plain:
                for i in steps:
                    one(i)

        for name, call in (("fused", run_fused), ("alone", run_alone), ("plain", run_plain)):
            wait()
            start = time.perf_counter()
            call()
            wait()
            seconds[name].append((time.perf_counter() - start) / (runs * STEPS))
        if part == 0:  # the first round warms up, and shows that the work is the same
            ours = fused.log[:STEPS].T
            torch.testing.assert_close(torch.cat([s.log[:STEPS].T for s in alone]), ours, rtol=1e-3, atol=1e-3)
            theirs = torch.stack([torch.stack(losses[:STEPS]) for _, losses in plain])
            torch.testing.assert_close(theirs, ours, rtol=1e-3, atol=1e-3)
    median = {name: statistics.median(values[1:]) * 1e3 for name, values in seconds.items()}
    return {
        "model": text,
        "tokens_per_step": batch * 32,
        "R": runs,
        **{f"{name}_ms": value for name, value in median.items()},
        "alone_over_fused": median["alone"] / median["fused"],
        "plain_over_fused": median["plain"] / median["fused"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--quick", action="store_true", help="one tiny case: does it run, and is the work the same?")
    arguments = parser.parse_args()
    prepare_process()
    device = torch.device(arguments.device)
    results = []
    columns = ("model", "tokens", "R", "fused ms", "alone ms", "plain ms", "alone/fused", "plain/fused")
    print("  ".join(f"{column:>11}" for column in columns))
    cases = CASES_QUICK if arguments.quick else CASES_CUDA if device.type == "cuda" else CASES
    for text, batch, runs in cases:
        r = measure(text, batch, runs, device)
        results.append(r)
        print("  ".join(f"{v:11.3f}" if isinstance(v, float) else f"{v!s:>11}" for v in r.values()), flush=True)
    if arguments.json:
        name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu, one thread"
        arguments.json.write_text(
            json.dumps({"device": name, "torch": torch.__version__, "cases": results}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
