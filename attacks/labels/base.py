"""What the methods share: the classifier's gradient, features of dummy images, rounding to counts."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, Literal

import torch
from torch import Tensor

from attacks.labels import methods
from victims.classifier import classifiers
from victims.errors import InputError
from victims.losses.base import loss_name
from victims.modules import tensor_name
from victims.observation import Observation

DUMMIES = 32

Method = Callable[[Observation], Tensor]
"""An observation, whose given labels are ignored -> the batch's labels, (B,) long, sorted."""

Need = Literal["one image", "distinct labels", "non-negative features", "bias", "scale", "signs", "softmax"]
"""What a method relies on. No attacker can check whether labels are distinct, so this need never refuses.

- `scale` is the gradient's length; after local training it is known only together with the learning rate.
- `signs`: only the label's logit has a negative derivative.
- `softmax`: the derivative in the logits is p - t with smoothed targets t, see `Loss.smoothing`.
"""


@dataclass(frozen=True)
class Classifier:
    """The layer that gives the victim's logits, l = W a + b of N classes on F features, and its gradient; float64.

    If the logits are the mean or the sum of several heads, these are one layer on the features of all of them.

    Attributes:
        W, dW: (N, F).
        b: (N,), zeros where the layer has no bias.
        db: (N,), or None where it has none, or a frozen one.
    """

    W: Tensor
    b: Tensor
    dW: Tensor
    db: Tensor | None

    def probabilities(self, a: Tensor) -> Tensor:
        """Of features (..., F): (..., N)."""
        return (a @ self.W.T + self.b).softmax(-1)


def method(*needs: Need) -> Callable[[Method], Method]:
    """Declare what a method needs: it refuses an observation that lacks it. The function's `needs` holds them."""

    def declare(read: Method) -> Method:
        @wraps(read)
        def checked(observation: Observation) -> Tensor:
            check(observation, read.__name__, frozenset(needs))
            return read(observation).sort().values

        declared: Any = checked
        declared.needs = frozenset(needs)
        return declared

    return declare


def check(observation: Observation, name: str, needs: frozenset[Need]) -> None:
    """Refuse an observation on which the method cannot work, and name those that can.

    Raises:
        InputError: the classifier lacks a row for some class, or observation or loss lack what the method needs.
    """
    found = fault(observation, needs)
    if found is None:
        return
    why, cure = found
    known: dict[str, Any] = methods()
    others = [other for other, method in known.items() if fault(observation, method.needs) is None]
    if others:
        *most, last = others
        cure = f"choose {', '.join(most)}{' or ' if most else ''}{last}, or {cure}"
    raise InputError(f"{name} {why}; {cure}.")


def fault(observation: Observation, needs: frozenset[Need]) -> tuple[str, str] | None:
    """Why a method with these needs cannot work on an observation, and what to do about it; None if it can."""
    layer = classifier(observation)
    if len(layer.W) != observation.num_classes:
        rows = "one logit" if len(layer.W) == 1 else f"{len(layer.W)} logits"
        return (
            f"reads one row of the classifier per class, and this victim has {rows} for {observation.num_classes} "
            "classes",
            "choose another --victim",
        )
    local = observation.knowledge.local
    if "scale" in needs and local and local.lr is None:
        return "counts by the length of the gradient, which an unknown learning rate hides", "run with --know-lr true"
    if "scale" in needs and local and not local.optimizer.averages:
        return (
            "counts by the length of the gradient, which the steps of the client's optimizer do not have",
            "run with --labels given",
        )
    loss = observation.victim.criterion
    if ("signs" in needs and not loss.signs) or ("softmax" in needs and loss.smoothing is None):
        return (
            f"does not hold under the client's loss, {loss_name(loss)}",
            "run with --labels given, or with --loss cross_entropy",
        )
    if "one image" in needs and observation.batch_size > 1:
        return (
            f"reads the label of a single image, and this update is of {observation.batch_size}",
            "run with --batch 1",
        )
    if "bias" in needs and layer.db is None:
        return "reads the gradient of the classifier's bias, and this victim shares none", "run with --labels given"
    if "non-negative features" in needs and (least := float(dummy_features(observation, 2).min())) < 0:
        return (
            f"needs features that are never negative, as behind ReLU or sigmoid, and this victim's go down to "
            f"{least:.2g}",
            "run with --labels given",
        )
    return None


def counted(targets: Tensor, observation: Observation) -> Tensor:
    """How many labels each class has, of the sums over the batch of the loss's targets (N,): without smoothing.

    sum_k t_ik = (1 - eps) n_i + eps B / N.
    """
    eps = observation.victim.criterion.smoothing or 0.0
    return (targets - eps * observation.batch_size / len(targets)) / (1 - eps) if eps else targets


def classifier(observation: Observation) -> Classifier:
    """The layer and its gradient in the update; entries that are not finite carry no information and become zero.

    Raises:
        InputError: no linear layer gives the logits, or the update has no gradient of its plain weight.
    """
    heads = [head(observation, name, share) for name, share in observed(observation).items()]
    biased = [each.db for each in heads if each.db is not None]
    return Classifier(
        torch.cat([each.W for each in heads], 1),
        torch.stack([each.b for each in heads]).sum(0),
        torch.cat([each.dW for each in heads], 1),
        torch.stack(biased).mean(0) if biased else None,
    )


def observed(observation: Observation) -> dict[str, float]:
    return classifiers(observation.victim.model, observation.image_shape)


def head(observation: Observation, layer: str, share: float) -> Classifier:
    """A layer whose output counts with this share in the logits, as a part of the classifier."""
    weight, bias = (tensor_name(layer, name) for name in ("weight", "bias"))
    victim, sent = observation.victim, observation.gradient()
    own = {name: share * p.double() for name, p in victim.model.named_parameters() if name in (weight, bias)}
    if weight not in victim.trained:
        why = "frozen in this victim" if weight in own else "computed from others, as under weight norm"
        raise InputError(f"labels are read from the gradient of {weight}, which is {why}; run with --labels given.")
    b = own.get(bias, own[weight].new_zeros(len(own[weight])))
    db = finite(sent[bias]) / share if bias in sent else None
    return Classifier(own[weight], b, finite(sent[weight]).flatten(1) / share, db)


def finite(tensor: Tensor) -> Tensor:
    """In float64, with zeros where it is not finite."""
    return tensor.double().nan_to_num(0.0, 0.0, 0.0)


@torch.no_grad()
def dummy_features(observation: Observation, count: int = DUMMIES) -> Tensor:
    """The classifier's inputs for standard normal images in the victim's normalized space: (count, F), float64.

    The victim keeps its mode: in train mode, batch norm normalizes the images by their own batch.
    """
    victim = observation.victim
    layers = {name: victim.model.get_submodule(name) for name in observed(observation)}
    images = torch.randn((count, *observation.image_shape), generator=torch.Generator().manual_seed(0))
    entering = victim.entering(layers, victim.parameters, images.to(victim.mean))
    return torch.cat([features.double() for features in entering.values()], 1)


def lowest(scores: Tensor, count: int) -> Tensor:
    """The `count` classes of lowest score (N,); if there are fewer classes, all of them, then again from the lowest."""
    return scores.argsort(stable=True).repeat(-(-count // len(scores)))[:count]


def nearest_counts(estimates: Tensor, total: int) -> Tensor:
    """The labels (total,) whose counts n are nearest to estimates (N,): min |n - estimates|_2 with sum n = total.

    Greedy: each image goes to the class whose estimate exceeds its current count by most. If no estimate is negative
    and their sum is `total`, this is rounding by largest remainder.
    """
    worth = estimates[:, None] - torch.arange(total, device=estimates.device)
    return worth.flatten().sort(descending=True, stable=True).indices[:total] // total
