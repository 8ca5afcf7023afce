"""What is measured on which device."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mue_check.precision import Precision
from mue_check.spec import ModelSpec, parse_scenario


@dataclass(frozen=True, kw_only=True)
class Case:
    """R runs of one model, each with ``batch`` sequences of ``context`` tokens a step."""

    model: str
    batch: int
    context: int
    runs: int
    precision: Precision = "fp32"

    @property
    def spec(self) -> ModelSpec:
        """The model; depth is 2 where the text leaves it out."""
        return parse_scenario(self.model if "L=" in self.model else f"L=2,{self.model}").model

    @property
    def dense(self) -> "Case":
        """The dense model of the same active width."""
        spec = self.spec
        return replace(self, model=f"d={spec.width},L={spec.depth},H={spec.feed_forward.active_width}")

    @property
    def tokens(self) -> int:
        """Tokens per step of one run."""
        return self.batch * self.context

    @property
    def name(self) -> str:
        """The shape in one line."""
        return f"{self.model}, {self.tokens} tokens, R={self.runs}, {self.precision}"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that one bench measures."""

    device: str
    sweep: tuple[Case, ...]
    """Each timed in every way."""
    latency: tuple[tuple[str, Case], ...]
    """Mixtures, each timed against the dense model of its active width, under the name of what grows."""
    coordinates: tuple[Case, ...]
    """One model at several widths, for the coordinate check."""
    rounds: int = 5
    seconds: float = 0.12
    """Aimed at for each way in each round."""
    matmul: int = 1024
    copy_mib: int = 256


RUNS = (1, 4, 8, 16, 32)
CPU_DENSE = Case(model="d=32,H=32", batch=8, context=32, runs=8)
CPU_WIDER = replace(CPU_DENSE, model="d=64,H=64")
CPU_MIXTURE = replace(CPU_DENSE, model="d=32,16e4a,h=8")
CUDA_MIXTURE = Case(model="d=128,L=4,16e4a,h=32", batch=64, context=64, runs=32)
CUDA_SHORT = replace(CUDA_MIXTURE, batch=8)
CUDA_CAPACITY = replace(CUDA_MIXTURE, model="d=128,L=4,256e8a,h=16")


def make_plan(device: str, precisions: Sequence[Precision], *, quick: bool = False) -> Plan:
    """The cases of a device; the sweep over R and the growth are asked in the first of ``precisions`` alone."""
    if quick:
        return _quick(device, precisions[0])
    return _cuda(precisions) if device == "cuda" else _cpu(precisions)


def _quick(device: str, precision: Precision) -> Plan:
    dense, mixture = replace(CPU_DENSE, precision=precision), replace(CPU_MIXTURE, precision=precision)
    return Plan(
        device=device,
        sweep=(replace(dense, runs=1), dense, mixture),
        latency=(("capacity", replace(mixture, model="d=32,L=2,64e8a,h=4")),),
        coordinates=(replace(CPU_DENSE, runs=4),),
        rounds=3,
        seconds=0.04,
        matmul=512,
        copy_mib=64,
    )


def _cpu(precisions: Sequence[Precision]) -> Plan:
    first = precisions[0]
    dense, mixture = replace(CPU_DENSE, precision=first), replace(CPU_MIXTURE, precision=first)
    sweep = [replace(case, runs=r) for case in (dense, mixture) for r in RUNS]
    sweep += [replace(dense, batch=16)]
    sweep += [replace(dense, model=f"d={d},H={d}") for d in (64, 128)]
    sweep += [replace(dense, context=t) for t in (16, 64, 128)]
    return Plan(
        device="cpu",
        sweep=tuple(dict.fromkeys(replace(c, precision=p) for p in precisions for c in sweep)),
        latency=(
            *(("capacity", replace(mixture, model=f"d=32,L=2,{n}e8a,h=4")) for n in (8, 16, 64, 256)),
            *(("granularity", replace(mixture, model=_split(32, 2, 128, a))) for a in (2, 8, 32, 64)),
        ),
        coordinates=tuple(replace(CPU_DENSE, model=f"d={d},H={d}") for d in (32, 64)),
    )


def _cuda(precisions: Sequence[Precision]) -> Plan:
    first = precisions[0]
    mixture = replace(CUDA_MIXTURE, precision=first)
    dense = replace(mixture.dense, runs=8)
    sweep = [replace(mixture, runs=r) for r in RUNS]
    sweep += [replace(case, precision=p) for p in precisions for case in (CUDA_MIXTURE, CUDA_SHORT)]
    sweep += [replace(mixture, model="d=128,L=4,16e4a,h=128")]
    sweep += [replace(dense, model=f"d={d},L=4,H={d}") for d in (128, 256, 512)]
    sweep += [replace(dense, context=t, batch=16) for t in (64, 256, 1024)]
    return Plan(
        device="cuda",
        sweep=tuple(dict.fromkeys(sweep)),
        latency=(
            *(("capacity", replace(mixture, model=f"d=128,L=4,{n}e8a,h=16")) for n in (8, 32, 128)),
            *(("capacity", replace(CUDA_CAPACITY, precision=p)) for p in precisions),
            *(("granularity", replace(mixture, model=_split(128, 4, 512, a), runs=8)) for a in (2, 4, 16, 64)),
        ),
        coordinates=tuple(replace(dense, model=f"d={d},L=4,H={d}", precision="fp32") for d in (128, 256)),
        seconds=0.06,
        matmul=8192,
        copy_mib=1024,
    )


def _split(width: int, depth: int, active_width: int, activated: int) -> str:
    """The mixture of that granularity at equal active width and density a/N = 1/4."""
    return f"d={width},L={depth},{4 * activated}e{activated}a,h={active_width // activated}"
