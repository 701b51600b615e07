"""The contracts of every metric that needs the two images alone."""

from collections.abc import Callable

import torch
from torch import Tensor

from benchmark.check.fails import alike, require
from benchmark.scoring.metrics import Metric
from benchmark.scoring.score import computed

SIDES = (32, 64)


def images(side: int, seed: int = 0) -> Tensor:
    return torch.rand(3, 3, side, side, generator=torch.Generator().manual_seed(seed))


def scores(metric: Metric, reconstruction: Tensor, truth: Tensor) -> Tensor:
    """NaN-free numbers of all images; a metric that cannot score these has none."""
    found = computed(metric, reconstruction, truth, {})
    return torch.zeros(len(truth)) if found is None else found


def it_gives_a_number_for_each_image(metric: Metric) -> None:
    """Of noise, of the truth itself, of black, white and gray, at 32 and 64 pixels, with one channel and three."""
    for side in SIDES:
        truth = images(side)
        for other in (images(side, seed=1), truth, *(torch.full_like(truth, level) for level in (0.0, 0.5, 1.0))):
            scores(metric, other, truth)
        scores(metric, images(side, seed=1)[:, :1], truth[:, :1])


def scores_and_failure_are_in_its_range(metric: Metric) -> None:
    low, high = metric.range
    require(
        low <= metric.failure <= high, f"failure={metric.failure} is outside of range={metric.range}", metric.function
    )
    for other in (images(32, seed=1), images(32)):
        found = scores(metric, other, images(32))
        inside = bool(((found >= low) & (found <= high)).all())
        require(inside, f"a score of {found.tolist()} is outside of range={metric.range}", metric.function)


def the_truth_scores_better_than_noise_or_one_color(metric: Metric) -> None:
    """In the direction that `higher_is_better` says; and failure is no better than these, which have nothing of it."""
    sign, truth = 1 if metric.higher_is_better else -1, images(32)
    best, said = scores(metric, truth, truth), f"with higher_is_better={metric.higher_is_better}"
    nothing = {"noise": images(32, seed=1)} | {
        name: torch.full_like(truth, level) for name, level in (("black", 0.0), ("gray", 0.5), ("white", 1.0))
    }
    found = {name: scores(metric, other, truth) for name, other in nothing.items()}
    for name, each in found.items():
        wrong = f"the truth scores {best[0]:.4g} and {name} {each[0]:.4g}, {said}"
        require((sign * (best - each) > 0).all(), wrong, metric.function)
    top = sign * max(float((sign * each).max()) for each in found.values())
    wrong = f"failure={metric.failure} is better than the {top:.4g} of a picture that has nothing of the truth, {said}"
    require(sign * metric.failure <= sign * top, wrong, metric.function)


def an_images_score_does_not_depend_on_its_batch(metric: Metric) -> None:
    together = scores(metric, images(32, seed=1), images(32))[:1]
    alone = scores(metric, images(32, seed=1)[:1], images(32)[:1])
    alike(together, alone, "the score of an image in a batch and alone", metric.function, rtol=1e-5, atol=1e-6)


def it_changes_no_image(metric: Metric) -> None:
    one, other = images(32, seed=1), images(32)
    scores(metric, one, other)
    same = torch.equal(one, images(32, seed=1)) and torch.equal(other, images(32))
    require(same, "it writes into the images that it is given, which other metrics score too", metric.function)


CONTRACTS: list[Callable[[Metric], None]] = [
    it_gives_a_number_for_each_image,
    scores_and_failure_are_in_its_range,
    the_truth_scores_better_than_noise_or_one_color,
    an_images_score_does_not_depend_on_its_batch,
    it_changes_no_image,
]
