"""Bugs found in public code, by row of the table in conformance/pages/README.md; a failing check names likely ones."""

from dataclasses import dataclass


@dataclass(frozen=True)
class KnownBug:
    """One bug and where it was found."""

    what: str
    seen: str


_ROWS = (
    (1, "softmax after top-1: the weight is always 1", "NVIDIA/Megatron-LM #894, davidmrau/mixture-of-experts #27"),
    (2, "weights normalized at a = 1: the weight is always 1", "jingyaogong/minimind #858"),
    (3, "the selected weights are not normalized", "pytorch/torchtitan #1448"),
    (4, "softmax over all experts instead of the selected ones", "pytorch/torchtitan #2258"),
    (5, "raw logits returned as weights", "sgl-project/sglang PR#35160"),
    (6, "the selection bias leaks into the weights", "huggingface/transformers PR#39581, PR#41663"),
    (7, "softmax instead of sigmoid, bias in the weights, or the scale missing", "ml-explore/mlx-lm #1883"),
    (8, "masked groups filled with 0, which beats negative scores", "vllm PR#13474, sglang PR#3705"),
    (9, "too few groups for a: experts at -inf are selected silently", "huggingface/transformers #48647"),
    (10, "the routed scale is missing or applied twice", "sglang PR#8511, #35152; vllm PR#45037"),
    (11, "expert outputs are added without their weights", "edwardcapriolo/deliverance #87"),
    (12, "router jitter written into the experts' input", "huggingface/transformers #33969"),
    (13, "layers pooled before the product: collapsed layers look even", "huggingface/transformers #28255, #31464"),
    (14, "softmax of a softmax in the auxiliary loss", "huggingface/transformers #45120"),
    (15, "the auxiliary loss is detached from the graph", "NVIDIA-NeMo/Automodel #1408"),
    (16, "the auxiliary loss depends on how the batch is split", "NVIDIA/Megatron-LM #1652, PR#3768"),
    (17, "cumsum over the wrong axis: capacity is never enforced", "huggingface/transformers #48293"),
    (18, "0 as fill value: unassigned tokens take the places of assigned ones", "deepspeedai/DeepSpeed PR#7986"),
    (19, "the balancing bias is updated per micro-batch", "pytorch/torchtitan PR#1304"),
    (20, "the gate computes in bfloat16", "sglang PR#33764"),
    (
        21,
        "expert gradients scaled by the parallel degree; Adam hides it",
        "databricks/megablocks PR#20, pytorch #160285",
    ),
    (22, "a forward-only kernel: the experts are never trained", "KellerJordan/Muon #65"),
    (23, "the optimizer holds parameters that the model no longer uses", "deepspeedai/DeepSpeed PR#8354"),
    (24, "3-D expert parameters missed when matching by name or type", "unsloth PR#11014, peft #2527"),
    (25, "fan-in of [E, out, in] taken as out * in: std far too small", "huggingface/transformers PR#42306"),
    (26, "experts transposed where 2f = d", "unsloth-zoo #849, transformers #47031"),
    (27, "expert choice sees later tokens", "MoSA #3, nanochat #844"),
    (28, "a zero-initialized router: all logits tie and every token takes the same experts", "common"),
    (29, "a counter or a bias moves in evaluation mode too", "PrimeIntellect-ai/prime-rl PR#2953"),
    (30, "scores of very negative logits round to 0: a token loses its experts", "sgl-project/sglang PR#34459"),
    (31, "a parameter that nothing trains, such as the noise's", "yfzhang114/SliME #3"),
    (32, "a learned scale that is 1 at init only", "Gemma 4 in transformers"),
    (33, "a kernel for one size has another gate", "MetaX-MACA/vLLM-metax #270"),
    (34, "the groups taken are not the best", "tenstorrent/tt-metal PR#43401"),
    (35, "a loss that is not finite, as with a noise of 0 in evaluation mode", "common"),
)
KNOWN_BUGS = {row: KnownBug(what, seen) for row, what, seen in _ROWS}


def likely_bugs(rows: tuple[int, ...]) -> tuple[str, ...]:
    """One line for each of these rows: the bug and where it was found."""
    return tuple(f"{KNOWN_BUGS[row].what} ({KNOWN_BUGS[row].seen}; row {row})" for row in rows)
