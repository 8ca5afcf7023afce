"""torch.func: the plain model's gradient under vmap over stacked parameters, torch.optim.AdamW on the stacks."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from mue_check.bench.plain import ComposedRMSNorm
from mue_check.bench.plain_loop import casting, make_optimizer, plain_models
from mue_check.bench.setup import Setup


class Vmapped:
    """All runs as one call.

    torch.optim takes no learning rate per run: all share one here, which a sweep could not. A mixture is in its
    batched form, for the shapes of the other follow the data.
    """

    def __init__(self, setup: Setup) -> None:
        self.runs, self._done = setup.case.runs, 0
        self.batches = setup.batches(range(self.runs))
        self.cast = casting(setup.case.precision, setup.device)
        models = plain_models(setup, self.runs, batched=True, norm=ComposedRMSNorm)
        template, roles = models[0]
        role = {id(parameter): role for parameter, role in roles}
        by_name = {name: role[id(parameter)] for name, parameter in template.named_parameters()}
        stacked, _ = torch.func.stack_module_state([model for model, _ in models])
        self.parameters: dict[str, Tensor] = {n: value.detach().requires_grad_() for n, value in stacked.items()}
        roles = [(parameter, by_name[name]) for name, parameter in self.parameters.items()]
        self.optimizer, self.scheduler = make_optimizer(setup, roles)

        def loss(parameters: dict[str, Tensor], batch: Tensor) -> Tensor:
            # vmap has no rule for the backward of any fused attention, and would call it once for each run
            with sdpa_kernel(SDPBackend.MATH):
                logits = torch.func.functional_call(template, parameters, (batch[:, :-1],))
            return F.cross_entropy(logits, batch[:, 1:].flatten())

        self.gradients = torch.func.vmap(torch.func.grad_and_value(loss))
        self.log: list[Tensor] = []

    def advance(self, steps: int) -> None:
        """Train."""
        for step in range(self._done, self._done + steps):
            with self.cast():
                gradients, losses = self.gradients(self.parameters, self.batches.of(step))
            for name, parameter in self.parameters.items():
                parameter.grad = gradients[name]
            self.optimizer.step()
            self.scheduler.step()
            self.log.append(losses.detach())
        self._done += steps

    def losses(self) -> Tensor:
        """What each step's losses were."""
        return torch.stack(self.log)
