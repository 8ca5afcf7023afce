"""Compile every Triton kernel for a GPU without having one: registers, spilled bytes and shared memory by shape.

    python bench/compile_kernels.py [--capability 90] [--arch sm_90a]

Finds what a CPU's interpreter cannot: errors of the compiler, and blocks that do not fit into a multiprocessor. Needs
Triton, which brings the assembler. The exit code is 1 if a kernel does not compile, or wants more shared memory than
there is.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

os.environ.pop("TRITON_INTERPRET", None)

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

SHARED_BYTES = 227 * 1024
SHAPES = [  # R, M, D, E, F, K
    (2, 512, 128, 16, 32, 4),
    (2, 512, 128, 16, 16, 8),
    (2, 512, 64, 4, 128, 1),
    (1, 40, 24, 5, 12, 3),
]
TYPES = {"p": "*", torch.float32: "fp32", torch.bfloat16: "bf16", torch.int32: "i32", torch.int64: "i64"}


class Compiler:
    """Takes the place of a launch: compiles the kernel for these arguments and runs nothing."""

    def __init__(self, capability: int) -> None:
        self.target = GPUTarget("cuda", capability, 32)
        self.found: dict[tuple[Any, ...], str] = {}
        self.failed = False

    def __call__(self, kernel: JITFunction, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        options = {name: kwargs.pop(name) for name in ("num_warps", "num_stages") if name in kwargs}
        given = dict(zip(kernel.arg_names, args, strict=False)) | kwargs
        signature, constants, attributes = {}, {}, {}
        for i, p in enumerate(kernel.params):
            value = given[p.name]
            if p.is_constexpr or (isinstance(value, int) and value == 1 and not p.do_not_specialize):
                signature[p.name] = "constexpr"
                constants[(i,)] = value
                continue
            if isinstance(value, torch.Tensor):
                signature[p.name] = "*" + TYPES[value.dtype]
                aligned = value.data_ptr() % 16 == 0
            else:
                signature[p.name] = "fp32" if isinstance(value, float) else "i32"
                aligned = isinstance(value, int) and value % 16 == 0
            if aligned and not p.do_not_specialize:
                attributes[(i,)] = [["tt.divisibility", 16]]
        key = (kernel.__name__, *signature.values(), *constants.values(), *attributes, *options.values())
        if key in self.found:
            return
        began = time.monotonic()
        try:
            source = ASTSource(kernel, signature, constexprs=constants, attrs=attributes)
            compiled = triton.compile(source, target=self.target, options=options)
        except Exception as error:
            self.failed = True
            self.found[key] = f"{type(error).__name__}: {error}"
        else:
            self.found[key] = resources(compiled.asm["cubin"]) + mma(compiled.asm["ptx"])
            self.failed |= compiled.metadata.shared > SHARED_BYTES
            self.found[key] += f" shared={compiled.metadata.shared}"
        numbers = [str(v) for v in constants.values()]
        types = {v for k, v in signature.items() if v.startswith("*")}
        print(f"{kernel.__name__:20} {' '.join(numbers):30} {'bf16' if '*bf16' in types else 'fp32'}",
              *options.values(), self.found[key], f"{time.monotonic() - began:.1f} s", flush=True)  # fmt: skip


def resources(cubin: bytes) -> str:
    """What the assembler reports."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(cubin)
        tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
        text = subprocess.run([tool, "--dump-resource-usage", file.name], capture_output=True, text=True).stdout
    return " ".join(f"{name.lower()}={value}" for name, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", text))


def mma(ptx: str) -> str:
    """Instructions of the tensor cores."""
    names = {name for name in ("wgmma.mma_async", "mma.sync") if name in ptx}
    return " " + (",".join(sorted(names)) or "no tensor cores")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--capability", type=int, default=90)
    parser.add_argument("--quick", action="store_true", help="the first shape only")
    arguments = parser.parse_args()
    from mue_check.models import fused_pointwise, fused_routing  # noqa: F401
    from mue_check.models.routed_experts import routed_experts
    from mue_check.routing.choice import TokenChoice
    from mue_check.training.adamw_kernel import adamw, blocks_of

    compiler = Compiler(arguments.capability)
    JITFunction.run = lambda self, *args, **kwargs: compiler(self, *args, **kwargs)
    for runs, tokens, width, total, hidden, active in SHAPES[: 1 if arguments.quick else None]:
        for dtype, precision in ((torch.float32, "highest"), (torch.float32, "high"), (torch.bfloat16, "high")):
            torch.set_float32_matmul_precision(precision)

            leaf = partial(torch.zeros, dtype=dtype, requires_grad=True)
            matrices = leaf(runs, width, total, hidden), leaf(runs, width, total, hidden)
            indices = torch.zeros(runs, tokens, active, dtype=torch.int64)
            routing = TokenChoice(leaf(runs, tokens, active).float(), indices)
            out = routed_experts(leaf(runs, tokens, width), *matrices, leaf(runs, total, hidden, width), routing)
            out.sum().backward()
    for width in (128, 130):
        for dtype in (torch.float32, torch.bfloat16):
            leaf = partial(torch.zeros, dtype=dtype, requires_grad=True)
            total, out = fused_pointwise.add_norm(leaf(2, 9, width), leaf(2, 9, width), leaf(2, width), 1e-6)
            out.sum().backward(retain_graph=True)
            (total + out + fused_pointwise.swiglu(leaf(2, 9, width), leaf(2, 9, width))).sum().backward()
    for total, groups in ((16, 1), (256, 1), (12, 3)):
        for bias in (None, torch.zeros(2, total)):
            scores, _ = torch.ops.mue_check.top_sigmoid(torch.zeros(2, 9, total, requires_grad=True), bias, 6, groups)
            scores.sum().backward()
    for aligned in (True, False):
        blocks, rates, table = blocks_of([1024, 8], torch.device("cpu")), torch.zeros(3, 2), torch.zeros(4, 3)
        state = [torch.zeros(1032) for _ in range(4)]
        adamw(*state, blocks, rates, table, torch.zeros(1, dtype=torch.int64), 0.9, 0.95, aligned)
    sys.exit(compiler.failed)


if __name__ == "__main__":
    main()
