"""Roles: what a parameter does in the model. Rules map roles, never parameter names, to factors."""

from enum import StrEnum

from mue_check.errors import RuleError, unknown
from mue_check.spec import DiffusionSpec, Experts, ModelSpec


class Role(StrEnum):
    """Every kind of parameter for which a rule can prescribe values."""

    TOKEN_EMBEDDING = "token_embedding"
    POSITION_EMBEDDING = "position_embedding"
    PATCH_EMBEDDING = "patch_embedding"
    TIMESTEP_IN = "timestep_in"
    TIMESTEP_OUT = "timestep_out"
    LABEL_EMBEDDING = "label_embedding"
    MODULATION = "modulation"
    SCALE_SHIFT_TABLE = "scale_shift_table"
    ATTENTION_QKV = "attention_qkv"
    ATTENTION_OUT = "attention_out"
    FFN_UP = "ffn_up"
    FFN_GATE = "ffn_gate"
    FFN_DOWN = "ffn_down"
    ROUTER = "router"
    EXPERT_UP = "expert_up"
    EXPERT_GATE = "expert_gate"
    EXPERT_DOWN = "expert_down"
    SHARED_UP = "shared_up"
    SHARED_GATE = "shared_gate"
    SHARED_DOWN = "shared_down"
    UNEMBEDDING = "unembedding"
    NORM_GAIN = "norm_gain"
    BIAS = "bias"


EMBEDDINGS = frozenset({Role.TOKEN_EMBEDDING, Role.POSITION_EMBEDDING})
CONDITIONING_INPUTS = frozenset({Role.TIMESTEP_IN, Role.LABEL_EMBEDDING, Role.SCALE_SHIFT_TABLE})
INPUTS = EMBEDDINGS | {Role.PATCH_EMBEDDING} | CONDITIONING_INPUTS
"""Matrices whose number of inputs does not grow with the model (arXiv 2505.15270 for those of a diffusion model)."""
CONDITIONING = CONDITIONING_INPUTS | {Role.TIMESTEP_OUT, Role.MODULATION}
ZEROED = frozenset({Role.MODULATION, Role.SCALE_SHIFT_TABLE, Role.UNEMBEDDING})
"""What a published diffusion transformer starts at zero."""
OF_DIFFUSION = CONDITIONING | {Role.PATCH_EMBEDDING}
VECTORS = frozenset({Role.NORM_GAIN, Role.BIAS})
DENSE_FFN = frozenset({Role.FFN_UP, Role.FFN_GATE, Role.FFN_DOWN})
ROUTED = frozenset({Role.ROUTER, Role.EXPERT_UP, Role.EXPERT_GATE, Role.EXPERT_DOWN})
SHARED = frozenset({Role.SHARED_UP, Role.SHARED_GATE, Role.SHARED_DOWN})
DOWN = frozenset({Role.FFN_DOWN, Role.EXPERT_DOWN, Role.SHARED_DOWN})
HIDDEN = frozenset(Role) - INPUTS - VECTORS - {Role.UNEMBEDDING}
"""Every matrix with inputs and outputs that grow with the model: those inside a block, and two of the conditioning."""


def parse_role(name: str) -> Role:
    """The role of that name; RuleError names the known ones."""
    try:
        return Role(name)
    except ValueError:
        raise RuleError(unknown("role", name, Role)) from None


def roles_of(model: ModelSpec) -> tuple[Role, ...]:
    """The roles that a model of this spec can have, in the order of a forward pass."""
    absent: frozenset[Role] = DENSE_FFN
    if not isinstance(model.feed_forward, Experts):
        absent = ROUTED | SHARED
    elif not model.feed_forward.shared:
        absent = DENSE_FFN | SHARED
    if not isinstance(model, DiffusionSpec):
        absent |= OF_DIFFUSION
    else:
        absent |= EMBEDDINGS
        absent |= set() if model.labels else {Role.LABEL_EMBEDDING}
        absent |= set() if model.shared_modulation else {Role.SCALE_SHIFT_TABLE}
    return tuple(role for role in Role if role not in absent)


def starts_constant(role: Role, model: ModelSpec) -> bool:
    """Whether the tensors of a role are not drawn: gains and biases, and zeroed modulations and final layers."""
    zeroed = isinstance(model, DiffusionSpec) and model.zero_gates
    return role in VECTORS or (zeroed and role in ZEROED)
