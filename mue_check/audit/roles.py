"""The role of each parameter of a real model: declared, or matched by name, shape and kind of module.

The known names come from transformers 5 (Llama, Mistral, Qwen2, Qwen3, Mixtral, Qwen2-MoE, Qwen3-MoE, OLMoE,
DeepSeek-V3, gpt-oss, Granite-MoE, GPT-2, GPT-NeoX, Phi), nanoGPT, nanochat, torchtitan, torchtune, Megatron-core,
torch.nn and DeepSeek's own release. A name alone is never enough: the number of axes, the kind of module and the
model's width must fit too.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Literal

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from mue_check.audit.setup import WRAPPERS, AuditError, model_attribute
from mue_check.errors import with_article
from mue_check.rules import Role, parse_role
from mue_check.rules.roles import DOWN, EMBEDDINGS, ROUTED, SHARED, VECTORS

ATTRIBUTE = "mue_check_roles"
"""A model may carry its roles under this name: a mapping of name patterns to roles."""
Kind = Literal["linear", "embedding", "norm", "router", "any"]
"""The module that must hold the parameter; a router is a module next to experts."""
_WRITES_WIDTH = DOWN | {Role.ATTENTION_OUT}
"""Roles whose matrices write to the residual stream; all others read from it."""


@dataclass(frozen=True, kw_only=True)
class Pattern:
    """The end of a parameter's name (``tail``, a regular expression), and the role, axes and module that go with it.

    ``any_width``: neither axis needs to be the model's width (low-rank attention).
    """

    tail: str
    role: Role
    axes: tuple[int, ...] = (2,)
    kind: Kind = "linear"
    any_width: bool = False

    def matches(self, name: str) -> bool:
        """Whether the dotted ``name`` ends this way."""
        return re.search(rf"(?:^|\.)(?:{self.tail})$", name) is not None


_SELF = r"(?:self_attn|self_attention|attn|attention)"
_MLP = r"(?:mlp|feed_forward|ffn)"
_SHARED = r"(?:shared_experts?|shared_mlp)"
_STACK = r"(?:inner_)?experts"

PATTERNS = (
    Pattern(
        tail=r"(?:embed_tokens|embed_in|wte|tok_embeddings|word_embeddings|token_embedding|embed)\.weight",
        role=Role.TOKEN_EMBEDDING,
        kind="embedding",
    ),
    Pattern(
        tail=r"(?:wpe|position_embeddings?|pos_embeddings?|embed_positions)\.weight",
        role=Role.POSITION_EMBEDDING,
        kind="embedding",
    ),
    Pattern(
        tail=rf"{_SELF}\.(?:[qkv]_proj|qkv_proj|c_attn|c_[qkv]|w[qkv]|[Ww]qkv|query_key_value|linear_qkv)\.weight",
        role=Role.ATTENTION_QKV,
    ),
    Pattern(
        tail=rf"{_SELF}\.(?:q_a_proj|q_b_proj|kv_a_proj_with_mqa|kv_b_proj|wq_a|wq_b|wkv_a|wkv_b)\.weight",
        role=Role.ATTENTION_QKV,
        any_width=True,
    ),
    Pattern(tail=rf"{_SELF}\.in_proj_weight", role=Role.ATTENTION_QKV, kind="any"),
    Pattern(
        tail=rf"{_SELF}\.(?:o_proj|output_proj|out_proj|c_proj|wo|dense|linear_proj)\.weight", role=Role.ATTENTION_OUT
    ),
    # experts before dense layers: their names hold the dense ones
    Pattern(tail=rf"{_STACK}\.(?:gate_up_proj|gate_proj|w1(?:_EFD)?)", role=Role.EXPERT_GATE, axes=(3,), kind="any"),
    Pattern(tail=rf"{_STACK}\.(?:up_proj|w3(?:_EFD)?)", role=Role.EXPERT_UP, axes=(3,), kind="any"),
    Pattern(tail=rf"{_STACK}\.(?:down_proj|w2(?:_EDF)?)", role=Role.EXPERT_DOWN, axes=(3,), kind="any"),
    Pattern(tail=r"experts\.(?:local_experts\.\d+\.)?linear_fc1\.weight\d*", role=Role.EXPERT_GATE),
    Pattern(tail=r"experts\.(?:local_experts\.\d+\.)?linear_fc2\.weight\d*", role=Role.EXPERT_DOWN),
    Pattern(tail=r"experts\.\d+\.(?:gate_up_proj|gate_proj|w1)\.weight", role=Role.EXPERT_GATE),
    Pattern(tail=r"experts\.\d+\.(?:up_proj|w3)\.weight", role=Role.EXPERT_UP),
    Pattern(tail=r"experts\.\d+\.(?:down_proj|w2)\.weight", role=Role.EXPERT_DOWN),
    Pattern(tail=r"block_sparse_moe\.input_linear\.weight", role=Role.EXPERT_GATE, axes=(3,), kind="any"),
    Pattern(tail=r"block_sparse_moe\.output_linear\.weight", role=Role.EXPERT_DOWN, axes=(3,), kind="any"),
    Pattern(
        tail=rf"{_SHARED}\.(?:gate_up_proj|gate_proj|w1|input_linear|linear_fc1)(?:\.weight)?",
        role=Role.SHARED_GATE,
        axes=(2, 3),
        kind="any",
    ),
    Pattern(tail=rf"{_SHARED}\.(?:up_proj|w3)(?:\.weight)?", role=Role.SHARED_UP, axes=(2, 3), kind="any"),
    Pattern(
        tail=rf"{_SHARED}\.(?:down_proj|w2|output_linear|linear_fc2)(?:\.weight)?",
        role=Role.SHARED_DOWN,
        axes=(2, 3),
        kind="any",
    ),
    Pattern(tail=r"shared_expert_gate\.weight", role=Role.ROUTER),
    Pattern(tail=r"(?:gate|gate\.wg|router|router\.gate|router\.layer)\.weight", role=Role.ROUTER, kind="router"),
    Pattern(tail=rf"{_MLP}\.(?:gate_up_proj|gate_proj|w1)\.weight", role=Role.FFN_GATE),
    Pattern(tail=rf"{_MLP}\.(?:up_proj|c_fc|w3|fc1|fc_in|dense_h_to_4h|linear_fc1)\.weight", role=Role.FFN_UP),
    Pattern(tail=rf"{_MLP}\.(?:down_proj|c_proj|w2|fc2|fc_out|dense_4h_to_h|linear_fc2)\.weight", role=Role.FFN_DOWN),
    Pattern(tail=r"layers\.\d+\.(?:linear1|fc1)\.weight", role=Role.FFN_UP),
    Pattern(tail=r"layers\.\d+\.(?:linear2|fc2)\.weight", role=Role.FFN_DOWN),
    Pattern(tail=r"(?:lm_head|output|output_layer|head|unembedding|embed_out)\.weight", role=Role.UNEMBEDDING),
    Pattern(tail=r"(?:\w*norm\w*|ln_\w+)\.(?:weight|scale)", role=Role.NORM_GAIN, axes=(1,), kind="norm"),
    Pattern(tail=r"linear_(?:qkv|fc1)\.layer_norm_weight", role=Role.NORM_GAIN, axes=(1,), kind="any"),
    Pattern(tail=r"\w*bias", role=Role.BIAS, axes=(1, 2), kind="any"),
    Pattern(tail=rf"{_SELF}\.sinks", role=Role.BIAS, axes=(1,), kind="any"),
)
"""The first match decides. A fused gate_up_proj or linear_fc1 counts as the gate: its up half has the same factors."""


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """One parameter with its role. Without a role, ``why`` says why.

    ``axes`` is the layout of a matrix (its last two axes), and ``fan_in`` follows it. ``experts`` is the number of
    experts stacked in one tensor. ``tied_roles`` are the roles of the tensor's other names (tied embeddings).
    ``bias_of`` is the matrix whose output a bias is added to. ``swallowed`` says that a wide pattern declares it, and
    what speaks for another role.
    """

    name: str
    shape: tuple[int, ...]
    role: Role | None
    why: str
    axes: Literal["out_in", "in_out", "none"] = "none"
    fan_in: int | None = None
    fan_out: int | None = None
    experts: int | None = None
    tied_roles: tuple[Role, ...] = ()
    bias_of: str | None = None
    swallowed: str = ""
    trainable: bool = True

    @property
    def roles(self) -> tuple[Role, ...]:
        """All its roles; more than one if it is tied."""
        return self.tied_roles if self.role is None else (self.role, *self.tied_roles)

    @property
    def module(self) -> str:
        """The dotted name of the module that holds it."""
        return self.name.rpartition(".")[0]


def assign_roles(model: nn.Module, declared: Mapping[str, str] | None = None) -> dict[str, Assignment]:
    """Name -> Assignment, in the model's order. A tensor with several names has one entry.

    ``declared`` maps patterns such as ``"blocks.*.mix.weight"`` to role names. It takes precedence over the model's
    own ``mue_check_roles``, and that over the known names. AuditError: a pattern that matches no parameter, a model
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
    matcher = _RoleMatcher(model, declared, [name for aliases in names.values() for name in aliases])
    out: dict[str, Assignment] = {}
    for key, aliases in names.items():
        candidates = [matcher.assign(name, tensors[key]) for name in aliases]
        first = next((a for a in candidates if a.role is not None), candidates[0])
        tied = tuple(a.role for a in candidates if a.role is not None and a.role is not first.role)
        out[first.name] = replace(first, tied_roles=tied)
    return {name: replace(a, bias_of=_matrix_of_bias(a, out)) for name, a in out.items()}


def width_of(assignments: Mapping[str, Assignment]) -> int | None:
    """The model's width d, from its token embedding; None without one."""
    return next((a.shape[-1] for a in assignments.values() if a.role is Role.TOKEN_EMBEDDING), None)


def plain_name(name: str) -> str:
    """A parameter's name before the model was wrapped."""
    parts = [part for part in name.split(".") if part not in WRAPPERS]
    while len(parts) > 2 and parts[0] == "module":
        parts = parts[1:]
    return ".".join(parts)


def starred(name: str) -> str:
    """A parameter's name with ``*`` for the numbers of layers and experts."""
    return re.sub(r"(?<=\.)\d+(?=\.)", "*", name)


def layer_of(name: str) -> str:
    """A parameter's name without an expert's number: experts of one layer share it."""
    return re.sub(r"experts\.\d+\.", "experts.*.", name)


def _declared_roles(
    model: nn.Module, given: Mapping[str, str] | None, names: list[str]
) -> tuple[dict[str, tuple[Role, str]], dict[str, list[tuple[str, Role]]]]:
    """Name -> (role, why), and name -> the patterns that come too late, with their roles."""
    out: dict[str, tuple[Role, str]] = {}
    later: dict[str, list[tuple[str, Role]]] = {}
    carried = model_attribute(model, ATTRIBUTE) or {}
    for where, mapping in (("roles", given or {}), (f"the model's {ATTRIBUTE}", carried)):
        if not isinstance(mapping, Mapping):
            raise AuditError(f"{where}: must map name patterns to roles, not be {with_article(type(mapping))}")
        for pattern, role in mapping.items():
            matches = [n for n in names if fnmatchcase(n, pattern) or fnmatchcase(plain_name(n), pattern)]
            if not matches:
                first = ", ".join(names[:3])
                raise AuditError(f"{where}: pattern {pattern!r} matches no parameter; the first are {first}")
            for name in matches:
                if name in out:
                    later.setdefault(name, []).append((pattern, parse_role(role)))
                out.setdefault(name, (parse_role(role), f"declared by {pattern!r}"))
    return out, later


class _RoleMatcher:
    """Matches the parameters of one model. Width and vocabulary size are those of its token embedding."""

    def __init__(self, model: nn.Module, declared: Mapping[str, str] | None, names: list[str]) -> None:
        self.model = model
        self.declared, self.later = _declared_roles(model, declared, names)
        self.width, self.vocabulary = self._embedding_shape()

    def _embedding_shape(self) -> tuple[int | None, int | None]:
        embedding = next(p for p in PATTERNS if p.role is Role.TOKEN_EMBEDDING)
        for name, parameter in self.model.named_parameters():
            if name in self.declared:
                matches = self.declared[name][0] is Role.TOKEN_EMBEDDING
            else:
                matches = embedding.matches(plain_name(name)) and self._is_kind(name, "embedding")
            if matches and parameter.ndim == 2:
                return parameter.shape[1], parameter.shape[0]
        return None, None

    def assign(self, name: str, parameter: Tensor) -> Assignment:
        """The parameter's role, or the reason why it has none."""
        shape, plain = tuple(parameter.shape), plain_name(name)
        blank = Assignment(name=name, shape=shape, role=None, why="", trainable=parameter.requires_grad)
        module = self.model.get_submodule(blank.module)
        if name in self.declared:
            role, why = self.declared[name]
            declared = replace(blank, role=role, why=why, swallowed=self._swallowed(name, parameter, role, why))
            return _with_layout(declared, module, self.width) or declared
        reason = "its name is not known"
        pattern = next((p for p in PATTERNS if p.matches(plain)), None)
        if pattern is not None:
            matched = replace(blank, role=pattern.role, why="matched")
            laid_out = _with_layout(matched, module, None if pattern.any_width else self.width)
            mismatch = self._mismatch(name, pattern, shape)
            if mismatch is None and laid_out is not None:
                return laid_out
            mismatch = mismatch or f"no axis of {list(shape)} is the width d={self.width}"
            reason = f"named as {pattern.role}, but {mismatch}"
        return replace(blank, why=f"{reason}: declare it, roles={{{starred(plain)!r}: ROLE}}")

    def _swallowed(self, name: str, parameter: Tensor, role: Role, why: str) -> str:
        """What speaks against a declared pattern with a wildcard for more than the numbers of layers and experts."""
        first = why.removeprefix("declared by ").strip("'")
        plain = plain_name(name)
        if not re.search(r"[*?\[]", first) or first == starred(plain):
            return ""
        for pattern, other in self.later.get(name, ()):
            if other is not role and fnmatchcase(pattern, first):
                return f"{why} as {role}, which comes before {pattern!r}: put the narrower pattern first"
        known = next((p for p in PATTERNS if p.matches(plain)), None)
        if known is None or known.role is role or known.role not in EMBEDDINGS | VECTORS | {Role.UNEMBEDDING}:
            return ""
        if self._mismatch(name, known, tuple(parameter.shape)) is not None:
            return ""
        return f"{why} as {role}, and its name is that of a {known.role}: declare that by a pattern of its own, before"

    def _mismatch(self, name: str, pattern: Pattern, shape: tuple[int, ...]) -> str | None:
        """What contradicts the pattern, or None."""
        if len(shape) not in pattern.axes:
            return f"with {len(shape)} axes"
        if not self._is_kind(name, pattern.kind):
            return f"in {with_article(type(self.model.get_submodule(name.rpartition('.')[0])))}"
        head = pattern.role is Role.UNEMBEDDING and not plain_name(name).endswith("lm_head.weight")
        return "not of the vocabulary's size" if head and self.vocabulary not in shape else None

    def _is_kind(self, name: str, kind: Kind) -> bool:
        path = name.split(".")[:-1]
        module = self.model.get_submodule(".".join(path))
        classes = {c.__name__ for c in type(module).__mro__}
        if kind == "any":
            return True
        if kind == "linear":
            return any("Linear" in c or c == "Conv1D" for c in classes)
        if kind == "embedding":
            return any("Embedding" in c for c in classes)
        if kind == "norm":
            # a user's own norm class may have any name, so one or two vectors in a module named norm are enough
            return len(list(module.parameters(recurse=False))) <= 2
        outer = [self.model.get_submodule(".".join(path[:i])) for i in range(len(path))][-2:]
        return any(hasattr(m, experts) for m in outer for experts in ("experts", "routed_experts", "input_linear"))


def _with_layout(a: Assignment, module: nn.Module, width: int | None) -> Assignment | None:
    """Add fan-in and axes; None if the width is known and is not where the role needs it."""
    assert a.role is not None
    if a.role in VECTORS or a.role in EMBEDDINGS or len(a.shape) < 2:
        return a if a.role not in EMBEDDINGS or width is None or a.shape[-1] == width else None
    rows, columns = a.shape[-2:]
    experts = a.shape[0] if len(a.shape) == 3 and a.role in ROUTED | SHARED else None
    for axes in _possible_axes(module):
        fan_in, fan_out = (columns, rows) if axes == "out_in" else (rows, columns)
        if width is None or (fan_out if a.role in _WRITES_WIDTH else fan_in) == width:
            return replace(a, axes=axes, fan_in=fan_in, fan_out=fan_out, experts=experts)
    return None


def _possible_axes(module: nn.Module) -> Iterator[Literal["out_in", "in_out"]]:
    """The layouts that the matrix may have, the likelier first. Some modules state theirs."""
    classes = {c.__name__ for c in type(module).__mro__}
    transposed = getattr(module, "is_transposed", None)
    if transposed or "Conv1D" in classes:
        yield "in_out"
    else:
        yield "out_in"
        if transposed is not False and not any("Linear" in c for c in classes):
            yield "in_out"


def _matrix_of_bias(a: Assignment, assignments: Mapping[str, Assignment]) -> str | None:
    if a.role is not Role.BIAS:
        return None
    leaf = a.name.rpartition(".")[2]
    matrix = f"{a.module}.weight" if leaf == "bias" else a.name.removesuffix("_bias")
    return matrix if matrix in assignments else None
