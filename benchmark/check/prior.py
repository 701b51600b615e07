"""The contracts of generators and denoisers."""

from collections.abc import Callable

import torch
from torch import Tensor

from attacks.gias_parts import GIz
from benchmark.check.fails import alike, require
from benchmark.check.small import BATCH, small_task
from benchmark.scoring.score import FLAT
from priors.base import Denoiser, Generator, Prior, check_decoded, require_attributes
from victims.data.photos import Photos

COUNT = 3


def drawn(prior: Generator, seed: int = 0) -> dict[str, Tensor]:
    """Its inputs, with classes where it takes them."""
    require_attributes(prior, "image_shape", "blocks")
    state = prior.draw(COUNT, torch.Generator().manual_seed(seed))
    return {**state, "y": torch.arange(COUNT) % prior.classes} if prior.classes else state


def it_draws_its_inputs_from_the_generator(prior: Generator) -> None:
    state, again, other = drawn(prior), drawn(prior), drawn(prior, seed=1)
    place = type(prior).draw
    missing = [name for name in (*prior.latents, *prior.noises) if name not in state]
    require(not missing, f"draw gives no {', '.join(missing)}, which latents or noises name", place)
    wrong = [name for name, each in state.items() if len(each) != COUNT]
    require(not wrong, f"{', '.join(wrong)} of draw({COUNT}, ...) are not ({COUNT}, ...)", place)
    require(all(torch.equal(state[n], again[n]) for n in state), "the same seed gives another draw", place)
    differ = any(not torch.equal(state[n], other[n]) for n in prior.latents)
    require(differ, "another seed gives the same draw; draw from the generator", place)


def its_images_are_of_its_image_shape_in_0_to_1(prior: Generator) -> None:
    """The range only where it says that it is bounded."""
    with torch.no_grad():
        images = prior(drawn(prior))
    check_decoded(prior, images)
    require(len(images) == COUNT, f"{COUNT} inputs give {len(images)} images", type(prior))
    low, high = (float(bound) for bound in images.aminmax())
    within = (low >= 0 and high <= 1) or not prior.bounded
    wrong = f"images go from {low:.3g} to {high:.3g}, not in [0, 1]; if they may, say bounded = False"
    require(within, wrong, type(prior))
    spread = float(images.std())
    wrong = (
        f"pixels have a standard deviation of {spread:.2g}, as those of one color; images go from 0 to 1, not in bytes"
    )
    require(spread > FLAT, wrong, type(prior))


def its_blocks_follow_each_other(prior: Generator) -> None:
    """To run the first blocks and then the others is to run all of them."""
    with torch.no_grad():
        whole = prior.advance(drawn(prior))["h"]
        for k in range(1, len(prior.blocks)):
            parts = prior.advance(prior.advance(drawn(prior), 0, k), k)["h"]
            alike(
                parts,
                whole,
                f"images in two parts, before and from block {k}, and in one",
                type(prior).step,
                type(prior),
            )


def its_images_do_not_depend_on_each_other(prior: Generator) -> None:
    state = drawn(prior)
    with torch.no_grad():
        together, alone = prior(state)[:1], prior({name: each[:1] for name, each in state.items()})
    alike(together, alone, "an image in a batch and alone", type(prior), rtol=1e-4, atol=1e-5)


def its_images_are_differentiable_in_its_latents(prior: Generator) -> None:
    state = drawn(prior)
    searched = [state[name].requires_grad_() for name in prior.latents]
    images = prior(state)
    require(
        images.requires_grad, "images have no derivative in the latents; take out detach() or no_grad()", type(prior)
    )
    found = torch.autograd.grad(images.square().sum(), searched, allow_unused=True)
    still = [name for name, g in zip(prior.latents, found, strict=True) if g is None or not g.any()]
    require(not still, f"images do not depend on {', '.join(still)}", type(prior))


def attacks_search_it(prior: Generator) -> None:
    """`gi_z`, whose cost falls."""
    side = prior.image_shape[1]
    result = GIz(prior=prior, steps=8, restarts=1).run([small_task(size=min(32, side)).observation])
    first, least = float(result.curve[0][1]), float(result.cost)
    require(least < first, f"in 8 steps of gi_z the cost does not fall below {first:.4g}", type(prior))


def it_keeps_the_shape_of_images(prior: Denoiser) -> None:
    """Of any size."""
    for shape in ((1, prior.channels, 32, 32), (2, prior.channels, 24, 40)):
        with torch.no_grad():
            clean = prior(torch.full(shape, 0.5), 0.1)
        wrong = f"of images {shape} it makes {tuple(clean.shape)}"
        require(clean.shape == shape and clean.isfinite().all(), wrong, type(prior).forward)


def it_takes_noise_from_images(prior: Denoiser) -> None:
    """Of photographs with Gaussian noise of 0.1; what is out of [0, 1] or of one color is further from them."""
    data = Photos(split="tune")
    clean = data.batch(BATCH)[0].mean(1, keepdim=True).repeat(1, prior.channels, 1, 1)
    noisy = clean + 0.1 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before, after = (float((each - clean).square().mean()) for each in (noisy, prior(noisy, 0.1)))
    require(after < before, f"noise of mean square {before:.2g} becomes {after:.2g}", type(prior).forward)


def it_cleans_every_image_alone(prior: Denoiser) -> None:
    images = torch.rand(3, prior.channels, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        together, alone = prior(images, 0.1)[:1], prior(images[:1], 0.1)
    alike(together, alone, "an image in a batch and alone", type(prior).forward, rtol=1e-4, atol=1e-5)


def its_weights_are_frozen_and_it_says_what_it_was_trained_on(prior: Prior) -> None:
    require(not prior.training, "it is in train mode", type(prior))
    require(not any(p.requires_grad for p in prior.parameters()), "its parameters require gradients", type(prior))
    require(prior.trained_on, "trained_on is empty; rows say it", type(prior))


OF_GENERATORS: list[Callable[[Generator], None]] = [
    it_draws_its_inputs_from_the_generator,
    its_images_are_of_its_image_shape_in_0_to_1,
    its_blocks_follow_each_other,
    its_images_do_not_depend_on_each_other,
    its_images_are_differentiable_in_its_latents,
    its_weights_are_frozen_and_it_says_what_it_was_trained_on,
    attacks_search_it,
]
OF_DENOISERS: list[Callable[[Denoiser], None]] = [
    it_keeps_the_shape_of_images,
    it_takes_noise_from_images,
    it_cleans_every_image_alone,
    its_weights_are_frozen_and_it_says_what_it_was_trained_on,
]
