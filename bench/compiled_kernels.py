"""What the compiler makes of the Triton kernels: registers, spills and shared memory. Needs no GPU.

    python bench/compiled_kernels.py [--out reports/bench] [--arch 90 80 86] [--precision fp32 tf32 bf16]

Every operation of models/kernels is called forward and backward with tensors of a CPU, at the shapes of a step of
d=128. Its launches are not run but compiled for the card, with the same arguments. Writes compiled_kernels.md, and
exits with 1 if a kernel does not compile or needs more shared memory than a program can have.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

from mue_check.bench.table import table
from mue_check.models import fused_attention, fused_dense, fused_pointwise, fused_routing, routed_experts
from mue_check.precision import PRECISIONS
from mue_check.training.adamw_kernel import BLOCK, adamw, blocks_of

SHARED_MEMORY = {80: 163, 86: 99, 89: 99, 90: 227}
"""KiB that one program can have, by compute capability."""
HOPPER = 90
TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
POINTERS = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.int32: "*i32", torch.int64: "*i64"}
RUNS, TOKENS, WIDTH, CONTEXT, HEADS, VOCABULARY = 1, 512, 128, 64, 8, 256


@dataclass(frozen=True)
class Launch:
    """One call of a kernel."""

    kernel: JITFunction[Any]
    arguments: dict[str, Any]
    options: dict[str, int]

    def source(self) -> ASTSource:
        """With the types and the specialization that a launch on a card would have."""
        signature, constants, facts = {}, {}, {}
        for i, parameter in enumerate(self.kernel.params):
            value, special = self.arguments[parameter.name], not parameter.do_not_specialize
            if parameter.is_constexpr or value is None or (special and isinstance(value, int) and value == 1):
                signature[parameter.name], constants[(i,)] = "constexpr", value
                continue
            signature[parameter.name] = (
                POINTERS[value.dtype] if isinstance(value, Tensor) else "i32" if isinstance(value, int) else "fp32"
            )
            if isinstance(value, Tensor) or (special and isinstance(value, int) and value % 16 == 0):
                facts[(i,)] = [["tt.divisibility", 16]]
        return ASTSource(fn=self.kernel, signature=signature, constexprs=constants, attrs=facts)


@contextmanager
def recorded() -> Iterator[list[Launch]]:
    """The launches of this block, which are not run."""
    launches: list[Launch] = []
    launch = JITFunction.run

    def run(kernel: Any, *arguments: Any, grid: Any, warmup: bool, **given: Any) -> None:
        options = {name: given.pop(name) for name in ("num_warps", "num_stages") if name in given}
        launches.append(Launch(kernel, dict(zip(kernel.arg_names, arguments, strict=False)) | given, options))

    JITFunction.run = run
    try:
        yield launches
    finally:
        JITFunction.run = launch


def operations(dtype: torch.dtype) -> None:
    """Every operation, forward and backward."""

    def leaf(*shape: int, kind: torch.dtype = dtype) -> Tensor:
        return torch.zeros(*shape, dtype=kind, requires_grad=True)

    def both(function: Callable[..., Any], *arguments: Any) -> None:
        found = function(*arguments)
        outputs = [x for x in ([found] if isinstance(found, Tensor) else found) if x.requires_grad]
        leaves = [x for x in arguments if isinstance(x, Tensor) and x.requires_grad]
        torch.autograd.grad(outputs, leaves, [torch.zeros_like(x) for x in outputs])

    x, matrix = leaf(RUNS, TOKENS, WIDTH), leaf(RUNS, WIDTH, WIDTH)
    tokens = torch.zeros(RUNS, TOKENS // CONTEXT, CONTEXT + 1, dtype=torch.int64)
    both(fused_pointwise.add_norm, x, leaf(RUNS, TOKENS, WIDTH), leaf(RUNS, WIDTH), 1e-6)
    both(fused_pointwise.swiglu, x, leaf(RUNS, TOKENS, WIDTH))
    both(fused_pointwise.cross_entropy, leaf(RUNS, TOKENS, VOCABULARY), tokens)
    head = WIDTH // HEADS
    both(fused_attention.attention, leaf(TOKENS // CONTEXT, CONTEXT, 3, HEADS, head), 0.25, True)
    if torch.get_float32_matmul_precision() != "highest" or dtype is not torch.float32:
        both(fused_dense.dense_add_norm, x, leaf(RUNS, TOKENS, WIDTH), (matrix,) * 3, leaf(RUNS, WIDTH), 1.0, 1e-6)
    for total, active, hidden in ((16, 4, 32), (256, 8, 16)):
        weights = leaf(RUNS, TOKENS, active, kind=torch.float32)
        indices = torch.zeros(RUNS, TOKENS, active, dtype=torch.int64)
        up, gate = (leaf(RUNS, WIDTH, total, hidden) for _ in range(2))
        both(routed_experts.forward, x, up, gate, leaf(RUNS, total, hidden, WIDTH), weights, indices, 1.0)
        both(fused_routing.top_sigmoid, leaf(RUNS, TOKENS, total, kind=torch.float32), None, active, 1, True)
    state = [torch.zeros(2 * BLOCK) for _ in range(4)]
    blocks = blocks_of([2 * BLOCK], torch.device("cpu"))
    adamw(*state, blocks, torch.zeros(3, 1), torch.zeros(1, 3), tokens[0, 0, :1], 0.9, 0.95, True, BLOCK)


def compiled(launch: Launch, arch: int) -> tuple[int, int, float]:
    """Registers and bytes of spills of a thread, and KiB of shared memory."""
    found = triton.compile(launch.source(), target=GPUTarget("cuda", arch, 32), options=launch.options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(found.asm["cubin"])
        file.flush()
        command = [TOOLS / "cuobjdump", "-res-usage", file.name]
        usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    numbers = dict(re.findall(r"(REG|STACK):(\d+)", usage))
    return int(numbers["REG"]), int(numbers["STACK"]), found.metadata.shared / 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("reports/bench"))
    parser.add_argument("--arch", type=int, nargs="+", default=[90, 86], choices=SHARED_MEMORY)
    parser.add_argument("--precision", nargs="+", default=list(PRECISIONS), choices=PRECISIONS)
    options = parser.parse_args()
    rows: dict[tuple[str, ...], None] = {}
    failed = False
    for precision in options.precision:
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        with recorded() as launches:
            operations(torch.bfloat16 if precision == "bf16" else torch.float32)
        for launch in launches:
            for arch in options.arch:
                name = launch.kernel.__name__.strip("_")
                if name.startswith("dense") and arch < HOPPER:  # models/cards.py
                    continue
                try:
                    registers, spills, shared = compiled(launch, arch)
                except Exception as error:  # of the compiler, of many kinds
                    print(f"{name} {precision} sm_{arch}: {error}", flush=True)
                    failed = True
                    continue
                if shared > SHARED_MEMORY[arch]:
                    print(f"{name} {precision} sm_{arch}: {shared:.0f} KiB of shared memory, more than there is")
                    failed = True
                sizes = ", ".join(f"{k}={v}" for k, v in launch.arguments.items() if k.isupper() and k != "PRECISION")
                rows[name, sizes, precision, f"sm_{arch}", str(registers), str(spills), f"{shared:.0f}"] = None
    lines = [
        "# What the compiler makes of the Triton kernels",
        "",
        f"`python bench/compiled_kernels.py`, Triton {triton.__version__}. Nothing is run: kernels are compiled for",
        "cards of that compute capability (sm_90: H100; sm_86: RTX 30). Registers and spilled bytes are those",
        "of a thread; shared memory is that of a program, in KiB.",
        "",
        *table(("kernel", "sizes", "precision", "card", "registers", "spilled", "shared"), sorted(rows)),
    ]
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "compiled_kernels.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
