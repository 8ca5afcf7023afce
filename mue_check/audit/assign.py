"""Which role each parameter of a real model has: declared, or matched by name, shape and kind of module."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Literal

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from mue_check.audit.names import PATTERNS, Kind, Pattern, plain_name, shape_of
from mue_check.audit.setup import AuditError
from mue_check.audit.wrapped import carried
from mue_check.rules import Role, parse_role
from mue_check.rules.roles import DOWN, EMBEDDINGS, ROUTED, SHARED, VECTORS

ATTRIBUTE = "mue_check_roles"
"""A model may carry its roles under this name: a mapping of name patterns to roles."""
WRITES_WIDTH = DOWN | {Role.ATTENTION_OUT}
"""Roles whose matrices end in the residual stream; the other matrices begin there."""
Axes = Literal["out_in", "in_out", "none"]


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """One parameter with its role, or with the reason why it has none (``role`` None, ``why``).

    ``axes`` says how one matrix lies in its last two axes, ``fan_in`` is counted along the true one. ``experts`` is
    the length of a stack of experts' matrices in one tensor. ``also`` holds the roles of the tensor's other names
    (tied embeddings). ``beside`` names the matrix whose output a bias is added to.
    """

    name: str
    shape: tuple[int, ...]
    role: Role | None
    why: str
    axes: Axes = "none"
    fan_in: int | None = None
    fan_out: int | None = None
    experts: int | None = None
    also: tuple[Role, ...] = ()
    beside: str | None = None
    trainable: bool = True

    @property
    def numbers(self) -> int:
        """How many entries it has."""
        total = 1
        for n in self.shape:
            total *= n
        return total


def assign_roles(model: nn.Module, declared: Mapping[str, str] | None = None) -> dict[str, Assignment]:
    """Name -> Assignment, in the model's order, one entry for a tensor with several names.

    ``declared`` maps patterns such as ``"blocks.*.mix.weight"`` to role names and goes before the model's own
    ``mue_check_roles``, which goes before the known names. AuditError: a pattern that fits no parameter, a model
    without parameters, a parameter without a shape.
    """
    names: dict[int, list[str]] = {}
    tensors: dict[int, Tensor] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
        tensors[id(parameter)] = parameter
    if not names:
        raise AuditError(f"the model ({type(model).__name__}) has no parameters")
    lazy = next((names[key][0] for key, tensor in tensors.items() if is_lazy(tensor)), None)
    if lazy is not None:
        raise AuditError(f"{lazy} has no shape yet (a lazy module): run one batch through the model first")
    asked = _declared(model, declared, [name for group in names.values() for name in group])
    width, vocabulary = _table(model, asked)
    out: dict[str, Assignment] = {}
    for key, group in names.items():
        found = [_assign(model, name, tensors[key], asked, width, vocabulary) for name in group]
        first = next((a for a in found if a.role is not None), found[0])
        others = tuple(a.role for a in found if a.role is not None and a.role is not first.role)
        out[first.name] = replace(first, also=others)
    return {name: replace(a, beside=_beside(a, out)) for name, a in out.items()}


def width_of(assignments: Mapping[str, Assignment]) -> int | None:
    """The model's width d, by its token embedding; None without one."""
    return next((a.shape[-1] for a in assignments.values() if a.role is Role.TOKEN_EMBEDDING), None)


def _declared(model: nn.Module, given: Mapping[str, str] | None, names: list[str]) -> dict[str, tuple[Role, str]]:
    out: dict[str, tuple[Role, str]] = {}
    own = carried(model, ATTRIBUTE) or {}
    for where, mapping in (("roles", given or {}), (f"the model's {ATTRIBUTE}", own)):
        if not isinstance(mapping, Mapping):
            raise AuditError(f"{where}: must map name patterns to roles, not be a {type(mapping).__name__}")
        for pattern, role in mapping.items():
            fits = [n for n in names if fnmatchcase(n, pattern) or fnmatchcase(plain_name(n), pattern)]
            if not fits:
                raise AuditError(
                    f"{where}: pattern {pattern!r} fits no parameter; the first are {', '.join(names[:3])}"
                )
            for name in fits:
                out.setdefault(name, (parse_role(role), f"declared by {pattern!r}"))
    return out


def _table(model: nn.Module, asked: Mapping[str, tuple[Role, str]]) -> tuple[int | None, int | None]:
    """Width and vocabulary by the token embedding."""
    embedding = next(p for p in PATTERNS if p.role is Role.TOKEN_EMBEDDING)
    for name, parameter in model.named_parameters():
        role = asked[name][0] if name in asked else None
        fits = role is None and embedding.matches(plain_name(name)) and _is_kind(model, name, "embedding")
        if (role is Role.TOKEN_EMBEDDING or fits) and parameter.ndim == 2:
            return parameter.shape[1], parameter.shape[0]
    return None, None


def _assign(
    model: nn.Module,
    name: str,
    parameter: Tensor,
    asked: Mapping[str, tuple[Role, str]],
    width: int | None,
    vocabulary: int | None,
) -> Assignment:
    shape = tuple(parameter.shape)
    plain = Assignment(name=name, shape=shape, role=None, why="", trainable=parameter.requires_grad)
    if name in asked:
        role, why = asked[name]
        placed = _placed(replace(plain, role=role, why=why), _owner(model, name), width)
        return placed or replace(plain, role=role, why=why)
    reason = "its name is not known"
    for pattern in PATTERNS:
        if not pattern.matches(plain_name(name)):
            continue
        wrong = _mismatch(model, name, pattern, shape, vocabulary)
        placed = _placed(
            replace(plain, role=pattern.role, why="matched"), _owner(model, name), None if pattern.any_width else width
        )
        if wrong is None and placed is not None:
            return placed
        reason = f"named as {pattern.role}, but " + (wrong or f"no axis of {list(shape)} is the width d={width}")
        break
    return replace(plain, why=f"{reason}: declare it, roles={{{shape_of(plain_name(name))!r}: ROLE}}")


def _mismatch(
    model: nn.Module, name: str, pattern: Pattern, shape: tuple[int, ...], vocabulary: int | None
) -> str | None:
    """What does not fit, or None."""
    if len(shape) not in pattern.axes:
        return f"with {len(shape)} axes"
    if not _is_kind(model, name, pattern.kind):
        return f"in a {type(_owner(model, name)).__name__}"
    if pattern.role is Role.UNEMBEDDING and not plain_name(name).endswith("lm_head.weight") and vocabulary not in shape:
        return "not of the vocabulary's size"
    return None


def _is_kind(model: nn.Module, name: str, kind: Kind) -> bool:
    owner = _owner(model, name)
    classes = {c.__name__ for c in type(owner).__mro__}
    if kind == "any":
        return True
    if kind == "linear":
        return any("Linear" in c or c == "Conv1D" for c in classes)
    if kind == "embedding":
        return any("Embedding" in c for c in classes)
    if kind == "norm":
        # a norm written by the user may be called anything: one vector, and the name said norm
        return len(list(owner.parameters(recurse=False))) <= 2
    return any(hasattr(up, mixed) for up in _ancestors(model, name)[-2:] for mixed in ("experts", "input_linear"))


def _owner(model: nn.Module, name: str) -> nn.Module:
    return model.get_submodule(name.rpartition(".")[0])


def _ancestors(model: nn.Module, name: str) -> list[nn.Module]:
    """The modules around the one that holds ``name``, outermost first."""
    parts = name.split(".")[:-1]
    return [model.get_submodule(".".join(parts[:i])) for i in range(len(parts))]


def _placed(a: Assignment, owner: nn.Module, width: int | None) -> Assignment | None:
    """With fan-in and axes; None when the width is known and in neither place where the role needs it."""
    assert a.role is not None
    if a.role in VECTORS or a.role in EMBEDDINGS or len(a.shape) < 2:
        fits = a.role not in EMBEDDINGS or width is None or a.shape[-1] == width
        return a if fits else None
    rows, columns = a.shape[-2:]
    experts = a.shape[0] if len(a.shape) == 3 and a.role in ROUTED | SHARED else None
    out_in = replace(a, axes="out_in", fan_in=columns, fan_out=rows, experts=experts)
    in_out = replace(a, axes="in_out", fan_in=rows, fan_out=columns, experts=experts)
    return next((p for p in _ways(owner, out_in, in_out) if width is None or _at_width(p, width)), None)


def _ways(owner: nn.Module, out_in: Assignment, in_out: Assignment) -> Iterator[Assignment]:
    """How the matrix may lie, the likelier first: a module that says so leaves no choice."""
    classes = {c.__name__ for c in type(owner).__mro__}
    transposed = getattr(owner, "is_transposed", None)
    if transposed or "Conv1D" in classes:
        yield in_out
    elif transposed is False or any("Linear" in c for c in classes):
        yield out_in
    else:
        yield out_in
        yield in_out


def _at_width(a: Assignment, width: int) -> bool:
    return (a.fan_out if a.role in WRITES_WIDTH else a.fan_in) == width


def _beside(a: Assignment, all_of: Mapping[str, Assignment]) -> str | None:
    if a.role is not Role.BIAS:
        return None
    stem, _, last = a.name.rpartition(".")
    matrix = f"{stem}.weight" if last == "bias" else a.name.removesuffix("_bias")
    return matrix if matrix in all_of else None
