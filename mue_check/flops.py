"""FLOP and memory traffic of a training step, computed from the spec.

A multiply-add is 2 FLOP. A forward pass takes, per token and run, with width d, context T and N experts of width h:

    attention     8 d^2 per layer (q, k, v, out), and 4 T d for scores and mixing (of all T^2 pairs, as computed)
    feed-forward  6 d H (SwiGLU: up, gate, down). For a mixture: 6 d h for each expert that the product computes
                  (``met``: all N, the a active ones, or those in padded blocks), 6 d s h for s shared experts, and
                  2 d N for the router

and what lies outside the blocks (``Ends``). A backward pass takes twice as much, or as much as the forward pass where
the inputs are data. A fused attention kernel computes the scores again, which is not counted.
"""

from dataclasses import dataclass

from mue_check.spec import Dense, DiffusionSpec, Experts, ModelSpec

TRAINING = 3.0
"""A forward and a backward pass, in units of a forward pass."""
TRAINING_ON_DATA = 2.0
"""Likewise for a matrix whose inputs need no gradient."""


@dataclass(frozen=True, kw_only=True)
class Ends:
    """What a model has besides attention and feed-forward.

    Per token and run, ``flop`` of a training step and ``activations`` written in a forward pass; ``parameters`` of a
    run.
    """

    flop: float
    activations: float
    parameters: int


def language_ends(model: ModelSpec, *, context: int, vocab: int) -> Ends:
    """Embeddings, gains and the unembedding."""
    d = model.width
    gains = (2 * model.depth + 1) * d
    return Ends(
        flop=TRAINING * 2 * d * vocab,
        activations=4.0 * d + 3 * vocab,
        parameters=gains + (2 * vocab + context) * d,
    )


def diffusion_ends(model: DiffusionSpec, *, tokens: int, numbers: int, features: int, classes: int) -> Ends:
    """Conditioning and modulation, once per example of ``tokens`` patches, and both layers of ``numbers`` per patch.

    ``features`` describe the time, ``classes`` is the size of the label table.
    """
    d = model.width
    modulations = 6 * (1 if model.shared_modulation else model.depth) + 2
    tables = 6 * model.depth * d if model.shared_modulation else 0
    hidden, of_data = d * d * (1 + modulations), features * d
    flop = 2 * numbers * d * (TRAINING_ON_DATA + TRAINING)
    flop += 2 * (TRAINING_ON_DATA * of_data + TRAINING * hidden) / tokens
    matrices = 2 * numbers * d + of_data + hidden + classes * d + tables
    biases = (3 + modulations) * d + numbers
    return Ends(
        flop=flop,
        activations=(4 + 6 * model.depth) * d + 6 * numbers + (3 + modulations) * d / tokens,
        parameters=matrices + biases,
    )


def blocks_flop(model: ModelSpec, *, met: float) -> float:
    """FLOP of the matrix products of the blocks for one token's forward pass in one run, without scores and mixing."""
    d, ffn = model.width, model.feed_forward
    if isinstance(ffn, Dense):
        branch = 6.0 * d * ffn.hidden
    else:
        branch = 6 * d * (met + ffn.shared) * ffn.hidden + 2 * d * ffn.total
    return model.depth * (8 * d * d + branch)


def attention_flop(model: ModelSpec, *, context: int) -> float:
    """FLOP of attention's scores and mixing in one token's forward pass in one run."""
    return model.depth * 4 * context * model.width


def training_flop(model: ModelSpec, ends: Ends, *, context: int, met: float) -> float:
    """FLOP of a training step per token in one run, forward and backward."""
    products = TRAINING * blocks_flop(model, met=met) + ends.flop
    ffn = model.feed_forward
    if (
        isinstance(ffn, Experts) and ffn.router == "content_blind"
    ):  # its logits are computed, but no gradient flows through them
        products -= (TRAINING - 1) * model.depth * 2 * model.width * ffn.total
    return products + TRAINING * attention_flop(model, context=context)


def activation_numbers(model: ModelSpec, ends: Ends, *, context: int, met: float) -> float:
    """Numbers that one token's forward pass writes in one run: the memory traffic of elementwise operations."""
    d, ffn = model.width, model.feed_forward
    if isinstance(ffn, Dense):
        branch = 4.0 * ffn.hidden
    else:
        rows = 2 * d * met if met < ffn.total else 0  # gathered before the product and scattered after it
        branch = (5 * met + 4 * ffn.shared) * ffn.hidden + rows + 4 * ffn.total
    return model.depth * (12 * d + context * d // model.head_width + branch) + ends.activations


def parameter_numbers(model: ModelSpec, ends: Ends) -> int:
    """All parameters of one run that the optimizer updates."""
    ffn = model.feed_forward
    routers = 0 if isinstance(ffn, Dense) else model.depth * model.width * ffn.total
    return model.parameters + routers + ends.parameters


def relative_work(model: ModelSpec) -> float:
    """Rough cost of a training step relative to other models, for sorting. No device is timed.

    The weights of products, activations and updates are those of a CPU core at the 256 tokens per step of the cpu tier
    (measured with ``cost.timing``).
    """
    ffn, context, vocab = model.feed_forward, 16, 32
    met = ffn.activated if isinstance(ffn, Experts) else 0
    ends = language_ends(model, context=context, vocab=vocab)
    flop = training_flop(model, ends, context=context, met=met)
    moved = activation_numbers(model, ends, context=context, met=met)
    return flop + 200 * moved + 2.4 * parameter_numbers(model, ends)
