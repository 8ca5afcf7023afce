"""Modalities: which data a study is about, what kind of model learns them, and how the reference trains on them.

Ladders, sizes and questions are the tier's own: one rule, and on each modality its own numbers.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from mue_check.axes import Regime
from mue_check.data import Data, require_tokens
from mue_check.errors import SpecError
from mue_check.spec import ModelSpec
from mue_check.tiers import Task, Tier


@dataclass(frozen=True, kw_only=True)
class Modality:
    """``require`` raises DataError for data that the models cannot learn, such as those of another modality.

    The other fields are those of a tier; without them, the tier's own remain. ``tasks`` are by device.
    """

    require: Callable[[Data], object]
    corpora: tuple[str, ...] = ()
    kind: Callable[[ModelSpec], ModelSpec] | None = None
    tasks: Mapping[str, Mapping[tuple[str, Regime], Task]] = field(default_factory=dict)

    def of(self, tier: Tier) -> Tier:
        """The tier with this modality's data, models and tasks."""
        if not self.corpora:
            return tier
        return replace(
            tier,
            corpora=self.corpora,
            other_corpora=self.corpora[0],
            kind=self.kind,
            tasks=self.tasks[tier.device],
        )


LANGUAGE = "language"
MODALITIES: Mapping[str, Modality] = {LANGUAGE: Modality(require=require_tokens)}


def get_modality(name: str) -> Modality:
    """The modality of that name. Raises SpecError, which names the known ones."""
    try:
        return MODALITIES[name]
    except KeyError:
        raise SpecError(f"unknown modality {name!r}: allowed are {', '.join(MODALITIES)}") from None
