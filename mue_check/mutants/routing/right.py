"""RIGHT: the right candidates, which every check must let pass."""

from dataclasses import replace

from mue_check.mutants.routing import auxiliary, blocks, capacity, gates, selection
from mue_check.mutants.routing.bug import Right

_ROUTERS: tuple[tuple[str, type[gates.Gate], str], ...] = (
    ("complete_mue", gates.CompleteMueRouter, "arXiv 2605.23893"),
    ("mixtral", gates.MixtralRouter, "arXiv 2401.04088"),
    ("olmoe", gates.OlmoeRouter, "arXiv 2409.02060"),
    ("gpt_oss", gates.GptOssRouter, "arXiv 2508.10925"),
    ("switch", gates.SwitchRouter, "arXiv 2101.03961"),
    ("switch_loss", auxiliary.SwitchLossRouter, "arXiv 2101.03961"),
    ("switch_capacity", capacity.SwitchCapacityRouter, "transformers, Switch"),
    ("llama4", gates.Llama4Router, "transformers, Llama 4"),
    ("deepseek_v3", selection.DeepSeekV3Router, "arXiv 2412.19437"),
    ("moonlight", selection.MoonlightRouter, "Moonlight-16B-A3B"),
    ("unscaled", selection.UnscaledRouter, "sglang"),
    ("ernie", selection.ErnieRouter, "transformers, Ernie 4.5"),
    ("pangu", selection.PanguRouter, "arXiv 2505.21411"),
    ("torchtitan", selection.TorchtitanRouter, "torchtitan"),
    ("megatron", capacity.MegatronRouter, "Megatron-core"),
    ("megatron_capacity", capacity.MegatronCapacityRouter, "Megatron-core"),
    ("deepspeed", capacity.DeepSpeedRouter, "DeepSpeed, arXiv 2006.16668"),
    ("expert_choice", capacity.ExpertChoiceRouter, "arXiv 2202.09368"),
)
_BLOCKS: tuple[tuple[str, type[blocks.Block] | type[blocks.MixtralBlock], str], ...] = (
    ("complete_mue_block", blocks.CompleteMueBlock, "arXiv 2605.23893"),
    ("mixtral_block", blocks.MixtralBlock, "transformers 4"),
    ("olmoe_block", blocks.OlmoeBlock, "transformers 5"),
    ("gpt_oss_block", blocks.GptOssBlock, "gpt-oss"),
    ("megablocks_block", blocks.MegablocksBlock, "megablocks"),
    ("pangu_block", blocks.PanguBlock, "arXiv 2505.21411"),
    ("switch_block", blocks.SwitchBlock, "arXiv 2101.03961"),
    ("torchtitan_block", blocks.TorchtitanBlock, "torchtitan"),
    ("megatron_block", blocks.MegatronBlock, "Megatron-core"),
    ("deepspeed_block", blocks.DeepSpeedBlock, "DeepSpeed, arXiv 2006.16668"),
    ("expert_choice_block", blocks.ExpertChoiceBlock, "arXiv 2202.09368"),
    ("deepseek_v3_block", blocks.DeepSeekV3Block, "arXiv 2412.19437"),
    ("moonlight_block", blocks.MoonlightBlock, "Moonlight-16B-A3B"),
    ("sglang_block", blocks.SglangBlock, "sglang"),
    ("llama4_block", blocks.Llama4Block, "transformers, Llama 4"),
)
_LOSSES = (
    ("switch_auxiliary", auxiliary.switch_loss, "arXiv 2101.03961"),
    ("mixtral_auxiliary", auxiliary.mixtral_loss, "transformers, Mixtral"),
)

RIGHT = (
    *(Right(name=n, candidate="router", factory=f, claim=f.routing_spec, source=s) for n, f, s in _ROUTERS),
    *(Right(name=n, candidate="block", factory=f, claim=f.routing_spec, source=s) for n, f, s in _BLOCKS),
    *(
        Right(
            name=n,
            candidate="auxiliary_loss",
            factory=f,
            claim=replace(gates.MixtralRouter.routing_spec, auxiliary_loss=f"{f.__module__}:{f.__name__}"),
            source=s,
        )
        for n, f, s in _LOSSES
    ),
)
