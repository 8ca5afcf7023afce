"""Megatron-LM: arguments for what its command line can say, and ``config_overrides`` for the rest.

``megatron/core/optimizer/optimizer_config.py`` has ``ParamKey``, whose ``with_name_predicate`` is called with a
parameter and its name. ``get_megatron_optimizer(config, model_chunks, config_overrides=...)`` takes a mapping of
ParamKey to overrides of ``max_lr``, ``min_lr``, ``eps`` and ``wd_mult``. All that match one parameter are combined, so
here exactly one does.

``--use-mup`` (``--scaling-recipe mup``; docs/user-guide/scaling-recipes.md, PR 3058) is not used: it scales hidden
matrices with the width alone, and would scale them a second time.
"""

from collections.abc import Iterator

from mue_check.bridges.python import module, number
from mue_check.bridges.sheet import Sheet
from mue_check.rules import Role

_CANNOT = (
    "Do not add --use-mup or --scaling-recipe: they scale learning rate, eps, init and logits with the width again.",
    "Pass config_overrides(min_lr) to get_megatron_optimizer, in place of get_standard_config_overrides(config): that "
    "one takes the weight decay off biases and norms, and --decoupled-lr would set a second rate.",
    "Init: --init-method-std holds one number, and Megatron divides that of output projections by sqrt(2 L). Neither "
    "is the rule's: call init_parameters(model) on each model chunk before the optimizer copies the weights.",
    "--weight-decay is multiplied by each group's wd_mult. --min-lr is one number: min_lr scales with max_lr here.",
    "If --moe-router-topk-scaling-factor or --mup-output-mult is set, declare it with --roles, table [multipliers].",
)

_BODY = '''
ARGUMENTS = {arguments}
{without}

def config_overrides(min_lr=0.0):
    """``min_lr``: the value of --min-lr, which belongs to --lr."""
    from megatron.core.optimizer.optimizer_config import ParamKey, ParamWithNamePredicate

    def key(role):
        return ParamKey(with_name_predicate=ParamWithNamePredicate(name=role, fn=lambda _, name: role_of(name) == role))

    return {
        key(role): {
            "max_lr": values["lr"],
            "min_lr": min_lr * values["lr"] / LR,
            "eps": values["eps"],
            "wd_mult": values["weight_decay"] / WEIGHT_DECAY if WEIGHT_DECAY else 1.0,
        }
        for role, values in VALUES.items()
    }
'''


def render(sheet: Sheet) -> str:
    """A module with ARGUMENTS, config_overrides and init_parameters."""
    row = sheet.of_role(Role.TOKEN_EMBEDDING)
    steps = sheet.prescription.target.steps
    flags = {
        "--optimizer": "adam",
        "--lr": number(row.lr),
        "--weight-decay": number(row.weight_decay),
        "--adam-beta1": number(row.beta1),
        "--adam-beta2": number(row.beta2),
        "--adam-eps": number(row.eps),
        **({"--train-iters": str(steps)} if steps > 1 else {}),
    }
    arguments = [part for pair in flags.items() for part in pair]
    body = _BODY.replace("{arguments}", repr(arguments)).replace("{without}", "\n".join(_without_code(sheet)))
    body = f"LR, WEIGHT_DECAY = {number(row.lr)}, {number(row.weight_decay)}  # of embeddings and norms\n{body}"
    return module(sheet, _CANNOT, body)


def _without_code(sheet: Sheet) -> Iterator[str]:
    """What the command line alone can say, and what it then gets wrong."""
    hidden, embedding = sheet.of_role(Role.ATTENTION_QKV), sheet.of_role(Role.TOKEN_EMBEDDING)
    yield "# Without a change of code: --decoupled-lr is the rate of embedding and output layer, --lr of all others"
    decay = number(hidden.weight_decay)
    yield f"#   --lr {number(hidden.lr)} --decoupled-lr {number(embedding.lr)} --weight-decay {decay}"
    wrong = [
        f"{line.label} {number(line.row.lr)}"
        for line in sheet.lines
        if number(line.row.lr) != number((embedding if line.label in _DECOUPLED else hidden).lr)
    ]
    yield f"#   wrong then: weight decay and eps by role, init by role, and the LR of {', '.join(wrong) or 'none'}"


_DECOUPLED = frozenset({Role.TOKEN_EMBEDDING, Role.POSITION_EMBEDDING, Role.UNEMBEDDING})
