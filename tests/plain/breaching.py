"""Inverting Gradients in the form of breaching, the field's most used framework.

Written here from how its loop is built: what it computes in a step, in which order and how often. An optimizer calls a
closure, which is made anew for every step; the cost is an object that computes the gradient of every model and update
that was shared; regularizers are objects too, the variation a convolution with fixed kernels. After the step come the
schedule, the box, the choice of the best and a look whether the value is finite. Restarts run one after another.

The configuration that it looks up in every step and its scripted functions are left out: they only cost time. What else
differs from it, so that its search is the suite's: the milestones of the learning rate are those of Inverting
Gradients (its own are up to one step earlier), the variation is a sum of both directions (there a mean, half as large),
and leaves out differences to the zeros around the image. Its best is chosen by the value with all regularizers, and is
the image after the step of that value; that choice is returned here too, and takes no part in the comparison of curves.
"""

import logging
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, cross_entropy
from torch.optim import Adam

from attacks.base import Attack
from tests.plain.loops import Loop, Server, eighths

LOG = logging.getLogger("tests.plain")
CALLBACK = 1000  # steps from one line of the log to the next


class CosineSimilarity:
    """The matching cost of a candidate for one model and its update."""

    def __call__(
        self, model: nn.Module, received: Sequence[Tensor], x: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The cost, differentiable in x, and the value of the loss."""
        model.zero_grad()
        task_loss = cross_entropy(model(x), labels)
        gradient = torch.autograd.grad(task_loss, tuple(model.parameters()), create_graph=True)
        product, norm2, received_norm2 = (task_loss.new_zeros(()) for _ in range(3))
        for g, target in zip(gradient, received, strict=True):
            product = product + (g * target).sum()
            norm2 = norm2 + g.pow(2).sum()
            received_norm2 = received_norm2 + target.pow(2).sum()
        return 1 - product / (norm2.sqrt() * received_norm2.sqrt()), task_loss.detach()


class TotalVariation:
    """`scale` times mean |dx| + mean |dy|, by one convolution with two kernels for every channel.

    Args:
        inner, outer: powers of a difference, and of what it contributes.
    """

    def __init__(self, scale: float, like: Tensor, inner: float = 1.0, outer: float = 1.0) -> None:
        across, down = like.new_zeros(2, 3, 3).unbind()
        across[1, 1:] = down[1:, 1] = like.new_tensor([-1.0, 1.0])
        self.scale, self.channels, self.inner, self.outer = scale, like.shape[1], inner, outer
        self.kernels = torch.stack([across, down] * self.channels).unsqueeze(1)

    def __call__(self, x: Tensor) -> Tensor:
        differences = conv2d(x, self.kernels, padding=1, groups=self.channels).abs().pow(self.inner)
        across, down = differences[:, 0::2, :, :-1], differences[:, 1::2, :-1]
        return self.scale * (across.pow(self.outer).mean() + down.pow(self.outer).mean())


def ig(attack: Attack, server: Server, restart: int) -> Loop:
    """Pixels."""
    models, updates = [server.model], [server.received]
    candidate = attack.noise()[restart].clone().requires_grad_()
    black, white = -server.mean / server.std, (1 - server.mean) / server.std
    objective, regularizers = CosineSimilarity(), [TotalVariation(attack.tv, candidate.detach())]
    optimizer = Adam([candidate], lr=attack.eta)
    scheduler = eighths(optimizer, attack.plan["x"])
    least, best, matching = torch.tensor(torch.inf), candidate.detach().clone(), torch.tensor(torch.inf)

    def make_closure() -> Callable[[], Tensor]:
        def closure() -> Tensor:
            nonlocal matching
            optimizer.zero_grad()
            total = candidate.new_zeros(())
            for model, received in zip(models, updates, strict=True):
                cost, _ = objective(model, received, candidate, server.labels)
                total = total + cost
            matching = total.detach()
            for regularizer in regularizers:
                total = total + regularizer(candidate)
            total.backward(inputs=[candidate])
            with torch.no_grad():
                candidate.grad.sign_()
            return total

        return closure

    for step in range(attack.plan["x"]):
        value = optimizer.step(make_closure())
        scheduler.step()
        with torch.no_grad():
            candidate.data = torch.max(torch.min(candidate, white), black)
            if value < least:
                least, best = value.detach(), candidate.detach().clone()
        if step % CALLBACK == 0:
            LOG.info("step %d: value %.4f", step, value.item())
        if not torch.isfinite(value):
            break
        yield matching.item()
    return best
