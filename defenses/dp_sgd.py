"""DP-SGD: Abadi et al., *Deep Learning with Differential Privacy*, CCS 2016, algorithm 1."""

import math

import torch
from torch import Tensor

from defenses.base import Defense
from defenses.clipping import clip, whole
from victims.batch_norm import batch_norms
from victims.client import GradientFn
from victims.errors import InputError
from victims.losses.base import Loss, classification_loss
from victims.observation import Transform
from victims.rounds import by_round
from victims.trial import said
from victims.victim import Gradient, Victim

TINY = 1e-30  # a received update of zeros has no length


class DPSGD(Defense):
    """DP-SGD: every image's gradient is clipped to a bound C, and Gaussian noise of std sigma C is added to their sum.

    It costs utility: at epsilon 8 and delta 1e-5 the paper reports 97 % on MNIST (98.3 % without) and 73 % on CIFAR-10
    (80 % without). Under FedAvg every local step is made private by itself; with several rounds, the gradient of every
    round.
    """

    examples = ("dp_sgd:1:0.001", "dp_sgd:0.5:0.01")

    def __init__(self, bound: float, noise: float) -> None:
        """
        Args:
            bound: C, of the l2 norm of one image's gradient over all parameters; above 0.
            noise: sigma, the noise multiplier, 0 or more; the mean of B images gets noise of std sigma C / B.

        Raises:
            InputError: the bound is not above 0, the noise is below 0, or one of them is not finite.
        """
        if not 0 < bound < math.inf:
            raise InputError(f"dp_sgd takes a bound above 0, such as 1, not {bound}.")
        if not 0 <= noise < math.inf:
            raise InputError(f"dp_sgd takes noise of 0 or more, such as 0.1, not {noise}.")
        self.bound, self.noise = bound, noise

    def gradient_fn(self, gradient_fn: GradientFn, victim: Victim, generator: torch.Generator) -> GradientFn:
        """One image after another: this works for every victim, and together with earlier defenses.

        Raises:
            InputError: batch norm mixes the images, or the loss of a batch is not the mean of its images' losses.
        """
        # With a hook or a forward of its own a layer in train mode is torch's.
        layers = batch_norms(victim.model).values()
        if any(layer.training or not getattr(layer, "track_running_stats", False) for layer in layers):
            fix = "use --victim-mode eval, or" if any(layer.training for layer in layers) else "choose"
            raise InputError(
                f"dp_sgd clips the gradient of every single image, and batch norm mixes those of a batch here; {fix} a "
                "--victim without."
            )
        bounds = [torch.tensor(self.bound).to(victim.mean)] * len(by_round(victim, victim.parameters))

        def private(theta: Gradient, images: Tensor, labels: Tensor) -> Gradient:
            with torch.no_grad():
                check_mean(victim.criterion, victim.logits(theta, images), labels)
            total = {
                name: self.noise * self.bound * torch.randn(p.shape, generator=generator).to(p)
                for name, p in theta.items()
            }
            for x, y in zip(images.split(1), labels.split(1), strict=True):
                of_image = {name: g[None] for name, g in gradient_fn(theta, x, y).items()}
                total = {name: total[name] + g[0] for name, g in clip(of_image, bounds, victim).items()}
            return {name: g / len(images) for name, g in total.items()}

        return private

    def epsilon(self, steps: int, sample_rate: float, delta: float = 1e-5) -> float:
        """The epsilon of (epsilon, delta)-differential privacy for the presence of one image; infinite without noise.

        It is an upper bound, by Opacus' RDP accountant: 8 % above the exact value for one step with sigma = 1 on all
        images, and never below 0.1 at delta = 1e-5. Opacus' PRV accountant is tighter, but its grid grows with epsilon:
        with so little noise that attacks still work (100 steps at sigma = 0.1), 12 GB of memory are not enough.

        Args:
            steps: clipped and noised gradients, of all rounds and local steps.
            sample_rate: the share of all images that is in a batch, in (0, 1]; each is drawn independently.

        Raises:
            InputError: a count, rate or delta outside its range.
        """
        if steps < 1 or not 0 < sample_rate <= 1 or not 0 < delta < 1:
            raise InputError(
                f"epsilon takes steps from 1, a sample rate in (0, 1] and a delta in (0, 1), not {steps}, "
                f"{sample_rate} and {delta}."
            )
        if self.noise == 0:
            return math.inf
        from opacus.accountants import RDPAccountant  # it takes seconds to load, and attacks do not need it

        accountant = RDPAccountant()
        accountant.history = [(self.noise, sample_rate, steps)]
        return accountant.get_epsilon(delta)

    @staticmethod
    def estimate(received: Gradient, victim: Victim) -> Transform:
        """The dummy gradient is shortened to the received norm, as by global clipping; its direction is kept.

        For one image without noise this repeats the clipping exactly, so an attacker who compares lengths is not
        misled. With noise the received norm N is still a bound: on average N^2 = |clipped|^2 + d (sigma C / B)^2 for d
        parameters. Of several images each was shortened by itself, which no map of their mean can repeat. The noise has
        mean zero, so the surrogate has none.
        """
        bounds = [whole(part).clamp_min(TINY).sqrt() for part in by_round(victim, received)]
        return lambda gradient: clip(gradient, bounds, victim)


def check_mean(loss: Loss, logits: Tensor, labels: Tensor) -> None:
    """
    Args:
        logits: (B, K), of which only the shape counts: those of an untrained model are too alike.

    Raises:
        InputError: the loss of a batch is not the mean of those of its images, which is what DP-SGD clips.
    """
    drawn = torch.randn(logits.shape, generator=torch.Generator().manual_seed(0)).to(logits)
    try:
        each = [classification_loss(loss, *pair) for pair in zip(drawn.split(1), labels.split(1), strict=True)]
    except Exception as error:  # of the user's own function
        raise InputError(
            f"dp_sgd clips the gradient of every single image, and this loss takes no single one ({said(error)}); give "
            "another --loss, or another --defense."
        ) from None
    if not torch.allclose(classification_loss(loss, drawn, labels), torch.stack(each).mean(), rtol=1e-3):
        raise InputError(
            "dp_sgd clips the gradient of every single image, and this loss of a batch is not the mean of those of its "
            "images, as with weights of classes; give another --loss, or another --defense."
        )
