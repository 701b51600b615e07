"""PRECODE: Scheliga, Mäder, Seeland, *PRECODE - A Generic Model Extension to Prevent Deep Gradient Leakage*, WACV 2022.

The attacker's side: the same, *Combining Variational Modeling with Partial Gradient Perturbation to Prevent Deep
Gradient Leakage*, 2022.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from defenses.base import Defense
from victims.classifier import classifiers
from victims.client import GradientFn
from victims.errors import InputError
from victims.observation import Transform
from victims.victim import Gradient, LossTerm, Victim


class Precode(Defense):
    """PRECODE: a variational bottleneck before the classifier adds noise to every gradient that a client computes.

    From the authors' code, as the papers do not say it: the encoder gives s with sigma = softplus(s), the divergence is
    in bits, and the initial weights are torch's for linear layers. The strength of the noise depends on them.

    It costs every participant 3 k F + 2 k + F more parameters for F features, which are most of the parameters of small
    victims (convnet: 3.2 of 3.3 million), and a classifier that learns from noisy features.
    """

    examples = ("precode:16", "precode:8:0.1")
    innermost = True

    def __init__(self, size: int = 256, beta: float = 1e-3) -> None:
        """
        Args:
            size: k, units of the bottleneck.
            beta: weight in the client's loss of the divergence from a standard normal distribution, in bits.

        Raises:
            InputError: the size is below 1, or beta is negative or not finite.
        """
        if size < 1:
            raise InputError(f"precode takes a bottleneck of 1 unit or more, not {size}.")
        if not 0 <= beta < math.inf:
            raise InputError(f"precode takes a beta of 0 or more, not {beta}.")
        self.size, self.beta = size, beta

    def model(self, model: nn.Module, image_shape: tuple[int, int, int]) -> nn.Module:
        """In place, before every layer that makes the logits: there are several where these come from several heads.

        The names of the classifier's parameters get one level deeper; all others keep their names.

        Raises:
            InputError: no linear layer makes the logits.
        """
        for name in classifiers(model, image_shape):
            classifier = model.get_submodule(name)
            assert isinstance(classifier, nn.Linear)
            bottleneck = Bottleneck(classifier.in_features, self.size, self.beta).to(classifier.weight)
            guarded = Guarded(bottleneck, classifier)
            if classifier is model:
                return guarded
            replace(model, classifier, guarded)
        return model

    def gradient_fn(self, gradient_fn: GradientFn, victim: Victim, generator: torch.Generator) -> GradientFn:
        """Every image of every step has its own noise, which is never stored in the victim."""
        sizes = {f"{name}.noise": m.size for name, m in victim.model.named_modules() if isinstance(m, Bottleneck)}

        def noisy(theta: Gradient, images: Tensor, labels: Tensor) -> Gradient:
            noise = {
                name: torch.randn(len(images), size, generator=generator).to(images) for name, size in sizes.items()
            }
            gradient = gradient_fn({**theta, **noise}, images, labels)
            return {name: gradient[name] for name in theta}

        return noisy

    @staticmethod
    def estimate(received: Gradient, victim: Victim) -> Transform:
        """The bottleneck and the classifier after it are not matched.

        Their gradients are products with the client's noise, or with what becomes of it. In the layers before the
        bottleneck the noise is only in the backward signal, and is approximated by its mean, zero.

        Zeros in place of these gradients would not work: the received ones would still count in the length of a cosine.
        The share of the other layers is so small (measured: at most 0.05 in lenet, 0.01 in convnet) that any penalty
        would outweigh the matching.
        """
        noisy = {id(p) for m in victim.model.modules() if isinstance(m, Guarded) for p in m.parameters()}
        left_out = {name for name, p in victim.model.named_parameters() if id(p) in noisy}  # a tied weight has one name
        return lambda gradient: {name: g for name, g in gradient.items() if name not in left_out}


def replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put another layer wherever a model has this one."""
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):  # `named_children` leaves out second names
            if child is old:
                setattr(parent, name, new)


class Bottleneck(LossTerm):
    """Features (B, F) -> z = mu + sigma noise (B, k) -> features (B, F).

    The penalty is beta KL(N(mu, sigma^2) || N(0, 1)) / ln 2: the sum over units, the mean over images.

    Attributes:
        noise: (B, k), standard normal on the client; zero for everybody else, so that z is its mean.
    """

    noise: Tensor

    def __init__(self, features: int, size: int, beta: float) -> None:
        super().__init__()
        self.size, self.beta = size, beta
        self.encoder = nn.Linear(features, 2 * size)
        self.decoder = nn.Linear(size, features)
        self.register_buffer("noise", torch.zeros(()), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        mu, s = self.encoder(x).chunk(2, -1)
        sigma = softplus(s)
        divergence = (mu.square() + sigma.square() - 1) / 2 - sigma.log()
        self.penalty = self.beta * divergence.sum(-1).mean() / math.log(2)
        return self.decoder(mu + sigma * self.noise)


class Guarded(nn.Sequential):
    """A bottleneck and the classifier after it."""
