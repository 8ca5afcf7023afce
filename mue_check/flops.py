"""FLOP and memory traffic of a training step, computed from the spec.

A multiply-add is 2 FLOP. A forward pass takes, per token and run, with width d, context T, vocabulary V and N experts
of width h:

    attention     8 d^2 per layer (q, k, v, out), and 4 T d for scores and mixing (of all T^2 pairs, as computed)
    feed-forward  6 d H (SwiGLU: up, gate, down). For a mixture: 6 d h for each expert that the product computes
                  (``met``: all N, the a active ones, or those in padded blocks), 6 d s h for s shared experts, and
                  2 d N for the router
    unembedding   2 d V

A backward pass takes twice as much. A fused attention kernel computes the scores again, which is not counted.
"""

from mue_check.spec import Dense, Experts, ModelSpec

TRAINING = 3.0
"""A forward and a backward pass, in units of a forward pass."""


def forward_flop(model: ModelSpec, *, vocab: int, met: float) -> float:
    """FLOP of the matrix products of one token's forward pass in one run, without attention's scores and mixing."""
    d, ffn = model.width, model.feed_forward
    if isinstance(ffn, Dense):
        branch = 6.0 * d * ffn.hidden
    else:
        branch = 6 * d * (met + ffn.shared) * ffn.hidden + 2 * d * ffn.total
    return model.depth * (8 * d * d + branch) + 2 * d * vocab


def attention_flop(model: ModelSpec, *, context: int) -> float:
    """FLOP of attention's scores and mixing in one token's forward pass in one run."""
    return model.depth * 4 * context * model.width


def training_flop(model: ModelSpec, *, context: int, vocab: int, met: float) -> float:
    """FLOP of a training step per token in one run, forward and backward."""
    products = TRAINING * forward_flop(model, vocab=vocab, met=met)
    ffn = model.feed_forward
    if (
        isinstance(ffn, Experts) and ffn.router == "content_blind"
    ):  # its logits are computed, but no gradient flows through them
        products -= (TRAINING - 1) * model.depth * 2 * model.width * ffn.total
    return products + TRAINING * attention_flop(model, context=context)


def activation_numbers(model: ModelSpec, *, context: int, vocab: int, met: float) -> float:
    """Numbers that one token's forward pass writes in one run: the memory traffic of elementwise operations."""
    d, ffn = model.width, model.feed_forward
    if isinstance(ffn, Dense):
        branch = 4.0 * ffn.hidden
    else:
        rows = 2 * d * met if met < ffn.total else 0  # gathered before the product and scattered after it
        branch = (5 * met + 4 * ffn.shared) * ffn.hidden + rows + 4 * ffn.total
    return model.depth * (12 * d + context * d // model.head_width + branch) + 4 * d + 3 * vocab


def parameter_numbers(model: ModelSpec, *, context: int, vocab: int) -> int:
    """All parameters of one run that the optimizer updates: blocks, gains, routers and embeddings."""
    d, ffn = model.width, model.feed_forward
    routers = 0 if isinstance(ffn, Dense) else model.depth * d * ffn.total
    gains = (2 * model.depth + 1) * d
    return model.parameters + routers + gains + (2 * vocab + context) * d


def relative_work(model: ModelSpec) -> float:
    """Rough cost of a training step relative to other models, for sorting. No device is timed.

    The weights of products, activations and updates are those of a CPU core at the 256 tokens per step of the cpu tier
    (measured with ``cost.timing``).
    """
    ffn, context, vocab = model.feed_forward, 16, 32
    met = ffn.activated if isinstance(ffn, Experts) else 0
    flop = training_flop(model, context=context, vocab=vocab, met=met)
    moved = activation_numbers(model, context=context, vocab=vocab, met=met)
    return flop + 200 * moved + 2.4 * parameter_numbers(model, context=context, vocab=vocab)
