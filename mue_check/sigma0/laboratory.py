"""What the sigma_0 laboratory measures at each tier of the suites, and the tier that runs all of it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from mue_check.tiers import CPU, Tier


@dataclass(frozen=True, kw_only=True)
class Laboratory:
    """Target loads, mixtures and numbers of seeds. An empty tuple leaves its ladder out.

    ``loads``, ``blind_loads`` (content-blind routing) and ``heldout_loads`` (not used by any fit) are compared with the
    uniform load; ``probed_loads`` are those of ``loads`` that the causal probe repeats. ``batches`` are factors,
    ``activated`` and ``capacities`` numbers of experts.
    """

    loads: tuple[str, ...] = ()
    blind_loads: tuple[str, ...] = ()
    probed_loads: tuple[str, ...] = ()
    heldout_loads: tuple[str, ...] = ()
    batches: tuple[int, ...] = ()
    activated: tuple[int, ...] = ()
    capacities: tuple[int, ...] = ()
    noise_loads: tuple[str, ...] = ("zipf:1",)
    """Loads, besides the uniform one, under which gamma is measured."""
    noise_mixtures: tuple[str, ...] = ("16e2a,h=16", "16e2a,h=16,router=content_blind")
    """SPECs of the mixtures whose gamma is measured; what they leave out is the dense reference's."""
    noise_seeds: int = 4
    """Seeds of gradient noise; so many are added at a time, up to ``max_noise_seeds``, while gamma is too uncertain."""
    max_noise_seeds: int = 4
    drift_seeds: int = 6
    """Seeds of each drift: a drift budget is only as good as the drifts that it is fitted to."""

    def seeds_of_drift(self, tier: Tier) -> int:
        """``drift_seeds``, or the tier's limit where that is lower."""
        return self.drift_seeds if tier.seed_limit is None else min(self.drift_seeds, tier.seed_limit)


_MIXTURES = (
    "16e2a,h=16",
    "d=64,16e2a,h=32",
    "32e4a,h=8",
    "8e2a,h=16",
    "16e2a,h=16,router=content_blind",
    "16e2a,h=16,router=softmax_norm",
    "16e2a1s,h=16,router=deepseek_v3",
    "16e2a2g,h=16,router=moge",
    "16e2a2g,h=16,router=sigmoid_group_norm",
    "16e2a,h=16,router=sigmoid_mean",
    "16e1a,h=16,router=switch",
    "16e2a,h=16,router=expert_choice",
    *(
        f"16e{a},h=16,router={router},balance={balance}"
        for router, a in (("sigmoid_norm", "2a"), ("softmax_norm", "2a"), ("deepseek_v3", "2a1s"), ("switch", "1a"))
        for balance in ("none", "auxiliary_loss", "selection_bias")
    ),
    *(f"16e2a2g,h=16,router={router},balance=none" for router in ("moge", "sigmoid_group_norm")),
    "16e2a,h=16,router=sigmoid_mean,balance=none",
)
"""Two widths and three (N, a) of the rule's own routing, which are measured on a second corpus too; then each variant
at one size, with steered loads and with the loads that its own balancing produces."""
_QUICK = Laboratory()
_FULL = Laboratory(
    loads=("zipf:0.5", "zipf:1", "zipf:1.5", "hot:2:0.6", "hot:4:0.8"),
    blind_loads=("zipf:0.5", "zipf:1", "zipf:1.5"),
    probed_loads=("zipf:1", "zipf:1.5"),
    heldout_loads=(
        "zipf:0.25",
        "zipf:0.75",
        "zipf:1.25",
        "hot:1:0.3",
        "hot:2:0.4",
        "hot:4:0.6",
        "hot:8:0.8",
        "6/1/3/9/2/7/5/4/8/1/2/3/10/4/6/5",
        "20/1/1/2/1/12/1/3/1/1/16/2/1/1/8/1",
        "8/8/8/8/4/4/4/4/2/2/2/2/1/1/1/1",
    ),
    batches=(2, 4),
    activated=(2, 4, 8),
    capacities=(32,),
    noise_loads=("zipf:0.5", "zipf:1", "zipf:1.5"),
    noise_mixtures=_MIXTURES,
    noise_seeds=8,
    max_noise_seeds=16,
    drift_seeds=12,
)
_GPU = Laboratory(
    noise_mixtures=("16e2a,h=64", "16e2a,h=64,router=content_blind"), noise_seeds=8, max_noise_seeds=8, drift_seeds=12
)
LABORATORIES: Mapping[str, Laboratory] = {"smoke": _QUICK, "cpu": _QUICK, "lab": _FULL, "gpu": _GPU, "full": _GPU}
"""By the name of the tier."""
LAB = replace(CPU, name="lab")
"""The models and corpora of tier cpu with the whole laboratory: `pytest suites/test_sigma0.py --tier lab`, two hours of
one core."""
