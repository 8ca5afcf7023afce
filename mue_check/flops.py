"""FLOP and memory traffic of a training step, from the spec alone: no torch.

A multiply-add is 2 FLOP. Per token and run, forward, with d width, T context, V vocabulary, N experts of width h:

    attention     8 d^2 per layer (q, k, v, out) and 4 T d for scores and mixing (the whole square, as it is computed)
    feed-forward  6 d H (SwiGLU: up, gate, down); of a mixture 6 d h times the experts that the product meets (``met``:
                  all N, the a active ones, or what blocks are filled up to), 6 d s h for s shared experts, and 2 d N
                  for the router
    unembedding   2 d V

Backward is twice the forward. A fused attention kernel forms the scores once more; that is not counted.
"""

from mue_check.spec import Dense, Experts, ModelSpec

TRAINING = 3.0
"""Forward and backward, in forwards."""


def forward_flop(model: ModelSpec, *, vocab: int, met: float) -> float:
    """FLOP of all matrix products of one token's forward pass in one run, attention's scores and mixing apart."""
    d, ffn = model.width, model.feed_forward
    if isinstance(ffn, Dense):
        branch = 6.0 * d * ffn.hidden
    else:
        branch = 6 * d * (met + ffn.shared) * ffn.hidden + 2 * d * ffn.total
    return model.depth * (8 * d * d + branch) + 2 * d * vocab


def attention_flop(model: ModelSpec, *, context: int) -> float:
    """FLOP of scores and mixing of one token's forward pass in one run."""
    return model.depth * 4 * context * model.width


def training_flop(model: ModelSpec, *, context: int, vocab: int, met: float) -> float:
    """FLOP of one token's share of a training step in one run: forward and backward."""
    products = TRAINING * forward_flop(model, vocab=vocab, met=met)
    ffn = model.feed_forward
    if isinstance(ffn, Experts) and ffn.router == "content_blind":  # its logits are formed and lead nowhere
        products -= (TRAINING - 1) * model.depth * 2 * model.width * ffn.total
    return products + TRAINING * attention_flop(model, context=context)


def activation_numbers(model: ModelSpec, *, context: int, vocab: int, met: float) -> float:
    """Numbers that one token's forward pass writes in one run: what elementwise work and caches have to move."""
    d, ffn = model.width, model.feed_forward
    if isinstance(ffn, Dense):
        branch = 4.0 * ffn.hidden
    else:
        rows = 2 * d * met if met < ffn.total else 0  # gathered before the product and put back after it
        branch = (5 * met + 4 * ffn.shared) * ffn.hidden + rows + 4 * ffn.total
    return model.depth * (12 * d + context * d // model.head_width + branch) + 4 * d + 3 * vocab


def parameter_numbers(model: ModelSpec, *, context: int, vocab: int) -> int:
    """Parameters of one run, as the optimizer meets them: blocks, gains, routers and embeddings."""
    d, ffn = model.width, model.feed_forward
    routers = 0 if isinstance(ffn, Dense) else model.depth * d * ffn.total
    gains = (2 * model.depth + 1) * d
    return model.parameters + routers + gains + (2 * vocab + context) * d


def relative_work(model: ModelSpec) -> float:
    """About what one step of a model takes relative to another's: an order, without timing any device.

    Products, activations and updates as a CPU core prices them, at the 256 tokens a step of the cpu tier (cost/timing).
    """
    ffn, context, vocab = model.feed_forward, 16, 32
    met = ffn.activated if isinstance(ffn, Experts) else 0
    flop = training_flop(model, context=context, vocab=vocab, met=met)
    moved = activation_numbers(model, context=context, vocab=vocab, met=met)
    return flop + 200 * moved + 2.4 * parameter_numbers(model, context=context, vocab=vocab)
