"""Inverting Gradients and GIAS in the form of their authors' code.

Written here from how these loops are built: what they compute in a step, in which order and how often. An optimizer
calls a closure, which sets the gradients of the victim to zero, computes the cost by a function that goes over a list
of dummy gradients and over tensors with weights, and calls `backward` without saying for which variables: the second
derivatives in the victim's own parameters are computed too, and read by nobody. GIAS's code is built on the other, runs
a generator for every image, and takes no sign.

What differs from them: they return the images after the last step and choose among restarts by a cost that is computed
once more at the end, which is no part of a step. GIAS's code starts every search of parameters from the latents of the
best restart; here every restart continues from its own, as in the paper and by default in the suite. Where it is not
certain whether their code spares a computation, it is spared here: no gradients in the generator while latents are
searched.
"""

import logging
from collections.abc import Callable, Sequence
from copy import deepcopy

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.optim import Adam

from attacks.base import Attack
from tests.plain.loops import Loop, Server, eighths

LOG = logging.getLogger("tests.plain")
SHOWN = 500  # steps from one line of the log to the next


def reconstruction_costs(gradients: Sequence[Sequence[Tensor]], received: Sequence[Tensor]) -> Tensor:
    """1 - cos of all tensors together, the mean over dummy gradients."""
    weights = received[0].new_ones(len(received))
    total = 0
    for gradient in gradients:
        product, norm2, received_norm2 = 0, 0, 0
        for i in range(len(received)):
            product += (gradient[i] * received[i]).sum() * weights[i]
            norm2 += gradient[i].pow(2).sum() * weights[i]
            received_norm2 += received[i].pow(2).sum() * weights[i]
        total += 1 - product / norm2.sqrt() / received_norm2.sqrt()
    return total / len(gradients)


def total_variation(x: Tensor) -> Tensor:
    across = torch.mean(torch.abs(x[:, :, :, :-1] - x[:, :, :, 1:]))
    down = torch.mean(torch.abs(x[:, :, :-1, :] - x[:, :, 1:, :]))
    return across + down


class Descent:
    """Adam on variables, one closure a step.

    Attributes:
        cost: the matching cost before the last step.
        images: those it belongs to, (B, C, H, W).
    """

    def __init__(self, variables: Sequence[Tensor], lr: float, steps: int, attack: Attack, server: Server) -> None:
        self.optimizer = Adam(variables, lr=lr)
        self.scheduler = eighths(self.optimizer, steps)
        self.variables, self.steps, self.tv, self.server = variables, steps, attack.tv, server

    def closure(self, decode: Callable[[], Tensor], signed: bool) -> Callable[[], Tensor]:
        model, received = self.server.model, self.server.received

        def evaluate() -> Tensor:
            self.optimizer.zero_grad()
            model.zero_grad()
            x = decode()
            loss = cross_entropy(model(x), self.server.labels)
            gradient = torch.autograd.grad(loss, model.parameters(), create_graph=True)
            value = reconstruction_costs([gradient], received)
            self.cost, self.images = value.item(), x.detach()
            if self.tv > 0:
                value = value + self.tv * total_variation(x)
            value.backward()
            if signed:
                for variable in self.variables:
                    variable.grad.sign_()
            return value

        return evaluate

    def step(self, number: int, decode: Callable[[], Tensor], signed: bool = False) -> None:
        value = self.optimizer.step(self.closure(decode, signed))
        self.scheduler.step()
        if number % SHOWN == 0 or number == self.steps - 1:
            LOG.info("step %d: value %.4f", number, value.item())


def ig(attack: Attack, server: Server, restart: int) -> Loop:
    """Pixels."""
    x = attack.noise()[restart].clone().requires_grad_()
    descent = Descent([x], attack.eta, attack.plan["x"], attack, server)
    for number in range(attack.plan["x"]):
        descent.step(number, lambda: x, signed=True)
        with torch.no_grad():
            x.data = torch.max(torch.min(x, (1 - server.mean) / server.std), -server.mean / server.std)
        yield descent.cost
    return x.detach()


def gias(attack: Attack, server: Server, restart: int) -> Loop:
    """Latents, then a generator for every image."""
    z = attack.latents()["z"][restart].clone().requires_grad_()
    least, best = torch.inf, z.detach().clone()
    descent = Descent([z], attack.eta_z, attack.plan["z"], attack, server)
    for number in range(attack.plan["z"]):
        before = z.detach().clone()
        descent.step(number, lambda: server.images(attack.prior({"z": z})))
        if descent.cost < least:
            least, best = descent.cost, before
        yield descent.cost

    generators = [deepcopy(attack.prior).requires_grad_(True) for _ in best]
    w = [parameter for generator in generators for parameter in generator.parameters()]
    descent = Descent(w, attack.eta_w, attack.plan["w"], attack, server)

    def images() -> Tensor:
        pixels = [generator({"z": latent[None]}) for generator, latent in zip(generators, best, strict=True)]
        return server.images(torch.cat(pixels))

    for number in range(attack.plan["w"]):
        descent.step(number, images)
        yield descent.cost
    return descent.images
