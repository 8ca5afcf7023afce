"""transformers: a Trainer whose optimizer has these groups, and the TrainingArguments that go with it.

The hook is ``Trainer.create_optimizer``, which its docstring names for this ("subclass and override this method in a
subclass"). Its schedulers multiply the rate of every group by one factor.
"""

from mue_check.bridges.python import module, number
from mue_check.bridges.sheet import Sheet
from mue_check.rules import Role

_CANNOT = (
    "TrainingArguments hold one learning rate, weight decay and eps, take biases and norms out of weight decay, and a "
    "configuration holds one initializer_range. None of them can hold values by role: TransferTrainer sets the groups, "
    "and init_parameters(model) must be called on a new model before training.",
    "Configurations with multipliers (Granite's, DeepSeek's routed_scaling_factor): declare them with --roles, table "
    "[multipliers].",
)

_BODY = '''
TRAINING_ARGUMENTS = {arguments}  # TrainingArguments(output_dir, **TRAINING_ARGUMENTS)


class TransferTrainer(Trainer):
    """A Trainer with the prescribed groups. Use it as any other; do not pass optimizers=."""

    def create_optimizer(self, model=None):
        if self.optimizer is None:
            self.optimizer = torch.optim.AdamW(param_groups(self.model if model is None else model))
        return self.optimizer
'''


def render(sheet: Sheet) -> str:
    """A module with TransferTrainer."""
    row = sheet.of_role(Role.TOKEN_EMBEDDING)  # for the log: no group is made from these
    steps = sheet.prescription.target.steps
    arguments = {
        "learning_rate": number(row.lr),
        "weight_decay": number(row.weight_decay),
        "adam_beta1": number(row.beta1),
        "adam_beta2": number(row.beta2),
        "adam_epsilon": number(row.eps),
        **({"max_steps": str(steps)} if steps > 1 else {}),
    }
    text = "{" + ", ".join(f'"{key}": {value}' for key, value in arguments.items()) + "}"
    body = _BODY.replace("{arguments}", text)
    return module(sheet, _CANNOT, body, imports=["from transformers import Trainer"])
