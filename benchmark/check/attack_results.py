"""The contracts of what an attack finds, and of the cost by which it does."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.autograd import gradcheck

from attacks.engine import probe
from attacks.engine.distances import cosine
from benchmark.check.attack_case import Case
from benchmark.check.fails import alike, require
from benchmark.check.small import BATCH, OTHER
from benchmark.scoring.score import score
from benchmark.tasks.capture import Task

PATHS = ("factored", "vectorized", "plain")


def as_the_attacker_sees(task: Task) -> tuple[Tensor, Tensor]:
    """The private batch, normalized, in the order of its sorted labels: images (1, B, C, H, W), labels (1, B)."""
    labels, order = task.labels.sort()
    victim = task.observation.victim
    return victim.normalize(task.images.to(victim.mean))[order][None], labels[None]


@contextmanager
def forced(path: str) -> Iterator[None]:
    """Make a path the fastest one that is found for a victim, if it is possible at all."""
    with ExitStack() as held:
        if path in ("vectorized", "plain"):
            held.enter_context(patch.object(probe, "find_layers", lambda *_: None))
        if path == "plain":
            held.enter_context(patch.object(probe, "vectorizes", lambda *_: False))
        yield


def the_cost_at_the_truth_is_zero_to_rounding(case: Case) -> None:
    task = case.capture(dtype=torch.float64)
    attack = case.make(torch.float64)
    attack.begin([task.observation])
    truth, labels = as_the_attacker_sees(task)
    at_truth, elsewhere = attack.cost(truth, labels).item(), attack.cost(truth.flip(-1), labels).item()
    require(abs(at_truth) < 1e-9, f"the cost at the private images is {at_truth:.2g}", case.method.distance)
    require(
        elsewhere > 1e-4,
        f"the cost of mirrored images is {elsewhere:.2g}, as small as the truth's",
        case.method.distance,
    )


def the_derivative_of_the_cost_is_that_of_differences(case: Case, path: str) -> None:
    attack = case.make(torch.float64, restarts=2)
    task = case.capture((3, 50), dtype=torch.float64)
    with forced(path):
        attack.begin([task.observation])
    assert attack.paths is not None
    assert attack.paths.choose(2, 1).name == path
    draws = torch.Generator().manual_seed(0)
    corner = torch.randn(3, 3, dtype=torch.float64, generator=draws, requires_grad=True)
    rest, labels = attack.noise(), as_the_attacker_sees(task)[1].expand(2, -1)

    def cost(pixels: Tensor) -> Tensor:  # of a few pixels: gradcheck evaluates twice per entry
        return attack.cost(rest + torch.nn.functional.pad(pixels, (4, 25, 8, 21)), labels)

    holding = gradcheck(cost, (corner,), eps=1e-6, atol=1e-7, raise_exception=False)
    require(holding, f"the gradient of the cost is another than finite differences, {path}", case.method.distance)


def looped_chunked_and_vectorized_restarts_agree(case: Case) -> None:
    tasks = [case.capture(dtype=torch.float64), case.capture(OTHER, task="u", dtype=torch.float64)]
    observations = [task.observation for task in tasks]

    def outcome(path: str = "", **options: Any) -> tuple[Tensor, Tensor]:
        with forced(path):
            result = case.make(torch.float64, restarts=3, **options).run(observations)
        return result.images, torch.stack([cost for _, cost in result.curve])

    images, curve = outcome(chunk=6)
    others = {
        "in chunks of 2": outcome(chunk=2),
        "vectorized": outcome("vectorized", chunk=6),
        "one by one": outcome("plain"),
    }
    for how, (other, other_curve) in others.items():
        alike(other_curve, curve, f"the costs {how}", *case.where, rtol=1e-9, atol=1e-12)
        alike(other, images, f"the images {how}", *case.where, rtol=1e-6, atol=1e-9)


def batched_tasks_do_not_influence_each_other(case: Case) -> None:
    tasks = [case.capture(dtype=torch.float64), case.capture(OTHER, task="u", dtype=torch.float64)]
    together = case.make(torch.float64).run([task.observation for task in tasks])
    for k, task in enumerate(tasks):
        alone = case.make(torch.float64).run([task.observation])
        what = f"of task {k + 1} alone and together with another"
        alike(together.images[k], alone.images[0], f"the images {what}", *case.where, rtol=1e-6, atol=1e-9)
        alike(together.cost[k], alone.cost[0], f"the costs {what}", *case.where, rtol=1e-9, atol=1e-12)


def restarts_are_independent(case: Case) -> None:
    """More of them never cost more, they start alike, and another seed starts elsewhere."""
    observation = case.capture(dtype=torch.float64).observation  # L-BFGS enlarges rounding
    one, three = (case.make(torch.float64, restarts=r).run([observation]) for r in (1, 3))
    more = f"the cost is {float(three.cost):.4g} with three restarts and {float(one.cost):.4g} with one"
    require(three.cost <= one.cost + 1e-6, more, *case.where)
    first = [float(result.curve[0][1]) for result in (three, one)]
    require(first[0] <= first[1] + 1e-6, f"the first cost is {first[0]:.4g} with three and {first[1]:.4g}", *case.where)
    other = case.make(torch.float64, seed=1).run([observation])
    same, analytic = torch.equal(one.curve[0][1], other.curve[0][1]), case.method.analytic
    require(same == analytic, f"with another seed it starts {'alike' if same else 'elsewhere'}", *case.where)


def the_returned_cost_is_that_of_the_returned_images(case: Case) -> None:
    observations = [case.capture().observation, case.capture(OTHER, task="u").observation]
    result = case.make(restarts=2).run(observations)
    fresh = case.make()
    fresh.begin(observations)
    again = fresh.cost(result.images, result.labels)
    alike(
        again, result.cost, "the cost of the returned images, and the returned one", *case.where, rtol=1e-4, atol=1e-6
    )
    curve = torch.stack([cost for _, cost in result.curve])
    latest = fresh.session.stage.latest  # such a stage returns its last images, whatever they cost
    alike(result.cost, curve[-1] if latest else curve.amin(0), "the returned cost, and the least of all", *case.where)


def the_same_seed_gives_the_same_result_to_the_last_bit(case: Case) -> None:
    first, second = (case.make(restarts=2).run([case.capture().observation]) for _ in range(2))
    same = torch.equal(first.images, second.images) and torch.equal(first.cost, second.cost)
    require(same, "two runs differ; draw from self.normal, self.draw or self.seeds alone", *case.where)


def cycling_the_batch_changes_no_score(case: Case) -> None:
    def scores(indices: tuple[int, ...]) -> dict[str, tuple[float, float]]:
        task = case.capture(indices, dtype=torch.float64)
        images = case.make(torch.float64).run([task.observation]).images[0]
        _, values = score(task.observation.victim.denormalize(images), task.images)
        pairs = zip(values["psnr"], values["ssim"], strict=True)
        return {sample: (psnr or 0.0, ssim or 0.0) for sample, (psnr, ssim) in zip(task.sample_ids, pairs, strict=True)}

    size = case.method.made_for.get("batch", 3)
    straight, cycled = scores(BATCH[:size]), scores((50, 90, 3)[3 - size :])
    for sample, values in straight.items():
        alike(
            torch.tensor(cycled[sample]),
            torch.tensor(values),
            f"PSNR and SSIM of {sample}",
            *case.where,
            rtol=0,
            atol=1e-3,
        )


def an_update_that_cannot_be_matched_diverges(case: Case, factor: float) -> None:
    observation = case.capture().observation
    for tensor in observation.update.values():
        tensor.mul_(factor)
    result = case.make().run([observation])
    require(torch.isinf(result.cost).all(), f"the cost is {result.cost.tolist()}, not infinite", *case.where)
    require(torch.isfinite(result.images).all(), "images are not finite", *case.where)


def tiny_and_huge_updates_do_not_diverge(case: Case, exponent: int) -> None:
    """Of 2^exponent times the ordinary norm: 2^83 is 1e25."""
    observation = case.capture().observation
    ordinary = case.make().run([observation])
    for tensor in observation.update.values():
        tensor.mul_(2.0**exponent)
    attack = case.make()
    result = attack.run([observation])
    require(result.cost.isfinite().all(), f"the cost at 2^{exponent} is not finite", case.method.distance)
    if attack.distance is cosine:
        alike(result.images, ordinary.images, f"images at 2^{exponent}", case.method.distance)
