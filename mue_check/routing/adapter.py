"""The adapter: reads a router's return as a Routing. It infers each part from dtype and shape, never from its position.

A layout is learned once, at a shape where the numbers of tokens, experts and activated experts all differ, and then
used at every other shape. An ambiguous return is an error that says how to declare it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, get_args

import torch
from torch import Tensor, nn

from mue_check.errors import ClaimError, UnreadableError, with_article
from mue_check.plain import plain
from mue_check.routing.canonical import Routing, from_expert_choice, from_token_choice
from mue_check.routing.claim import Field, RoutingSpec

Path = tuple[int | str, ...]
Leaves = Mapping[Path, Tensor]
Kinds = Mapping[str, Sequence[Path]]
"""Where the parts of each kind lie; the kind follows from dtype and shape."""
_DEEPEST = 3
"""Levels of a return at which objects of any class are looked into: they may refer to each other."""
_DECLARE = (
    "declare it: RoutingSpec(returns={'weights': POSITION, 'indices': POSITION, ...}), or {'combine': POSITION} for "
    "weights [T, E] that are 0 where an expert is not taken"
)


@dataclass(frozen=True, kw_only=True)
class Size:
    """T tokens (of shape ``lead`` if they come as a batch), E experts, and a activated, or a ``variable`` number."""

    tokens: int
    experts: int
    activated: int
    lead: tuple[int, ...] = ()
    variable: bool = False


@dataclass(frozen=True)
class Layout:
    """Where each part of a return lies. ``by_expert``: the indices [E, C] are tokens.

    ``nulls``: columns and indices past the experts are null experts, no mistake.
    """

    parts: Mapping[Field, Path]
    by_expert: bool = False
    nulls: bool = False

    def __str__(self) -> str:
        return ", ".join(f"{name} at {_dotted(path)}" for name, path in self.parts.items())

    def read(self, returned: object, size: Size) -> Routing:
        """The routing in one return; ClaimError where a part is missing or has another shape."""
        leaves = dict(leaves_of(returned, size))
        found: dict[str, Tensor] = {}
        for name, path in self.parts.items():
            if path not in leaves:
                raise ClaimError(f"the router returns no {name} at {_dotted(path)} at this shape")
            found[name] = leaves[path]
        used = set(self.parts.values())
        aux = {_dotted(path): leaf for path, leaf in leaves.items() if path not in used}
        combine, times = self._dense(found, size)
        real, nulls = (slice(None), slice(size.experts)), (slice(None), slice(size.experts, None))
        has_nulls = combine.shape[1] > size.experts
        requested = found.get("requested")
        return Routing(
            combine=combine[real],
            times=times[real],
            null_combine=combine[nulls] if has_nulls else None,
            null_times=times[nulls] if has_nulls else None,
            requested=None if requested is None else requested.bool(),
            logits=found.get("logits"),
            scores=found.get("scores"),
            aux=aux | ({"aux": found["aux"]} if "aux" in found else {}),
        )

    def _dense(self, found: Mapping[str, Tensor], size: Size) -> tuple[Tensor, Tensor]:
        """(combine, times), [T, E], or [T, E + Z] with Z null experts."""
        indices, weights = found.get("indices"), found.get("weights")
        if indices is not None and weights is not None:
            rows = size.experts if self.by_expert else size.tokens
            indices, weights = _rows(indices, rows, "indices"), _rows(weights, rows, "weights")
            if not self.by_expert and weights.shape != indices.shape and weights.shape[1] >= size.experts:
                weights = weights.gather(1, indices.long())  # scores over all experts, declared as the weights
            if weights.shape != indices.shape:
                raise ClaimError(f"weights {list(weights.shape)} and indices {list(indices.shape)} differ in shape")
            top = size.tokens if self.by_expert else size.experts
            wrong = indices[(indices < -1) | (indices > top)]
            if self.nulls:
                indices = indices.clamp_min(-1)
                top = max(top, int(indices.max()) + 1)
            elif len(wrong):
                raise ClaimError(
                    f"index {int(wrong[0])} points past the {top} {'tokens' if self.by_expert else 'experts'}"
                    + ("" if self.by_expert else "; for null experts claim kind = 'variable' and null_experts")
                )
            return (from_expert_choice if self.by_expert else from_token_choice)(weights, indices, top)
        combine, mask = found.get("combine"), found.get("mask")
        if combine is None and weights is not None and mask is not None:
            combine = mask.to(weights.dtype) * _rows(weights, size.tokens, "weights")
        if combine is None:
            raise ClaimError(f"the router returns no weights: {_DECLARE}")
        if combine.dim() == 3:
            combine = combine.sum(-1)
        if mask is not None and mask.dim() == 3:
            mask = mask.any(-1)
        columns = combine.shape[-1] if self.nulls and combine.shape[-1] > size.experts else size.experts
        for name, part in (("combine", combine), ("mask", mask)):
            if part is not None and part.shape != (size.tokens, columns):
                raise ClaimError(f"{name} is {list(part.shape)}, not [{size.tokens}, {size.experts}]")
        return combine, (combine != 0 if mask is None else mask.bool()).long()


def learn_layout(returned: object, size: Size, claim: RoutingSpec) -> Layout:
    """Find the parts of a return; ClaimError where they cannot be inferred."""
    leaves = dict(leaves_of(returned, size))
    if not leaves:
        raise ClaimError(f"the router returns {_what(returned)}, no tensors")
    if claim.returns:
        return _declared(claim, returned, leaves, size)
    size = replace(size, variable=claim.kind == "variable")
    kinds: dict[str, list[Path]] = {}
    for path, leaf in leaves.items():
        kinds.setdefault(_kind(leaf, size), []).append(path)
    for way in (_by_slots, _by_indices, _by_mask, _by_matrix):
        layout = way(kinds, leaves, size)
        if layout is not None:
            return replace(layout, nulls=size.variable)
    shapes = ", ".join(f"{_dotted(p)}: {leaf.dtype} {list(leaf.shape)}" for p, leaf in leaves.items())
    raise ClaimError(f"cannot tell weights and choice in ({shapes}): {_DECLARE}")


def _by_slots(kinds: Kinds, leaves: Leaves, size: Size) -> Layout | None:
    """Combine and dispatch [T, E, C], with a place for each token within an expert's capacity (GShard)."""
    floating = kinds.get("slot_weights", [])
    marks = [p for p in floating if bool(((leaves[p] == 0) | (leaves[p] == 1)).all())]
    if not kinds.get("dispatch") and len(marks) == 1 and len(floating) == 2:
        kinds = {
            "dispatch": marks,
            "slot_weights": [p for p in floating if p not in marks],
        }  # dispatch in the weights' dtype
    dispatch, weights = _one(kinds, "dispatch"), _one(kinds, "slot_weights")
    return Layout({"combine": weights, "mask": dispatch}) if dispatch is not None and weights is not None else None


def _by_indices(kinds: Kinds, leaves: Leaves, size: Size) -> Layout | None:
    """Weights and indices: [T, a] of experts, or [E, C] of tokens."""
    for by_expert, names in ((False, ("indices", "weights")), (True, ("tokens_of_experts", "weights_of_experts"))):
        indices = _one(kinds, names[0])
        if indices is None:
            continue
        # as many columns as experts: a router that takes them all, whatever its a is
        floats = [*kinds.get(names[1], []), *kinds.get("dense", [])]
        same_shape = {names[1]: [p for p in floats if leaves[p].shape == leaves[indices].shape]}
        weights = _one(same_shape, names[1])
        if weights is not None:
            parts: dict[Field, Path] = {"weights": weights, "indices": indices}
            return Layout(parts | _logits_and_scores(kinds, leaves, parts), by_expert)
    return None


def _by_mask(kinds: Kinds, leaves: Leaves, size: Size) -> Layout | None:
    """A mask [T, E] of each token's one expert, and its weight [T, 1] (Switch in transformers)."""
    mask, weights = _one(kinds, "mask"), kinds.get("weights", [])
    if mask is None or size.activated != 1 or len(weights) != 1 or kinds.get("indices"):
        return None
    parts: dict[Field, Path] = {"weights": weights[0], "mask": mask}
    return Layout(parts | _logits_and_scores(kinds, leaves, parts))


def _by_matrix(kinds: Kinds, leaves: Leaves, size: Size) -> Layout | None:
    """Weights [T, E] that are zero outside the choice, with a mask, with indices, or alone."""
    mask, chosen = _one(kinds, "mask"), _one(kinds, "indices")
    allowed = leaves[mask].bool() if mask is not None else None
    if chosen is not None:
        marks = torch.ones_like(leaves[chosen], dtype=torch.float32)
        columns = max([size.experts, *(leaves[p].shape[1] for p in kinds.get("dense", []))])
        allowed = from_token_choice(marks, leaves[chosen], columns)[1] > 0
    sparse = _one(
        {"weights [T, E]": [p for p in kinds.get("dense", []) if _is_combine(leaves[p], allowed, size)]},
        "weights [T, E]",
    )
    if sparse is None:
        return None
    parts: dict[Field, Path] = {"combine": sparse}
    if mask is not None:
        parts["mask"] = mask
    return Layout(parts | _logits_and_scores(kinds, leaves, parts))


def _declared(claim: RoutingSpec, returned: object, leaves: Leaves, size: Size) -> Layout:
    parts: dict[Field, Path] = {}
    for name in get_args(Field):
        if name in claim.returns:
            place = claim.returns[name]
            path = _path(place, returned)
            if path not in leaves:
                raise ClaimError(f"the claim puts {name} at {place!r}; what is returned has {_listed(list(leaves))}")
            parts[name] = path
    by_expert = "indices" in parts and leaves[parts["indices"]].shape[0] == size.experts != size.tokens
    return Layout(parts, by_expert or claim.kind == "expert_choice", nulls=claim.kind == "variable")


def _path(place: int | str, returned: object) -> Path:
    """The path of a position, key or attribute; a tensor that is not in a container is at position 0."""
    if isinstance(returned, Tensor) and place == 0:
        return ()
    path: Path = tuple(int(p) if p.isdigit() else p for p in place.split(".")) if isinstance(place, str) else (place,)
    names = getattr(returned, "_fields", ())  # parts of a NamedTuple have a name and a position
    return (names.index(path[0]), *path[1:]) if path[0] in names else path


def _kind(leaf: Tensor, size: Size) -> str:
    """The kind of part that a tensor can be, by dtype and shape."""
    shape, by_token = tuple(leaf.shape), leaf.shape[:1] == (size.tokens,)
    if shape == (size.tokens,) and size.activated == 1:
        return "weights" if leaf.is_floating_point() else "indices"
    if leaf.dim() == 3 and shape[:2] == (size.tokens, size.experts):
        return "slot_weights" if leaf.is_floating_point() else "dispatch"
    if leaf.dim() != 2:
        return "other"
    whole = by_token and (shape[1] == size.experts or (size.variable and shape[1] > size.experts))
    if leaf.is_floating_point():
        if whole:
            return "dense"
        return "weights" if by_token else "weights_of_experts" if shape[0] == size.experts else "other"
    if whole and (leaf.dtype == torch.bool or bool(((leaf == 0) | (leaf == 1)).all())):
        return "mask"
    if leaf.dtype == torch.bool:
        return "other"
    return "indices" if by_token else "tokens_of_experts" if shape[0] == size.experts else "other"


def _is_combine(dense: Tensor, allowed: Tensor | None, size: Size) -> bool:
    """Whether a [T, E] tensor is zero outside the choice; without a choice, whether its zeros look like one."""
    if allowed is not None:
        fits = dense.shape == allowed.shape
        return fits and bool((dense[~allowed] == 0).all()) and bool((dense != 0).any())
    active = (dense != 0).sum(-1)
    return bool(active.min() < size.experts) if size.variable else bool(active.max() < size.experts)


def _logits_and_scores(kinds: Kinds, leaves: Leaves, known: Mapping[Field, Path]) -> dict[Field, Path]:
    """Logits and scores among the remaining [T, E] tensors: scores lie in [0, 1]. Two of a kind stay unnamed."""
    out: dict[Field, list[Path]] = {"logits": [], "scores": []}
    for path in kinds.get("dense", []):
        if path not in known.values():
            leaf = leaves[path].detach()
            if bool((leaf == 0).any()):
                continue
            out["scores" if bool(((leaf >= 0) & (leaf <= 1)).all()) else "logits"].append(path)
    return {name: paths[0] for name, paths in out.items() if len(paths) == 1}


def _one(kinds: Kinds, kind: str) -> Path | None:
    """The one part of a kind, or None; ClaimError if there are several."""
    paths = kinds.get(kind, [])
    if len(paths) > 1:
        raise UnreadableError(f"{_listed(paths)} could all be the {kind.replace('_', ' ')}: {_DECLARE}")
    return paths[0] if paths else None


def _rows(part: Tensor, rows: int, name: str) -> Tensor:
    part = part.unsqueeze(-1) if part.dim() == 1 else part
    if part.dim() != 2 or part.shape[0] != rows:
        raise ClaimError(f"{name} are {list(part.shape)}, not [{rows}, K]")
    return part


def leaves_of(returned: object, size: Size, path: Path = ()) -> Iterator[tuple[Path, Tensor]]:
    """Every tensor in tuples, mappings and objects with its path; leading batch axes become one token axis."""
    if isinstance(returned, Tensor):
        returned = plain(returned)
        lead = len(size.lead)
        # [1, 1] is one token and one column already
        flat = lead > 1 and tuple(returned.shape[:lead]) == size.lead and tuple(returned.shape) != (1, 1)
        yield path, returned.flatten(0, lead - 1) if flat else returned
        return
    items: list[tuple[int | str, Any]] = []
    if isinstance(returned, Mapping):
        items = list(returned.items())
    elif isinstance(returned, tuple | list):
        items = list(enumerate(returned))
    elif is_dataclass(returned) and not isinstance(returned, type):
        items = [(f.name, getattr(returned, f.name)) for f in fields(returned)]
    elif hasattr(returned, "__dict__") and not isinstance(returned, type | nn.Module) and len(path) < _DEEPEST:
        items = list(vars(returned).items())
    for key, value in items:
        yield from leaves_of(value, size, (*path, key))


def _listed(paths: Sequence[Path]) -> str:
    return ", ".join(map(_dotted, paths))


def _dotted(path: Path) -> str:
    return ".".join(map(str, path)) or "the tensor itself"


def _what(returned: object) -> str:
    return "None" if returned is None else with_article(type(returned))
