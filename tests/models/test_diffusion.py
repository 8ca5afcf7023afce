"""The diffusion transformer against plain torch, one run at a time, and what it promises."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mue_check import HyperParameters, Role, TrainSpec, get_rule, parse_scenario
from mue_check.data import Images
from mue_check.errors import DataError
from mue_check.models.diffusion import DiffusionModel
from mue_check.models.families import family_of
from mue_check.models.image_examples import ImageExamples, Noised
from mue_check.models.parameters import initial_value
from mue_check.models.patches import from_patches, grid_of, positions, to_patches
from mue_check.spec import DiffusionSpec, Experts
from mue_check.training import Stack
from tests.images import made_up_images

CPU = torch.device("cpu")
TRAIN = TrainSpec(steps=12, batch=4, context=16, warmup=2)
REFERENCE = parse_scenario("d=32,L=2,H=32,patch=2")
IMAGES = made_up_images()
MODELS = ["d=48,L=3", "8e2a1s,h=16", "modulation=shared", "labels=off,dh=8"]


def stack(
    text: str, lrs=(0.01, 0.02), seeds=(0, 1), data: Images = IMAGES, std: float = 0.2, edit=lambda p: p, train=TRAIN
) -> Stack:
    target = parse_scenario(text, default=REFERENCE)
    base = HyperParameters(init_std=std, eps=1e-12, weight_decay=0.01)
    prescription = edit(get_rule("complete_mue").prescribe(REFERENCE, target))
    return Stack(target.model, prescription, base, train, data, lrs=lrs, seeds=seeds, device=CPU)


def plain_loss(model: DiffusionModel, multipliers, p, batch: Noised) -> torch.Tensor:
    """One run, written as published: [B, T, P] examples and a dictionary of plain matrices."""
    spec, d, heads = model.spec, model.spec.width, model.spec.width // model.spec.head_width

    def linear(name: str, x: torch.Tensor) -> torch.Tensor:
        return x @ p[name] + p[name + "_bias"]

    def norm(x: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x, (d,), eps=1e-6) * (1 + scale[:, None]) + shift[:, None]

    def swiglu(x: torch.Tensor, name: str) -> torch.Tensor:
        return (F.silu(x @ p[name + "gate"]) * (x @ p[name + "up"])) @ p[name + "down"]

    t = batch.time[:, None, None]
    x = linear("patch_embedding", (1 - t) * batch.clean + t * batch.noise) + positions(model.grid, d, CPU)
    angles = 1000 * batch.time[:, None] * 10_000.0 ** (-torch.arange(32) / 32)
    c = linear("timestep_out", F.silu(linear("timestep_in", torch.cat([angles.cos(), angles.sin()], -1))))
    if "label_embedding" in p:
        c = c + p["label_embedding"][batch.label]
    c = F.silu(c)
    for layer in range(spec.depth):
        name = f"block{layer}."
        if spec.shared_modulation:
            six = linear("modulation", c) + p[name + "scale_shift_table"]
        else:
            six = linear(name + "modulation", c)
        shift1, scale1, gate1, shift2, scale2, gate2 = six.chunk(6, -1)
        y = norm(x, shift1, scale1)
        q, k, v = (
            (y @ p[name + "attention_qkv"].flatten(1))
            .view(len(y), -1, 3, heads, spec.head_width)
            .permute(2, 0, 3, 1, 4)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, scale=4 / spec.head_width * multipliers["attention_qkv"])
        mixed = mixed.transpose(1, 2).flatten(2) @ p[name + "attention_out"]
        x = x + gate1[:, None] * multipliers["attention_out"] * mixed
        y = norm(x, shift2, scale2)
        if isinstance(spec.feed_forward, Experts):
            score = torch.sigmoid(y @ p[name + "router"])
            weight, chosen = score.topk(spec.feed_forward.activated)
            weight = weight / weight.sum(-1, keepdim=True) * multipliers["router"] * multipliers["expert_down"]
            hidden = F.silu(torch.einsum("btd,def->btef", y, p[name + "expert_gate"]))
            hidden = hidden * torch.einsum("btd,def->btef", y, p[name + "expert_up"])
            each = torch.einsum("btef,efd->bted", hidden, p[name + "expert_down"])
            taken = each.gather(2, chosen[..., None].expand(*chosen.shape, d))
            branch = (weight[..., None] * taken).sum(2)
            branch = branch + multipliers["shared_down"] * swiglu(y, name + "shared_")
        else:
            branch = multipliers["ffn_down"] * swiglu(y, name + "ffn_")
        x = x + gate2[:, None] * branch
    shift, scale = linear("final_modulation", c).chunk(2, -1)
    out = norm(x, shift, scale) @ p["final_layer"] * multipliers["unembedding"] + p["final_layer_bias"]
    return (out - (batch.noise - batch.clean)).square().mean()


@pytest.mark.parametrize("text", MODELS)
def test_loss_and_gradients_are_those_of_a_plain_model(text: str) -> None:
    s = stack(text)
    with torch.no_grad():  # biases, too, must be seen to act
        for p, value in zip(s.state.declared, s.state.parameters.values(), strict=True):
            if p.role is Role.BIAS:
                value.copy_(torch.randn(value.shape, generator=torch.Generator().manual_seed(1)) * 0.3)
    batch = s.batch()
    losses = s.model.losses(s.state.leaves, batch)
    gradients = torch.autograd.grad(losses.sum(), list(s.state.leaves.values()))
    prescription = get_rule("complete_mue").prescribe(REFERENCE, parse_scenario(text, default=REFERENCE))
    multipliers = {str(role): f.forward_multiplier for role, f in prescription.factors.items()}
    for run in range(2):
        alone = {name: value[run].detach().requires_grad_() for name, value in s.state.leaves.items()}
        loss = plain_loss(s.model, multipliers, alone, Noised(*(part[run] for part in batch)))
        torch.testing.assert_close(losses[run], loss)
        for (name, ours), theirs in zip(
            zip(alone, gradients, strict=True), torch.autograd.grad(loss, list(alone.values())), strict=True
        ):
            torch.testing.assert_close(ours[run], theirs, msg=lambda m, name=name: f"{name}: {m}", rtol=1e-4, atol=1e-6)


def test_it_learns() -> None:
    s = stack("d=32", lrs=[2.0**-5], seeds=[0], std=0.1)
    before = s.evaluate()
    s.advance(TRAIN.steps)
    assert s.evaluate()[0] < 0.8 * before[0]


def test_zero_gates_open_one_after_the_other() -> None:
    """Step 1 moves the final layer alone, step 2 what modulates the final norm and the gates, step 3 the rest."""
    s = stack("8e2a1s,h=16,gates=zero", lrs=[0.01], seeds=[0])
    moved: list[set[str]] = []
    for _ in range(3):
        s.state.differentiate(s.model.losses(s.state.leaves, s.batch(), routers=s.routers))
        moved.append({p.name for p in s.state.declared if s.state.parameters[p.name].grad.abs().max() > 0})
        s.advance(1)
    assert moved[0] == {"final_layer", "final_layer_bias"}
    block = {p.name for p in s.state.declared if p.name.startswith("block") and "modulation" not in p.name}
    assert not moved[1] & block
    assert {"patch_embedding", "final_modulation", "block0.modulation"} <= moved[1]
    assert moved[2] == {p.name for p in s.state.declared}


def test_branches_are_shown_before_their_gate() -> None:
    """Behind a gate of zero there is still a branch to measure."""
    seen: dict[str, torch.Tensor] = {}
    s = stack("8e2a,h=16,gates=zero")
    s.probe(lambda name, value: seen.setdefault(name, value.clone()), s.examples.observed(4))
    for name in ("block1.ffn_branch", "block1.attention_branch", "block1.router_logits", "conditioning", "residual"):
        assert (seen[name].flatten(1).square().mean(1) > 0).all(), name
    for name in ("block0.modulation", "final_modulation", "velocity"):
        assert seen[name].abs().max() == 0
    assert torch.equal(seen["embedding"], seen["residual"])


def test_a_blind_draw_does_not_see_the_picture() -> None:
    s = stack("16e2a,h=8,router=content_blind")
    batch = s.batch()
    chosen = []
    for clean in (batch.clean, -batch.clean):
        layers = []
        s.model.forward(s.state.leaves, batch._replace(clean=clean), routers=s.routers, layers=layers)
        chosen.append(layers[0].routing.indices)
    assert torch.equal(*chosen)
    assert not torch.equal(chosen[0][0], chosen[0][1])


@pytest.mark.parametrize(("frames", "patch"), [(1, "patch=2"), (4, "patch=4"), (4, "patch=2x4")])
def test_patches_and_back(frames: int, patch: str) -> None:
    data = made_up_images(frames=frames, edge=8, channels=2)
    spec = parse_scenario(patch, default=REFERENCE).model
    assert isinstance(spec, DiffusionSpec)
    grid = grid_of(spec, data)
    pixels = torch.from_numpy(data.train[:5])
    patches = to_patches(pixels, grid, spec)
    assert patches.shape == (5, grid.tokens, grid.numbers)
    first = pixels[0, : spec.frames_per_patch, : spec.patch, : spec.patch]
    assert torch.equal(patches[0, 0], first.flatten())
    assert torch.equal(from_patches(patches.view(1, 5, *patches.shape[1:]), grid, spec)[0], pixels)
    assert torch.equal(
        patches[0, 1], pixels[0, : spec.frames_per_patch, : spec.patch, spec.patch : 2 * spec.patch].flatten()
    )


def test_every_place_has_its_own_code() -> None:
    data = made_up_images(frames=4, edge=8)
    for text in ("patch=2", "patch=2x4", "patch=4x2"):
        grid = grid_of(parse_scenario(text, default=REFERENCE).model, data)
        code = positions(grid, 32, CPU)
        assert code.shape == (grid.tokens, 32)
        assert torch.cdist(code, code).add(torch.eye(len(code)) * 9).min() > 0.3
        assert code.square().mean() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    ("text", "says"), [("patch=3", "8 rows of pixels, which patches of 3"), ("patch=4", "context=16: set it to 4")]
)
def test_patches_must_fit_the_data_and_the_training(text: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        stack(text)


def test_data_without_classes_need_no_table() -> None:
    assert "label_embedding" not in stack("d=32", data=made_up_images(classes=0)).state.parameters


def test_training_noise_is_normal_and_of_the_runs_seed() -> None:
    spec = REFERENCE.model
    train = TrainSpec(steps=3, batch=64, context=16)
    examples = ImageExamples(spec, train, IMAGES, 3, CPU)
    examples.restart([5, 5, 6])
    steps = [examples.at(torch.tensor([step])) for step in range(3)]
    noise = torch.stack([batch.noise for batch in steps]).flatten(2)
    assert torch.equal(noise[:, 0], noise[:, 1])
    assert torch.equal(steps[0].clean[0], steps[0].clean[1])
    independent = [noise[0, 0], noise[1, 0], noise[2, 0], noise[0, 2]]
    for one, other in pairwise(independent):
        assert abs(float((one * other).mean())) < 4 / math.sqrt(len(one))
    drawn = torch.cat(independent).double()
    assert abs(drawn.mean()) < 4 / math.sqrt(len(drawn))
    assert drawn.square().mean() == pytest.approx(1, abs=4 * math.sqrt(2 / len(drawn)))
    assert drawn.pow(4).mean() == pytest.approx(3, abs=4 * math.sqrt(96 / len(drawn)))
    assert (drawn[:-1] * drawn[1:]).mean().abs() < 4 / math.sqrt(len(drawn))
    time = steps[1].time[0]
    assert torch.equal((time * 64).floor().clamp(max=63), torch.arange(64.0))
    alone = ImageExamples(spec, train, IMAGES, 1, CPU)
    alone.restart([6])
    for ours, theirs in zip(alone.at(torch.tensor([2])), steps[2], strict=True):
        assert torch.equal(ours[0], theirs[2])


def test_heldout_noise_and_times_are_the_same_for_all_runs_and_seeds() -> None:
    first, second = (ImageExamples(REFERENCE.model, TRAIN, IMAGES, 2, CPU) for _ in range(2))
    first.restart([0, 1])
    second.restart([2, 3])
    batches = [list(each.heldout()) for each in (first, second)]
    assert sum(count for _, count in batches[0]) == len(IMAGES.heldout)
    for (ours, _), (theirs, _) in zip(*batches, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert torch.equal(a, b)
            assert torch.equal(a[0], a[1])
    times = torch.cat([batch.time[0] for batch, _ in batches[0]]).sort().values
    assert torch.allclose(times, (torch.arange(len(times)) + 0.5) / len(times))
    assert family_of(REFERENCE.model).heldout(TRAIN, IMAGES) == len(times)


def slope_of_the_modulation(edit) -> float:
    widths, changes = (32, 64, 128), []
    flat = TrainSpec(steps=5, batch=16, context=16, final_lr=1.0)
    for width in widths:
        change: dict[str, torch.Tensor] = {}

        def tap(name: str, value: torch.Tensor, seen=change) -> None:
            seen[name] = value.clone() if name not in seen else value - seen[name]

        s = stack(f"d={width},H={width}", lrs=[2.0**-8] * 4, seeds=range(4), std=0.02, edit=edit, train=flat)
        for steps in (0, 5):
            s.advance(steps)
            s.probe(tap, s.examples.observed())
        changes.append(math.log2(change["block1.modulation"].square().mean().sqrt()))
    return float(np.polyfit(np.log2(widths), changes, 1)[0])


def test_the_conditioning_moves_alike_at_every_width() -> None:
    def unscaled(prescription):
        for role in (Role.TIMESTEP_OUT, Role.MODULATION):
            prescription = prescription.with_factors(role, lr=1.0)
        return prescription

    assert abs(slope_of_the_modulation(lambda p: p)) < 0.15
    assert slope_of_the_modulation(unscaled) > 0.5


def test_what_starts_at_zero_is_prescribed_so() -> None:
    zero, drawn = (
        {
            p.role: float(initial_value(p, std[p.role], [0]).abs().max())
            for p in s.model.parameters
            if (std := s.state.init_std)
        }
        for s in (stack("gates=zero"), stack("gates=drawn"))
    )
    assert {role for role in zero if zero[role] == 0 < drawn[role]} == {Role.MODULATION, Role.UNEMBEDDING}
