"""The Triton kernels on a card: against float64, captured, twice, and beside a run of NaN."""

import warnings

import pytest
import torch

from mue_check.models import fused_dense, pointwise
from mue_check.models.attention import attention
from mue_check.models.experts import all_experts
from mue_check.models.fused_routing import choose_by_sigmoid
from mue_check.models.kernels import NAMES as NAMES_OF_KERNELS
from mue_check.models.kernels import VARIABLE, uses_kernel
from mue_check.models.routed_experts import routed_experts
from mue_check.precision import Precision
from mue_check.routing.choice import Mixture, TokenChoice
from mue_check.routing.variants import RouterInput
from mue_check.training import training_step
from mue_check.training.products import set_products
from tests.gpu.test_cuda import TRAIN, build

CUDA = torch.device("cuda")
NAMES = ("out", "x", "up", "gate", "down", "weights")
PRECISIONS: tuple[Precision, ...] = ("fp32", "tf32", "bf16")
ERROR = {"fp32": 1e-5, "tf32": 5e-3, "bf16": 1e-2}
"""Relative to the norm, of products whose operands are rounded to that precision."""
SHAPES = {  # R, M, D, E, F, K
    "headline": (2, 512, 128, 16, 32, 4),
    "few tokens": (3, 37, 24, 40, 12, 3),
    "wide experts": (2, 300, 130, 3, 150, 1),
    "one of each": (1, 1, 16, 1, 16, 1),
}


@pytest.fixture(autouse=True, scope="session")
def _cublas() -> None:
    """The thread of backward passes has no CUDA context until its first product, of which torch warns."""
    if torch.cuda.is_available():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            one = torch.ones(1, 16, 16, device=CUDA, requires_grad=True)
            torch.bmm(one, one).sum().backward()


@pytest.fixture(autouse=True)
def _kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, ",".join(NAMES_OF_KERNELS))
    if not torch.cuda.is_available() or not uses_kernel("experts", torch.empty(1, device="cuda")):
        pytest.skip("needs Triton and an Ampere or later GPU")
    # new memory holds NaN: what a kernel forgets to write shows
    torch.empty(2**27, device="cuda").fill_(torch.nan)


def case(runs, tokens, width, total, hidden, active, precision: Precision, skew: float = 0.0):
    set_products(precision, CUDA)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    generator = torch.Generator().manual_seed(1)

    def leaf(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(CUDA, dtype).requires_grad_()

    scores = torch.randn(runs, tokens, total, generator=generator) + skew * torch.arange(total)
    tensors = [leaf(runs, tokens, width), *(leaf(runs, width, total, hidden) for _ in range(2))]
    tensors += [leaf(runs, total, hidden, width), leaf(runs, tokens, active).float().detach().requires_grad_()]
    return tensors, scores.topk(active, dim=-1).indices.to(CUDA)


def run(product, tensors, indices):
    leaves = [t.detach().requires_grad_() for t in tensors]
    upstream = torch.randn(leaves[0].shape, generator=torch.Generator().manual_seed(2)).to(leaves[0])
    out = product(*leaves[:4], TokenChoice(leaves[4], indices))
    return [out.detach(), *torch.autograd.grad(out, leaves, upstream)]


@pytest.mark.parametrize("skew", [0.0, 50.0], ids=["", "overfull"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_experts_are_those_of_float64(precision: Precision, shape, skew: float) -> None:
    tensors, indices = case(*shape, precision, skew)
    exact = run(all_experts, [t.double() for t in tensors], indices)
    first, second = (run(routed_experts, tensors, indices) for _ in range(2))
    for name, found, again, expected in zip(NAMES, first, second, exact, strict=True):
        error = (found.double() - expected).norm() / expected.norm()
        assert error < ERROR[precision], f"{name}: {error}"
        assert torch.equal(found, again), name


@pytest.mark.parametrize("precision", PRECISIONS)
def test_experts_can_be_captured(precision: Precision) -> None:
    tensors, indices = case(*SHAPES["headline"], precision)
    expected = run(routed_experts, tensors, indices)
    leaves = [t.detach().requires_grad_() for t in tensors]
    upstream = torch.randn(leaves[0].shape, generator=torch.Generator().manual_seed(2)).to(leaves[0])
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = routed_experts(*leaves[:4], TokenChoice(leaves[4], indices))
        found = [out, *torch.autograd.grad(out, leaves, upstream)]
    for _ in range(2):
        graph.replay()
    for name, ours, theirs in zip(NAMES, found, expected, strict=True):
        assert torch.equal(ours, theirs), name


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_nan_run_does_not_touch_its_neighbours(precision: Precision) -> None:
    tensors, indices = case(*SHAPES["few tokens"], precision)
    clean = run(routed_experts, tensors, indices)
    for tensor in tensors:
        tensor.data[1] = torch.nan
    for ours, theirs in zip(run(routed_experts, tensors, indices), clean, strict=True):
        assert torch.equal(ours[[0, 2]], theirs[[0, 2]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("width", [128, 20, 130])
def test_norm_and_swiglu_are_those_of_float64(width: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(1)
    shapes = ((3, 150, width), (3, 150, width), (3, width))
    tensors = [torch.randn(*shape, generator=generator).to(CUDA, dtype) for shape in shapes]

    def both(x, branch, gain):
        total, out = pointwise.add_norm(x, branch, gain)
        return [total, out, pointwise.swiglu(total, out)]

    found = []
    for inputs in (tensors, tensors, [t.double() for t in tensors]):
        leaves = [t.detach().requires_grad_() for t in inputs]
        outputs = both(*leaves)
        found.append([*outputs, *torch.autograd.grad(outputs[0].sum() + outputs[2].square().sum(), leaves)])
    for first, again, expected in zip(*found, strict=True):
        assert torch.equal(first, again)
        assert (first.double() - expected).norm() < (1e-5 if dtype is torch.float32 else 2e-2) * expected.norm()


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("batch", "context", "width", "classes"), [(8, 64, 128, 32), (3, 5, 20, 130)])
def test_a_dense_layer_and_the_loss_are_those_of_float64(
    batch: int, context: int, width: int, classes: int, precision: Precision
) -> None:
    """With a branch that is repeated, as positions are, and products that take a multiplier."""
    set_products(precision, CUDA)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, classes, (2, batch, context + 1), generator=generator).to(CUDA)
    shapes = ((batch * context, width), (context, width), (width,), *((width, 2 * width),) * 2, (2 * width, width))
    tensors = [torch.randn(2, *shape, generator=generator).to(CUDA, dtype) for shape in (*shapes, (width, classes))]

    def losses(x, positions, gain, up, gate, down, unembedding):
        total, y = pointwise.add_norm(x, positions, gain)
        total = total + pointwise.dense_swiglu(y, up, gate, down, 0.1)
        return pointwise.cross_entropy(pointwise.scaled_product(total, unembedding, 0.3), tokens)

    found = []
    for inputs in (tensors, tensors, [t.double() for t in tensors]):
        leaves = [t.detach().requires_grad_() for t in inputs]
        out = losses(*leaves)
        found.append([out.detach(), *torch.autograd.grad(out, leaves, torch.tensor([1.0, 2.0]).to(out))])
    for first, again, expected in zip(*found, strict=True):
        assert torch.equal(first, again)
        assert (first.double() - expected).norm() < 3 * ERROR[precision] * expected.norm()


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "full"])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("shape", [(64, 64, 8, 16), (5, 2, 4, 16), (3, 37, 3, 12), (2, 64, 2, 32)], ids=str)
def test_attention_is_that_of_float64(shape: tuple[int, ...], precision: Precision, causal: bool) -> None:
    set_products(precision, CUDA)
    sequences, context, heads, width = shape
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    qkv = torch.randn(sequences, context, 3, heads, width, generator=torch.Generator().manual_seed(1)).to(CUDA, dtype)
    found = []
    for inputs in (qkv, qkv, qkv.double()):
        leaf = inputs.detach().requires_grad_()
        out = attention(leaf, 0.3, causal=causal)
        found.append([out.detach(), torch.autograd.grad(out.square().sum(), leaf)[0]])
    for first, again, expected in zip(*found, strict=True):
        assert torch.equal(first, again)
        assert (first.double() - expected).norm() < 2 * ERROR[precision] * expected.norm()


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
@pytest.mark.parametrize("shape", [(2, 300, 128, 128), (3, 37, 20, 70), (1, 1, 16, 5)], ids=str)
def test_a_dense_layer_with_its_norm_is_that_of_float64(shape: tuple[int, ...], precision: Precision) -> None:
    set_products(precision, CUDA)
    runs, tokens, width, hidden = shape
    wide, stream = (runs, width, hidden), (runs, tokens, width)
    generator = torch.Generator().manual_seed(1)
    shapes = (stream, stream, wide, wide, (runs, hidden, width), (runs, width))
    tensors = [torch.randn(*s, generator=generator) / (s[1] ** 0.5 if 2 <= i <= 4 else 1) for i, s in enumerate(shapes)]
    tensors = [t.to(CUDA, torch.bfloat16 if precision == "bf16" else torch.float32) for t in tensors]
    if not fused_dense.is_used(tensors[0], hidden):
        pytest.skip("needs a Hopper GPU")

    def by_torch(x, y, weights, gain, multiplier, eps):
        return pointwise.add_norm(x, pointwise.dense_swiglu(y, *weights, multiplier), gain)

    found = []
    for function, inputs in (
        (fused_dense.dense_add_norm, tensors),
        (fused_dense.dense_add_norm, tensors),
        (by_torch, [t.double() for t in tensors]),
    ):
        x, y, *weights, gain = leaves = [t.detach().requires_grad_() for t in inputs]
        outputs = function(x, y, tuple(weights), gain, 0.3, pointwise.EPS)
        found.append([*outputs, *torch.autograd.grad(outputs[0].sum() + outputs[1].square().sum(), leaves)])
    for first, again, expected in zip(*found, strict=True):
        assert torch.equal(first, again)
        assert (first.double() - expected).norm() < 3 * ERROR[precision] * expected.norm()


@pytest.mark.parametrize("normal", [False, True])
@pytest.mark.parametrize(("total", "active", "groups"), [(16, 4, 1), (256, 8, 1), (12, 6, 3), (300, 2, 1)])
@pytest.mark.parametrize("biased", [False, True])
def test_the_choice_of_experts_is_that_of_torch(
    total: int, active: int, groups: int, biased: bool, normal: bool
) -> None:
    logits = torch.randn(3, 129, total, device=CUDA, requires_grad=True)
    bias = torch.randn(3, total, device=CUDA) if biased else None
    experts = Mixture(router="sigmoid_norm", total=total, activated=active, groups=groups)
    found = choose_by_sigmoid(logits, experts, bias, normal)
    expected = RouterInput(logits_RME=logits, bias_RE=bias).chosen_by_sigmoid(experts, normal=normal)
    assert found is not None
    # the last bit of a sigmoid may order two experts the other way
    same = found.indices == expected.indices
    assert same.float().mean() > 0.999
    torch.testing.assert_close(found.weights[same], expected.weights[same], rtol=1e-5, atol=1e-6)
    upstream = torch.randn_like(found.weights)
    ours, theirs = (torch.autograd.grad(choice.weights, logits, upstream)[0] for choice in (found, expected))
    assert (ours - theirs).norm() < 0.1 * theirs.norm()
    rows = same.all(-1)
    torch.testing.assert_close(ours[rows], theirs[rows], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("text", ["d=32", "16e2a", "64e8a1s,h=8,router=deepseek_v3"])
def test_a_captured_step_with_kernels_trains_as_one_without(
    monkeypatch: pytest.MonkeyPatch, text: str, precision: Precision
) -> None:
    kernels = build(text, precision=precision)
    assert kernels.optimizer.rates is not None
    kernels.advance(TRAIN.steps)
    eager = build(text, precision=precision)
    for _ in range(TRAIN.steps):
        training_step(eager)
    torch.testing.assert_close(kernels.log[:5], eager.log[:5], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(kernels.log, eager.log, rtol=5e-2, atol=5e-2)
    monkeypatch.setenv(VARIABLE, "")
    plain = build(text, precision=precision)
    plain.advance(TRAIN.steps)
    assert not torch.equal(kernels.log, plain.log)
    tolerance = 1e-3 if precision == "fp32" else 1e-2
    torch.testing.assert_close(kernels.log[:5], plain.log[:5], rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(kernels.log, plain.log, rtol=5e-2, atol=5e-2)


@pytest.mark.parametrize("text", ["d=32", "d=128,H=128", "5e2a,d=48,h=7"])
def test_one_step_of_adamw_is_that_of_torchs_operations(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    stacks = [build(text)]
    monkeypatch.setenv(VARIABLE, "experts,pointwise,router")
    stacks.append(build(text))
    gradient = torch.randn(stacks[0].state.flat.shape, generator=torch.Generator().manual_seed(0)).cuda() * 1e-3
    for stack in stacks:
        for step in range(3):
            stack.state.gradient.copy_(gradient)
            stack.optimizer.step(torch.tensor([step], device="cuda"))
    assert (stacks[0].optimizer.rates is None, stacks[1].optimizer.rates is None) == (False, True)
    for ours, theirs in zip(*(stack.state.buffers() for stack in stacks), strict=True):
        assert (ours - theirs).abs().max() < 1e-6 * theirs.abs().max()
