"""The contracts of every loss that names its examples, and of one of the user's own."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import jacrev
from torch.nn.functional import one_hot

from benchmark.check.fails import alike, require
from victims.losses.base import Loss, check_loss

K = 10


def case() -> tuple[Tensor, Tensor]:
    """Logits (6, K), and labels with repeats."""
    draws = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(6, K, generator=draws, dtype=torch.float64)
    return logits, torch.randint(K, (6,), generator=draws)


def it_is_a_mean_that_is_differentiable_twice(loss: Loss) -> None:
    """Of classes; other labels may be refused."""
    check_loss(loss.double(), *case())


def a_class_is_a_target_of_probability_one(loss: Loss) -> None:
    """In value and first and second derivative."""
    loss, (logits, labels) = loss.double(), case()
    for times in (lambda f: f, jacrev, lambda f: jacrev(jacrev(f))):
        found = times(lambda z: loss(z, labels))(logits)
        expected = times(lambda z: loss(z, one_hot(labels, K).double()))(logits)
        alike(found, expected, "the loss of a class and of probabilities", loss.forward, rtol=1e-10, atol=1e-12)


def what_it_says_of_its_gradient_is_true(loss: Loss) -> None:
    """`signs` and `smoothing`, which say which label methods hold."""
    loss, logits = loss.double(), case()[0][0]
    for label in range(K):
        gradient = jacrev(lambda z, label=label: loss(z[None], torch.tensor([label])))(logits)
        if loss.signs:
            wrong = "signs is true, but not the label's derivative alone is negative"
            require((gradient < 0).tolist() == [k == label for k in range(K)], wrong, type(loss))
        if loss.smoothing is not None:
            t = (1 - loss.smoothing) * one_hot(torch.tensor(label), K) + loss.smoothing / K
            alike(gradient, logits.softmax(0) - t, "the derivative and softmax - t of its smoothing", type(loss))


CONTRACTS: list[Callable[[Loss], None]] = [
    it_is_a_mean_that_is_differentiable_twice,
    a_class_is_a_target_of_probability_one,
    what_it_says_of_its_gradient_is_true,
]
