"""Ratios of target to reference, in which rules are written, and the global factors for batch and duration."""

import math
from dataclasses import dataclass, replace

from mue_check.rules.prescription import Factors
from mue_check.spec import Scenario


@dataclass(frozen=True, kw_only=True)
class Ratios:
    """Target over reference: width rho_d, depth m_L, tokens per step rho_B, and total tokens rho_D."""

    width: float
    depth: float
    batch: float
    data: float

    @classmethod
    def of(cls, reference: Scenario, target: Scenario) -> "Ratios":
        """The ratios of ``target`` to ``reference``."""
        batch = target.tokens_per_step / reference.tokens_per_step
        return cls(
            width=target.model.width / reference.model.width,
            depth=target.model.depth / reference.model.depth,
            batch=batch,
            data=batch * target.steps / reference.steps,
        )

    def with_batch_and_duration(self, f: Factors) -> Factors:
        """``f`` times the factors common to all roles (arXiv 2512.22382, Table 1, after the SDE of 2205.10287)."""
        drift = math.sqrt(self.batch / self.data)
        return replace(
            f,
            lr=f.lr * drift,
            weight_decay=f.weight_decay * drift,
            eps=f.eps / drift,
            one_minus_beta=f.one_minus_beta * self.batch / self.data,
        )
