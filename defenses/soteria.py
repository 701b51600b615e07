"""Soteria: Sun et al., *Provable Defense Against Privacy Leakage from Representation Perspective*, CVPR 2021."""

import math
from collections.abc import Iterator, Mapping
from fractions import Fraction

import torch
from torch import Tensor, nn

from defenses.base import Defense
from victims.classifier import classifiers
from victims.client import GradientFn
from victims.errors import InputError
from victims.observation import Transform
from victims.rounds import Rounds
from victims.victim import Gradient, Victim

TINY = 1e-8  # if a feature is zero in an image, its gradient there is zero too, and 0 / TINY is 0
VALUES = 2**20  # gradients in the pixels that are computed at once, which bounds memory for any size and batch


class Soteria(Defense):
    """Soteria: the weight gradient of one linear layer is zero for the features that reveal most of the image.

    Features are the layer's inputs. Their gradients in the images are needed, a backward pass for each. The paper
    reports that accuracy is maintained.

    For one image, paper and code agree: the paper prunes the largest r_f / |dr_f / dX|, the code (`thresh =
    percentile(ratio, rate)`, `mask = ratio >= thresh`) the smallest |dr_f / dX| / r_f. Over a batch the code adds up
    its ratios, and so does this; the paper's ratios would rank differently.

    Papers and codes differ for dead features, which are zero in the whole batch: they send nothing, so pruning them
    protects nothing. In the paper's formula they come last; in the code of its DLG attack 0 / 0 makes the threshold
    NaN, and nothing is masked. By default (EPS 0) they do not count. Others divide by r_f + EPS, so that the ratio of a
    dead feature is 0 and it is pruned first: EPS is 0.1 in the code of its attack by GS, and 1e-10 in those of GGL and
    GIFD. A rate up to the share of dead features then changes nothing, and is refused.
    """

    examples = ("soteria:0.3", "soteria:0.6")

    def __init__(self, rate: float, layer: str = "", eps: float = 0.0) -> None:
        """
        Args:
            rate: share of the features that is pruned, in [0, 1).
            layer: name of a linear layer of the victim; by default, or if it is empty, its classifier.
            eps: what is added to |r_f|, 0 or more; above 0, dead features count, and are pruned first.

        Raises:
            InputError: the rate is outside [0, 1), or eps is negative or not finite.
        """
        if not 0 <= rate < 1:
            raise InputError(f"soteria takes a rate from 0 up to but not including 1, not {rate}.")
        if not 0 <= eps < math.inf:
            raise InputError(f"soteria takes an eps of 0 or more, such as 0.1, not {eps}.")
        self.rate, self.layer, self.eps = rate, layer, eps

    @property
    def axis(self) -> Mapping[str, float]:
        counted = f"all features (eps {self.eps:g})" if self.eps else "the features"
        return {f"share of {counted} of {self.layer or 'the classifier'} that is pruned": self.rate}

    def gradient_fn(self, gradient_fn: GradientFn, victim: Victim, generator: torch.Generator) -> GradientFn:
        """
        Raises:
            InputError: the victim is of several rounds, or trains no such linear layer.
        """
        if isinstance(victim.model, Rounds):
            raise InputError("soteria defends a layer of one model; leave --rounds at 1.")
        if self.layer:
            weight_of(victim, self.layer)  # refuses what is none

        def defended(theta: Gradient, images: Tensor, labels: Tensor) -> Gradient:
            gradient = gradient_fn(theta, images, labels)
            for layer in self.layers(victim, images):
                weight = weight_of(victim, layer)
                ratios, live = sensitivities(victim, theta, layer, images, self.eps)
                kept = ~(below_percentile(ratios, self.rate) if self.eps else pruned(ratios, live, self.rate))
                gradient = {**gradient, weight: gradient[weight].where(kept, 0)}
            return gradient

        return defended

    def layers(self, victim: Victim, images: Tensor) -> list[str]:
        """The defended layers: the one that was chosen, or those that give the logits of images (B, C, H, W)."""
        _, channels, height, width = images.shape
        return [self.layer] if self.layer else list(classifiers(victim.model, (channels, height, width)))

    @staticmethod
    def estimate(received: Gradient, victim: Victim) -> Transform:
        """Columns of linear layers that were received as zero are masked in the dummy gradient too.

        A feature that was zero by itself looks like a pruned one, and is masked too.
        """
        kept = {name: (received[name] != 0).any(1, keepdim=True) for name in linear_weights(victim)}
        return lambda gradient: {name: g.where(kept[name], 0) if name in kept else g for name, g in gradient.items()}


def weight_of(victim: Victim, layer: str) -> str:
    """The name of a linear layer's trained weight; one that several layers have goes by its first name.

    Raises:
        InputError: this is no linear layer, or its weight is computed from others, or frozen.
    """
    known = [name.removesuffix("weight").removesuffix(".") for name in linear_weights(victim)]
    hint = f"choose one of {', '.join(known)}" if known else "choose another --defense, as it trains none"
    module = dict(victim.model.named_modules(remove_duplicate=False)).get(layer)
    if not isinstance(module, nn.Linear):
        raise InputError(f"soteria: '{layer}' is no linear layer of this victim; {hint}.")
    found = [name for name, parameter in victim.model.named_parameters() if parameter is module.weight]
    if not found:
        raise InputError(f"soteria: '{layer}' computes its weight from others, as under weight norm; {hint}.")
    if found[0] not in victim.trained:
        raise InputError(f"soteria: '{layer}' is frozen, so nothing of it is sent; {hint}.")
    return found[0]


def linear_weights(victim: Victim) -> Iterator[str]:
    """The names of the trained weights, (outputs, features), of all linear layers."""
    layers = {id(m.weight) for m in victim.model.modules() if isinstance(m, nn.Linear)}
    parameters = victim.model.named_parameters()
    return (name for name, parameter in parameters if id(parameter) in layers and name in victim.trained)


def pruned(ratios: Tensor, counted: Tensor, rate: float) -> Tensor:
    """(F,) bool: the `rate` of the counted features (F,) whose ratios (F,) are smallest."""
    count = int(Fraction(str(rate)) * int(counted.sum()))
    smallest = ratios.where(counted, torch.inf).argsort(stable=True)[:count]
    return torch.zeros_like(counted).index_fill(0, smallest, True)


def below_percentile(ratios: Tensor, rate: float) -> Tensor:
    """(F,) bool, of ratios (F,): as in the codes that add an eps to every feature, dead ones too."""
    return ratios < torch.quantile(ratios.double(), rate)


def sensitivities(
    victim: Victim, theta: Gradient, layer: str, images: Tensor, eps: float = 0.0
) -> tuple[Tensor, Tensor]:
    """How strongly the input features of a linear layer depend on the images, relative to their size.

    Args:
        theta: the weights.
        layer: its name.
        images: (B, C, H, W), normalized.
        eps: TINY where it is 0.

    Returns:
        (F,): the sum of |dr_f / dX|_2 / (|r_f| + eps) over the images, and over positions if the layer has several,
        such as tokens; (F,) bool: whether r_f is nonzero anywhere.

    Raises:
        InputError: the model does not call the layer, or not on what depends on the images.
    """
    module = victim.model.get_submodule(layer)
    images = images.detach().requires_grad_()
    with torch.enable_grad():
        seen = victim.entering({layer: module}, {name: p.detach() for name, p in theta.items()}, images)
    if not seen:
        raise InputError(f"soteria: the victim never calls '{layer}' as a layer, as inside attention; choose another.")
    if not seen[layer].requires_grad:
        raise InputError(f"soteria: what enters '{layer}' does not depend on the images; choose another.")
    r = seen[layer].reshape(len(images), -1)  # (B, P F): the inputs at every position
    gradients = gradient_norms(r, images)
    r = r.detach()
    ratios = gradients / (r.abs() + (eps or TINY))
    F = seen[layer].shape[-1]
    return ratios.view(-1, F).sum(0), (r != 0).view(-1, F).any(0)


def gradient_norms(r: Tensor, images: Tensor) -> Tensor:
    """|dr_f / dX|_2 of features (B, F) in every image (B, C, H, W): (B, F).

    As in the code, the gradient is that of the feature's sum over the batch. So if batch norm mixes the images of a
    batch, their effects add up.
    """
    norms = torch.zeros_like(r)
    live = r.detach().any(0).nonzero().flatten()  # after a ReLU half of them are zero, and have no gradient
    for some in live.split(max(1, VALUES // images.numel())):
        chosen = torch.zeros(len(some), *r.shape, dtype=r.dtype, device=r.device)
        chosen[torch.arange(len(some)), :, some] = 1
        (gradients,) = torch.autograd.grad(r, images, chosen, retain_graph=True, is_grads_batched=True)
        norms[:, some] = gradients.flatten(2).norm(dim=2).T
    return norms
