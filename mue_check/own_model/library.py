"""Models of transformers by name: ``hf:CONFIG`` at any width, depth or number of experts, with the groups of a rule.

The question is whether the rule, applied as ``param_groups`` and ``init_parameters`` apply it, fits that family.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mue_check.audit.groups import init_parameters, param_groups
from mue_check.audit.scenario import scenario_of, scenarios_of
from mue_check.errors import MueCheckError, unknown
from mue_check.own_model.candidate import Candidate, ModelError, Recipe, load
from mue_check.routing.hugging_face import PREFIX, Family, family, model_of
from mue_check.rules import HyperParameters, Prescription, get_rule

AXES = {"width": "d", "experts": "experts", "top_k": "activated", "layers": "depth", "expert_width": "f"}
"""The axes of such a model, and what it calls them."""
_HEAD, _VOCABULARY, _CONTEXT, _BATCH = 16, 64, 32, 8
_RANKS = ("q_lora_rank", "kv_lora_rank")
"""Of projections by way of fewer numbers, which grow with the width."""
_VALUES = HyperParameters(init_std=0.1)


def find(recipe: Recipe) -> Candidate:
    """The candidate of that name. ModelError, one line, if it cannot be used."""
    found = library_model(recipe) if recipe.name.startswith(PREFIX) else load(recipe.name)
    return replace(found, recipe=recipe)


def library_model(recipe: Recipe) -> Candidate:
    """The candidate of ``hf:CONFIG``, tuned at ``base``. ModelError, one line, if there is no such family or axis."""
    name, axis, base, rule, values = recipe.name, recipe.axis, recipe.base, recipe.rule, recipe.values
    if axis not in AXES:
        raise ModelError(f"{name}: {unknown('axis', axis, AXES)}")
    if not base or base != int(base):
        raise ModelError(f"{name}: give --sizes, and a whole number as --base")
    try:
        found = family(name.removeprefix(PREFIX))
        made = _Prescribed(found, axis, int(base), rule, values or _VALUES)
    except MueCheckError as error:
        raise ModelError(str(error)) from None
    import transformers

    return Candidate(
        model=made.model,
        optimizer=made.optimizer,
        loss=made.loss,
        batches=made.batches,
        unit="nats",
        base=0,  # multipliers that the library lacks are folded into rates, at every size
        attribute=name,
        source=(name, axis, rule, repr(made.values), f"transformers {transformers.__version__}"),
    )


class _Prescribed:
    """The functions of a candidate."""

    def __init__(self, found: Family, axis: str, base: int, rule: str, values: HyperParameters) -> None:
        self.family, self.axis, self.rule, self.values = found, axis, get_rule(rule), values
        with torch.random.fork_rng(devices=[]):
            self.base = scenario_of(self._build(base))

    def _build(self, size: int) -> nn.Module:
        sizes = {"d": 64, "f": 64, "experts": 8, "activated": self.family.activated, "depth": 2}
        sizes[AXES[self.axis]] = size
        if self.axis == "width":
            sizes["f"] = size
        depth = max(sizes.pop("depth"), self.family.depth)
        if sizes["d"] % _HEAD:
            raise ModelError(f"width {sizes['d']}: must be a multiple of {_HEAD}, the width of a head")
        ranks = [(n, sizes["d"] // 2) for n in _RANKS if getattr(self.family.config(), n, None)]
        found = replace(self.family, depth=depth, given=(*ranks, *self.family.given))
        return model_of(found, **sizes, heads=sizes["d"] // _HEAD)

    def _prescription(self, model: nn.Module) -> Prescription:
        source, goal, _ = scenarios_of(model, self.base, None)
        return self.rule.prescribe(source, goal)

    def model(self, **size: int) -> nn.Module:
        """The library's model with the init that the rule prescribes."""
        model = self._build(size[self.axis])
        init_parameters(model, self._prescription(model), self.values)
        return model

    def optimizer(self, model: nn.Module, lr: float) -> torch.optim.Optimizer:
        """AdamW with the groups that the rule prescribes."""
        return torch.optim.AdamW(param_groups(model, self._prescription(model), replace(self.values, lr=lr)), lr=lr)

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        """Cross-entropy of the next token."""
        returned: Any = model(input_ids=batch[:, :-1])
        logits = returned.logits if hasattr(returned, "logits") else returned[0]
        return F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())

    def batches(self, seed: int) -> Iterator[Tensor]:
        """Random walks over the vocabulary: the next token is one of three."""
        generator = torch.Generator().manual_seed(seed)
        while True:
            start = torch.randint(_VOCABULARY, (_BATCH, 1), generator=generator)
            steps = torch.randint(1, 4, (_BATCH, _CONTEXT), generator=generator).cumsum(1)
            yield torch.cat((start, start + steps), 1) % _VOCABULARY
