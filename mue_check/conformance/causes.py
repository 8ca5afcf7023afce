"""The mistakes that really happened, by row: what a failing check names as its likely cause."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Cause:
    """One mistake and where it was met."""

    what: str
    seen: str


CAUSES = {
    1: Cause(
        "softmax after top-1: the weight is constantly 1", "NVIDIA/Megatron-LM #894, davidmrau/mixture-of-experts #27"
    ),
    2: Cause("weights normalized although a = 1: the weight is constantly 1", "jingyaogong/minimind #858"),
    3: Cause("the chosen weights are not normalized", "pytorch/torchtitan #1448"),
    4: Cause("softmax over all experts where the model says over the chosen ones", "pytorch/torchtitan #2258"),
    5: Cause("raw logits returned as weights", "sgl-project/sglang PR#35160"),
    6: Cause("the selection bias leaks into the weights", "huggingface/transformers PR#39581, PR#41663"),
    7: Cause("softmax for sigmoid, bias in the weights, or the scale dropped", "ml-explore/mlx-lm #1883"),
    8: Cause("masked groups filled with 0, so negative scores lose to them", "vllm PR#13474, sglang PR#3705"),
    9: Cause("groups too few for a: experts at -inf are chosen silently", "huggingface/transformers #48647"),
    10: Cause("the routed scale applied not at all, or twice", "sglang PR#8511, #35152; vllm PR#45037"),
    11: Cause("expert outputs are added without their weights", "edwardcapriolo/deliverance #87"),
    12: Cause("router jitter written into the experts' input", "huggingface/transformers #33969"),
    13: Cause(
        "layers pooled before the product: collapsed layers score as even", "huggingface/transformers #28255, #31464"
    ),
    14: Cause("softmax of a softmax in the auxiliary loss", "huggingface/transformers #45120"),
    15: Cause("the auxiliary loss is cut from the graph", "NVIDIA-NeMo/Automodel #1408"),
    16: Cause("the auxiliary loss depends on how the batch is split", "NVIDIA/Megatron-LM #1652, PR#3768"),
    17: Cause("positions counted along the wrong axis: capacity is never enforced", "huggingface/transformers #48293"),
    18: Cause("0 as fill: tokens that never asked take places of those that did", "deepspeedai/DeepSpeed PR#7986"),
    19: Cause("the balancing bias moves with every micro-batch", "pytorch/torchtitan PR#1304"),
    20: Cause("the gate computes in bfloat16", "sglang PR#33764"),
    21: Cause(
        "expert gradients scaled by the parallel degree; Adam hides it", "databricks/megablocks PR#20, pytorch #160285"
    ),
    22: Cause("a forward-only kernel: the experts are never trained", "KellerJordan/Muon #65"),
    23: Cause("the optimizer holds parameters that are no longer the model's", "deepspeedai/DeepSpeed PR#8354"),
    24: Cause("3-D expert parameters missed when matching by name or type", "unsloth PR#11014, peft #2527"),
    25: Cause("fan-in of [E, out, in] taken as out * in: std far too small", "huggingface/transformers PR#42306"),
    26: Cause("experts transposed where 2f = d", "unsloth-zoo #849, transformers #47031"),
    27: Cause("expert choice looks at later tokens", "MoSA #3, nanochat #844"),
    28: Cause("a router of zeros: all logits tie and every token takes the same experts", "common"),
}
"""By row of the table in docs/checks/README.md."""
