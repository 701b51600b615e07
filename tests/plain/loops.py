"""Gradient inversion as a textbook writes it. The suite's results and its speed are compared with these loops.

The whole victim is called as a module, its gradient is differentiated again by plain autograd, costs are sums over
tensors, every image has its own copy of its variables, and restarts and candidates run one after another. Nothing here
uses the suite's engine, distances, schedules or projections. Only starting points and the constructor's numbers
(learning rates, weights, steps) come from the attack. Methods have their default options.

A loop is a generator for one restart. It yields the matching cost before every step, and returns the images
(B, C, H, W) of least cost.
"""

import math
from collections.abc import Callable, Generator, Sequence
from copy import deepcopy

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, cross_entropy
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, MultiStepLR

from attacks.base import Attack
from defenses.sparsification import Sparsification

Loop = Generator[float, None, Tensor]
Descent = Generator[float, None, tuple[list[Tensor], Tensor, float]]


class Server:
    """What a server has of one task: the victim as a module, and the client's update.

    Args:
        attack: set up on a single task, without a defense or with sparsification.
    """

    def __init__(self, attack: Attack) -> None:
        (observation,) = attack.observations
        estimate = observation.knowledge.estimate
        if estimate not in (None, Sparsification.estimate):
            raise ValueError("the plain loops know no defense but sparsification")
        victim = observation.victim
        self.model = deepcopy(victim.model).requires_grad_(True)
        self.theta = list(self.model.parameters())
        self.mean, self.std, self.side = victim.mean, victim.std, observation.image_shape[-1]
        self.labels = observation.knowledge.labels
        self.received = [observation.update[name] for name, _ in self.model.named_parameters()]
        self.masks = [g != 0 for g in self.received] if estimate else None

    def gradient(self, x: Tensor, *, create_graph: bool) -> list[Tensor]:
        """d loss / d theta on normalized images (B, C, H, W), as the client would have sent it."""
        loss = cross_entropy(self.model(x), self.labels)
        gradient = torch.autograd.grad(loss, self.theta, create_graph=create_graph)
        return [g * mask for g, mask in zip(gradient, self.masks, strict=True)] if self.masks else list(gradient)

    def cosine(self, x: Tensor) -> Tensor:
        """1 - cos of all tensors together, as in Inverting Gradients' code."""
        dot, norm2, received_norm2 = 0, 0, 0
        for g, received in zip(self.gradient(x, create_graph=True), self.received, strict=True):
            dot = dot + (g * received).sum()
            norm2 = norm2 + g.pow(2).sum()
            received_norm2 = received_norm2 + received.pow(2).sum()
        return 1 - dot / norm2.sqrt() / received_norm2.sqrt()

    def mean_squared(self, x: Tensor) -> Tensor:
        """The squared distance of a tensor, mean over tensors; not differentiable in x."""
        pairs = zip(self.gradient(x, create_graph=False), self.received, strict=True)
        return sum((g - received).pow(2).sum() for g, received in pairs) / len(self.received)

    def images(self, pixels: Tensor) -> Tensor:
        """A generator's pixels in [0, 1] as the victim takes them."""
        return (avg_pool2d(pixels, pixels.shape[-1] // self.side) - self.mean) / self.std


def variation(x: Tensor) -> Tensor:
    return (x[..., 1:] - x[..., :-1]).abs().mean() + (x[..., 1:, :] - x[..., :-1, :]).abs().mean()


def eighths(optimizer: Optimizer, steps: int) -> LRScheduler:
    """A tenth at 3/8, 5/8 and 7/8."""
    return MultiStepLR(optimizer, [int(steps * k / 8) for k in (3, 5, 7)], gamma=0.1)


def ramps(optimizer: Optimizer, steps: int) -> LRScheduler:
    """Up over 5 %, down over the last 75 % by half a cosine (the projector of StyleGAN2, which GIFD's code uses)."""

    def factor(step: int) -> float:
        t = (step + 1) / (steps + 1)
        ramp = min(1.0, (1.0 - t) / 0.75)
        ramp = 0.5 - 0.5 * math.cos(ramp * math.pi)
        return ramp * min(1.0, t / 0.05)

    return LambdaLR(optimizer, factor)


def descend(
    variables: Sequence[Tensor],
    evaluate: Callable[[], tuple[Tensor, Tensor, Tensor]],
    *,
    lr: float,
    schedule: Callable[[Optimizer, int], LRScheduler],
    steps: int,
    signed: bool = False,
    project: Callable[[], None] | None = None,
) -> Descent:
    """One phase of Adam; returns the variables and the images of least cost, and that cost.

    Args:
        evaluate: matching cost, penalty and images at the variables, which change in place.
    """
    optimizer = Adam(variables, lr=lr)
    scheduler = schedule(optimizer, steps)
    least, best, image = math.inf, [v.detach().clone() for v in variables], None
    for _ in range(steps):
        optimizer.zero_grad()
        cost, penalty, x = evaluate()
        (cost + penalty).backward(inputs=list(variables))
        value = cost.item()
        if value < least:
            least, image = value, x.detach().clone()
            for kept, v in zip(best, variables, strict=True):
                kept.copy_(v.detach())
        if signed:
            for v in variables:
                v.grad.sign_()
        optimizer.step()
        scheduler.step()
        if project:
            with torch.no_grad():
                project()
        yield value
    return best, image, least


def ig(attack: Attack, server: Server, restart: int) -> Loop:
    """Pixels."""
    x = attack.noise()[restart].clone().requires_grad_()
    black, white = -server.mean / server.std, (1 - server.mean) / server.std

    def box() -> None:
        x.data = torch.max(torch.min(x.data, white), black)

    _, image, _ = yield from descend(
        [x],
        lambda: (server.cosine(x), attack.tv * variation(x), x),
        lr=attack.eta,
        schedule=eighths,
        steps=attack.plan["x"],
        signed=True,
        project=box,
    )
    return image


def gias(attack: Attack, server: Server, restart: int) -> Loop:
    """Latents, then a generator for every image."""
    prior = attack.prior
    z = attack.latents()["z"][restart].clone().requires_grad_()

    def latents() -> tuple[Tensor, Tensor, Tensor]:
        x = server.images(prior({"z": z}))
        return server.cosine(x), attack.tv * variation(x), x

    (z,), image, least = yield from descend([z], latents, lr=attack.eta_z, schedule=eighths, steps=attack.plan["z"])
    generators = [deepcopy(prior).requires_grad_(True) for _ in z]

    def parameters() -> tuple[Tensor, Tensor, Tensor]:
        pixels = [generator({"z": z[b : b + 1]}) for b, generator in enumerate(generators)]
        x = server.images(torch.cat(pixels))
        return server.cosine(x), attack.tv * variation(x), x

    w = [p for generator in generators for p in generator.parameters()]
    _, later, cost = yield from descend(w, parameters, lr=attack.eta_w, schedule=eighths, steps=attack.plan["w"])
    return later if cost < least else image


def gifd(attack: Attack, server: Server, restart: int) -> Loop:
    """Latents on their sphere, then the features in front of one block after the other, in l1 balls.

    For generators that search z, and then features h alone, as DCGAN and BigGAN do.
    """
    state = {name: tensor[restart] for name, tensor in attack.latents().items()}
    least, best = math.inf, None
    for k, steps in enumerate(attack.plan.values()):
        if k:
            with torch.no_grad():
                state = attack.prior.advance(state, k - 1, k)
        name = "h" if k else "z"
        (state[name],), image, cost = yield from features(attack, server, k, name, state, steps)
        if cost < least:
            least, best = cost, image
    return best


def features(attack: Attack, server: Server, k: int, name: str, state: dict[str, Tensor], steps: int) -> Descent:
    """GIFD's phase in front of block k, on the tensor of this name, (B, ...); in front of block 0 on the latents."""
    start = state[name]
    v = start.clone().requires_grad_()

    def evaluate() -> tuple[Tensor, Tensor, Tensor]:
        x = server.images(attack.prior.advance({**state, name: v}, k)["h"])
        norm = x.pow(2).sum().sqrt()
        return server.cosine(x), attack.tv * variation(x) + attack.l2 * norm / x[0, 0].numel(), x

    def project() -> None:
        for b in range(len(v)):
            if k:
                radius = attack.ball * start[b].abs().sum()
                v[b] = start[b] + into_l1_ball(v[b] - start[b], radius)
            else:
                v[b] *= start[b].norm() / v[b].norm()

    return descend([v], evaluate, lr=attack.eta, schedule=ramps, steps=steps, project=project)


def into_l1_ball(v: Tensor, radius: Tensor) -> Tensor:
    """The nearest point within |v|_1 <= radius: Duchi et al., 2008, figure 1."""
    if v.abs().sum() <= radius:
        return v
    mu = v.abs().flatten().sort(descending=True).values
    above = mu.cumsum(0) - radius
    rho = int((mu * torch.arange(1, len(mu) + 1, device=v.device) > above).nonzero().max())
    return v.sign() * (v.abs() - above[rho] / (rho + 1)).clamp(min=0)


def ggl(attack: Attack, server: Server, restart: int) -> Loop:
    """Latents by CMA-ES; a step is a generation."""
    import cma  # here alone, so that the other loops run where it is not installed

    z = attack.latents()["z"][restart]
    seed = attack.seeds("cma")[restart] % 2**32
    evolution = cma.CMAEvolutionStrategy(
        z.flatten().double().numpy(force=True),
        attack.eta,
        {
            "popsize": attack.population,
            "seed": float("nan"),
            "randn": np.random.RandomState(seed).randn,
            "CMA_diagonal": z.numel() > 1000,
            "verbose": -9,
        },
    )
    least, image = math.inf, None
    for _ in range(attack.plan["z"]):
        candidates, values, costs = evolution.ask(), [], []
        for candidate in candidates:
            latent = torch.as_tensor(candidate).to(z).view_as(z)
            with torch.no_grad():
                x = server.images(attack.prior({"z": latent}))
            cost = server.mean_squared(x).item()
            mean, variance = latent.mean(1), latent.var(1, unbiased=False)
            divergence = -0.5 * (1 + torch.log(variance + 1e-10) - mean.pow(2) - variance).sum().item()
            costs.append(cost)
            values.append(cost + attack.alpha_kl * divergence)
            if cost < least:
                least, image = cost, x
        evolution.tell(candidates, values)
        yield min(costs)
    return image


LOOPS: dict[str, Callable[[Attack, Server, int], Loop]] = {"ig": ig, "gias": gias, "gifd": gifd, "ggl": ggl}
