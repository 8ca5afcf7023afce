"""Mixtures of Hugging Face transformers by the name of their configuration, as in ``hf:Qwen3MoeConfig``.

Nothing here knows a family. A model is built twice without memory, with E and 2E experts: what grows is the experts and
their router, and the smallest module that holds both is the block. Blocks are then made by the library's own classes
and ``_init_weights``. ``hugging_face_claim`` reads the claim.
"""

import functools
import importlib
import inspect
import json
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mue_check.errors import ClaimError
from mue_check.user_code import describe_error, no_exit

PREFIX = "hf:"
WIDTH = ("hidden_size", "n_embd", "d_model", "dim")
DEPTH = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
HIDDEN = ("intermediate_size", "n_inner", "ffn_hidden_size", "hidden_dim", "d_ff")
TOTAL = ("num_local_experts", "n_routed_experts", "num_experts", "moe_num_experts")
ACTIVATED = (
    *("num_experts_per_tok", "num_experts_per_token", "top_k", "top_k_experts"),
    *("moe_top_k", "moe_topk", "moe_k"),
)
EXPERT_HIDDEN = ("moe_intermediate_size", "expert_hidden_size", "expert_ffn_hidden_size")
SHARED = ("n_shared_experts", "moe_num_shared_experts", "num_shared_experts")
SHARED_HIDDEN = (
    *("shared_expert_intermediate_size", "shared_experts_intermediate_size", "shared_intermediate_size"),
    *("moe_shared_expert_intermediate_size", "share_expert_dim"),
)
"""The names that configurations give to the sizes of a model."""
_INIT = 0.2
"""The published 0.02 makes logits of about 1 at widths of 2048 to 7168; at those of the checks, 16 to 40, this does."""
_DEPTHS = (1, 2, 4, 8)
"""In many families the first layers are dense, so the block is looked for in deeper and deeper models."""
_SWITCHES = ("enable_moe_block", "is_moe")
"""Fields that turn a dense family into a mixture."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """A configuration, and where its models have their mixture.

    ``given`` are fields of the configuration that the user sets. ``block`` is the class of the smallest module that
    holds experts and their router, in layer ``layer`` of ``depth``, found with ``activated`` experts per token;
    ``router`` is its router's name. ``trouble``: why it cannot be called with tokens alone. ``extras``: its tensors
    that the router is called with besides the tokens.
    """

    config: type[Any]
    model: type[nn.Module]
    given: tuple[tuple[str, Any], ...] = ()
    depth: int = 1
    activated: int = 2
    block: type[nn.Module] = nn.Module
    layer: int = 0
    router: str = ""
    trouble: str = ""
    extras: tuple[str, ...] = ()

    @property
    def fields(self) -> frozenset[str]:
        """The names of the configuration's fields."""
        return _fields(self.config)

    def configured(self, **sizes: int) -> Any:
        """The configuration of a tiny model with these sizes (d, f, experts, activated)."""
        return _configured(self, tuple(sizes.items()))[0]

    def make_block(self, d_model: int, d_expert: int, n_experts: int, top_k: int) -> nn.Module:
        """The library's block, as it is at the start of training."""
        sizes = (("d", d_model), ("f", d_expert), ("experts", n_experts), ("activated", top_k))
        config, owner = _configured(self, sizes)
        takes = inspect.signature(self.block.__init__).parameters
        made: nn.Module = self.block(config, **{n: self.layer for n in ("layer_idx", "layer_id") if n in takes})
        # the library leaves weights empty or zero until this
        return made.apply(owner._init_weights)

    def make_router(self, d_model: int, n_experts: int, top_k: int) -> nn.Module:
        """The router of that block."""
        block = self.make_block(d_model, 8, n_experts, top_k)
        router = block.get_submodule(self.router)
        return _WithExtras(router, {n: tensors_of(block)[n] for n in self.extras}) if self.extras else router


class _WithExtras(nn.Module):
    """A router with the tensors of its block that it is called with."""

    def __init__(self, router: nn.Module, extras: dict[str, Tensor]) -> None:
        super().__init__()
        self.router = router
        for name, extra in extras.items():
            self.register_buffer(name.rpartition(".")[2], extra.detach())

    def forward(self, x: Tensor) -> Any:
        """What the router returns."""
        return self.router(x, *self.buffers(recurse=False))


@functools.cache
def family(name: str) -> Family:
    """The family at ``ConfigName`` or ``ConfigName,field=value,...``; ClaimError where there is no mixture."""
    first, *rest = name.split(",")
    config, library = _config_class(first)
    known = _fields(config)
    given = {}
    for part in rest:
        key, equals, value = part.partition("=")
        if not equals or key not in known | {"experts_implementation"}:
            raise ClaimError(f"hf:{name}: {part!r} is no FIELD=VALUE of {config.__name__}")
        try:
            given[key] = json.loads(value)
        except ValueError:
            given[key] = value
    if not known & set(TOTAL):
        raise ClaimError(f"hf:{name}: {config.__name__} has no number of experts")
    trouble = f"no part of its models grows with {', '.join(sorted(known & set(TOTAL)))}"
    start = Family(config=config, model=nn.Module, given=tuple(given.items()))
    for model, activated, depth in product(_model_classes(library, config), (2, 1), _DEPTHS):
        try:
            return _located(replace(start, model=model, depth=depth, activated=activated))
        except LookupError:
            continue
        except Exception as error:  # a configuration that these sizes do not suit
            trouble = f"no tiny model can be built: {describe_error(error)}"
    raise ClaimError(f"hf:{name}: {trouble}")


def family_names() -> Iterator[str]:
    """The configurations of the installed transformers that have experts, in the order of their names."""
    root = Path(_transformers().__file__).parent / "models"
    found = set()
    for path in root.glob("*/modeling_*.py"):
        if any(name in path.read_text(encoding="utf-8") for name in (*TOTAL, *ACTIVATED)):
            library = _library(f"transformers.models.{path.parent.name}.{path.stem}")
            configs = {getattr(c, "config_class", None) for c in vars(library).values() if isinstance(c, type)}
            found |= {c.__name__ for c in configs if isinstance(c, type) and _fields(c) & set(TOTAL)}
    yield from sorted(found)


def model_of(family: Family, **sizes: int) -> nn.Module:
    """A whole tiny model with these sizes (d, f, experts, activated, heads), as the library initializes it."""
    made: nn.Module = family.model(_configured(family, tuple(sizes.items()))[0])
    return made


def _located(found: Family) -> Family:
    """The family with its block; LookupError where no module holds experts and a router."""
    sizes = {"d": 32, "f": 16, "activated": found.activated}
    with torch.device("meta"):
        model = model_of(found, experts=8, **sizes)
        larger = {n: p.shape for n, p in model_of(found, experts=16, **sizes).named_parameters()}
    own = {n: p.shape for n, p in model.named_parameters()}
    grown = {n: shape for n, shape in own.items() if larger.get(n) != shape}
    # experts are in parameters of three axes, or in a list that becomes longer
    lists = {_before_last_number(n) for n in larger if n not in own}
    roots = sorted(lists | {n.rpartition(".")[0] for n, shape in grown.items() if len(shape) > 2})
    best = None
    for root in roots:
        name = root
        while name := name.rpartition(".")[0]:
            inside = [n for n in grown if n.startswith(name + ".") and not n.startswith(root + ".")]
            matrices = [n for n in inside if len(grown[n]) == 2 and "." in n.removeprefix(name + ".")]
            if matrices:
                layer = next((int(part) for part in name.split(".") if part.isdigit()), 0)
                router = matrices[0].removeprefix(name + ".").partition(".")[0]
                placed = replace(found, block=type(model.get_submodule(name)), layer=layer, router=router)
                placed = _called(placed)
                if not placed.trouble:
                    return placed
                best = best or placed
                break
    if best is None or found.depth < _DEPTHS[-1]:
        raise LookupError
    return best


def _called(found: Family) -> Family:
    """The family with what a call of its block with tokens shows."""
    block = found.make_block(32, 16, 8, found.activated).eval()
    calls: list[tuple[Any, ...]] = []
    block.get_submodule(found.router).register_forward_pre_hook(lambda _, given: calls.append(given))
    x = torch.randn(1, 5, 32, generator=torch.Generator().manual_seed(0))
    try:
        with torch.no_grad():
            returned = block(x)
    except Exception as error:
        where = f"{found.block.__name__} cannot be called with tokens alone"
        return replace(found, trouble=f"{where}: {describe_error(error)}")
    parts = returned if isinstance(returned, tuple) else (returned,)
    if not any(isinstance(part, Tensor) and part.numel() == x.numel() for part in parts):
        return replace(found, trouble=f"{found.block.__name__} returns no tensor of its input's shape")
    names = {id(t): n for n, t in tensors_of(block).items()}
    return replace(found, extras=tuple(names[id(t)] for t in (calls[0][1:] if calls else ()) if id(t) in names))


@functools.lru_cache(
    maxsize=64
)  # a config takes longer than all the rest, and the checks build a block hundreds of times
def _configured(family: Family, sizes: tuple[tuple[str, int], ...]) -> tuple[Any, Any]:
    """(configuration, a model class without modules that has it and the library's init)."""
    size = dict(sizes)
    heads = size.get("heads", 2)
    known = family.fields
    default = family.config()
    wide = known & set(EXPERT_HIDDEN) and dict.fromkeys(EXPERT_HIDDEN, size["f"])
    values: dict[str, Any] = {
        **dict.fromkeys(WIDTH, size["d"]),
        **dict.fromkeys(HIDDEN, size["f"]),
        **(wide or {}),
        **dict.fromkeys(SHARED_HIDDEN, 2 * size["f"]),
        **dict.fromkeys(TOTAL, size["experts"]),
        **dict.fromkeys(ACTIVATED, size["activated"]),
        **dict.fromkeys(DEPTH, family.depth),
        **{n: heads for n in known if n.endswith("heads") and isinstance(_value(default, n), int)},
        **{n: 1 for n in SHARED if _value(default, n) is None},
        **({"layer_types": ["full_attention"] * family.depth} if _value(default, "layer_types") is None else {}),
        **dict.fromkeys(_SWITCHES, True),
        **_groups(default),
        **{n: size["d"] // heads for n in known if n.endswith("head_dim")},
        "qk_rope_head_dim": size["d"] // (2 * heads),
        "tie_word_embeddings": False,
        "vocab_size": 64,
        "vocab_size_per_layer_input": 64,
        "max_position_embeddings": 64,
        "moe_hidden_size": size["d"],
        "first_k_dense_replace": 0,
        "expert_capacity": 1 << 20,
        "initializer_range": _INIT,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "zero_expert_num": max(1, size["experts"] // 2) if _value(default, "zero_expert_num") else 0,
    }
    chosen = {n: v for n, v in values.items() if n in known} | dict(family.given)
    # "eager" is the modeling file's own code; the grouped product that a model takes by default has no float64
    config = family.config(**{"experts_implementation": "eager", **chosen})
    base = next(c for c in family.model.__mro__ if _transformers().PreTrainedModel in c.__bases__)
    return config, base(config)


def _groups(config: Any) -> dict[str, int]:
    """Four groups, of which a token may take experts from two, where the published models have groups."""
    return {"n_group": 4, "topk_group": 2} if (_value(config, "n_group") or 1) > 1 else {}


def _value(config: Any, name: str) -> Any:
    """A field's value, or None (some configurations raise where a value differs between layers)."""
    try:
        return getattr(config, name, None)
    except Exception:
        return None


def _before_last_number(name: str) -> str:
    """The list that holds an expert's parameter: what its name has before the last number."""
    parts = name.split(".")
    last = max((i for i, part in enumerate(parts) if any(c.isdigit() for c in part)), default=0)
    return ".".join(parts[:last])


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _transformers() -> Any:
    try:
        with no_exit():
            library = importlib.import_module("transformers")
    except ImportError as error:
        raise ClaimError(f"hf: names need transformers 5: pip install 'mue_check[hf]' ({error})") from None
    library.logging.set_verbosity_error()  # tiny configurations are unusual, which it would say for each
    return library


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ClaimError(f"{name} cannot be imported: {error}") from None


def _config_class(name: str) -> tuple[type[Any], Any]:
    """The configuration of the language model, and the module of its models."""
    config = getattr(_transformers(), name, None)
    if not isinstance(config, type) or not name.endswith("Config"):
        raise ClaimError(f"hf:{name}: transformers has no configuration of that name (hf:Qwen3MoeConfig, for example)")
    if not _fields(config) & set(TOTAL):
        text = config().get_text_config()
        config = type(text)
    return config, _library(config.__module__.replace(".configuration_", ".modeling_"))


def _fields(config: type[Any]) -> frozenset[str]:
    """What a configuration is made from. Those of transformers before 5.4 are no dataclasses."""
    if is_dataclass(config):
        return frozenset(field.name for field in fields(config))
    return frozenset(inspect.signature(config).parameters)


def _model_classes(library: Any, config: type) -> list[type[nn.Module]]:
    """The classes of models with that configuration, those with an unembedding first."""
    found = [c for c in vars(library).values() if isinstance(c, type) and getattr(c, "config_class", None) is config]
    order = ("ForCausalLM", "ForConditionalGeneration", "TextModel", "Model")
    ranked = [c for end in order for c in found if c.__name__.endswith(end) and "PreTrained" not in c.__name__]
    return list(dict.fromkeys(ranked))
