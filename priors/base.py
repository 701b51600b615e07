"""What an attacker knows of images before it sees an update: the base of all priors; generators and denoisers."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from math import inf
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.functional import avg_pool2d

from victims.contract import Broken, line_of
from victims.errors import InputError
from victims.observation import Observation

ATTRIBUTES = "a generator has image_shape and blocks"
IMAGES = "a prior makes images of its image_shape"

State = Mapping[str, Tensor]
"""The tensors at some point of a generator's chain, by name, (N, ...) each; (R, B, ...) for instances."""


class Prior(nn.Module, ABC):
    """A generator, a denoiser or an inverter.

    One file of this folder holds all of a prior: the network, its published weights, and how these are loaded. Names
    are read from the file without importing it, so `published` is a literal.

    Attributes:
        kind: what it is, in messages.
        published: weights that others have published, by name: the fields of `priors.names.Published`.
        follows_size: whether it takes the size of the task's images if no size is given.
        image_shape: (C, H, W) of one image, where the prior is made for one size.
        trained_on: what the weights were trained on; it is in every row.
        training_seconds: what the training took, where that is known; it is in every row.
    """

    kind: ClassVar[str]
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    follows_size: ClassVar[bool] = False
    image_shape: tuple[int, int, int]
    trained_on: str = "untrained"
    training_seconds: float | None = None

    @classmethod
    def load_public(cls, path: Path) -> "Prior":
        """Weights in the layout of their authors, in eval mode, the parameters frozen. Code in the file never runs.

        A subclass may add options, which `published` gives.

        Raises:
            InputError: no file, other weights than expected, or there is no such layout.
        """
        raise InputError(f"{cls.__name__} has no layout but this suite's own; give a .safetensors file alone.")

    @abstractmethod
    def check(self, observation: Observation) -> None:
        """Refuse an observation for which the prior is of no use.

        Raises:
            InputError: it is made for other images, classes or victims.
        """


class Generator(Prior):
    """A generator G_w: a chain of `blocks` that transform a state, with three search spaces.

    The inputs are what `draw` returns, and `y`, the classes (N,), for a conditional generator. `enter` turns the inputs
    into the state before block 0. Every block replaces `h`, and after the last block `h` is the image.

    - **latents**: the inputs named by `latents`.
    - **features**: the tensors named by `features(k)` of the state before block k.
    - **parameters**: w, by name, as in `named_parameters`.

    A prior is used in eval mode, so that the images of a batch do not depend on each other.

    Attributes:
        latents: names of the inputs that are searched.
        noises: names of the inputs that are standard normal noise of the generator's own, if it has any.
        classes: the number of classes of a conditional generator; else None.
        bounded: whether every pixel lies in [0, 1]; else some lie outside, where clamping would stop their gradients.
    """

    kind = "generator"
    bounded: ClassVar[bool] = True
    latents: tuple[str, ...] = ("z",)
    noises: tuple[str, ...] = ()
    classes: int | None = None
    blocks: nn.ModuleList

    def check(self, observation: Observation) -> None:
        """Refuse images that are larger than the generator's or have other channels, and labels it does not take."""
        require_attributes(self, "image_shape", "blocks")
        (channels, side, _), wanted = self.image_shape, observation.image_shape
        if channels != wanted[0] or wanted[1] != wanted[2] or side < wanted[1]:
            cure = f"choose --size {side} or less" if channels == wanted[0] else f"run with --channels {channels}"
            raise InputError(
                f"the prior makes {self.image_shape} images, the task has {wanted}; {cure}, or choose another --prior."
            )
        labels = observation.knowledge.labels
        given = "none" if labels is None else "probabilities" if labels.is_floating_point() else "its own"
        if self.classes and (given != "its own" or self.classes != observation.num_classes):
            raise InputError(
                f"the prior takes labels of {self.classes} classes, the task has {observation.num_classes} and {given} "
                "given; choose another --prior."
            )

    @abstractmethod
    def draw(self, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Random inputs from the prior's own distribution, (count, ...) each, on the CPU."""

    def draw_gaussian(self, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        """As `draw`, with mapped latents from a Gaussian that is fitted to them; the same if none are mapped."""
        return self.draw(count, generator)

    def center(self, state: State) -> dict[str, Tensor]:
        """The mean of the distribution of `draw`, for every latent in `state`."""
        return {name: torch.zeros_like(state[name]) for name in self.latents}

    def enter(self, state: State) -> dict[str, Tensor]:
        """From the inputs to the state before block 0."""
        return {**state, "h": state["z"]}

    def step(self, block: nn.Module, state: State) -> dict[str, Tensor]:
        """Apply one block."""
        return {**state, "h": block(state["h"])}

    def features(self, k: int) -> tuple[str, ...]:
        """The variables of a search of the features before block k; before block 0 these are the latents."""
        return ("h",) if k else self.latents

    def advance(self, state: State, start: int = 0, stop: int | None = None) -> dict[str, Tensor]:
        """Run blocks start..stop-1 on the state before block `start`; from 0, on the inputs.

        So `advance(advance(s, 0, k), k)` is `advance(s)`, and after the last block `h` is (N, C, H, W) in the scale of
        [0, 1], and within it where the generator is `bounded`.
        """
        state = self.enter(state) if start == 0 else dict(state)
        for block in self.blocks[start:stop]:
            state = self.step(block, state)
        return state

    def forward(self, state: State) -> Tensor:
        """Inputs -> images (N, C, H, W) in the scale of [0, 1], see `bounded`."""
        return self.advance(state)["h"]


class Denoiser(Prior):
    """A network D that removes white Gaussian noise from natural images of any size.

    (D(x, sigma) - x) / sigma^2 is the score of the images' distribution, smoothed by that noise (Miyasawa 1961).

    Attributes:
        channels: of its images.
        sigma_max: the strongest noise that it is made for.
    """

    kind = "denoiser"
    channels: int = 3
    sigma_max: float = inf

    def check(self, observation: Observation) -> None:
        """Refuse images with other channels."""
        given = observation.image_shape[0]
        if given != self.channels:
            raise InputError(
                f"the denoiser takes images with {self.channels} channels, the task's have {given}; run with "
                f"--channels {self.channels}, or choose another denoiser."
            )

    @abstractmethod
    def forward(self, images: Tensor, sigma: float | Tensor) -> Tensor:
        """Noisy images (N, C, H, W) in the scale of [0, 1] -> clean ones.

        Args:
            sigma: the noise's standard deviation, one for all or (N,).
        """


def require_attributes(prior: Prior, *names: str) -> None:
    """
    Raises:
        Broken: the prior lacks one.
    """
    for name in names:
        if not hasattr(prior, name):
            wrong = f"{type(prior).__name__} has no {name}; set self.{name} in its __init__"
            raise Broken(ATTRIBUTES, wrong, line_of(type(prior).__init__, type(prior)))


def check_decoded(prior: Prior, images: Any) -> None:
    """
    Args:
        images: (..., C, H, W).

    Raises:
        Broken: they have another shape than `image_shape`.
    """
    if images.shape[-3:] != tuple(prior.image_shape):
        wrong = f"{type(prior).__name__} makes images {tuple(images.shape[-3:])} and says {tuple(prior.image_shape)}"
        raise Broken(
            IMAGES, f"{wrong}; set self.image_shape to what it makes", line_of(type(prior).__init__, type(prior))
        )


def advance(prior: Generator, state: State, start: int = 0, stop: int | None = None) -> dict[str, Tensor]:
    """`Generator.advance` for instances: (R, B, ...) -> (R, B, ...), one generator for all."""
    leading = next(iter(state.values())).shape[:2]
    ahead = prior.advance({name: s.flatten(0, 1) for name, s in state.items()}, start, stop)
    return {name: s.unflatten(0, leading) for name, s in ahead.items()}


def decode(prior: Generator, state: State, start: int = 0) -> Tensor:
    """The state before block `start`, (R, B, ...), to images (R, B, C, H, W) in [0, 1]."""
    return advance(prior, state, start)["h"]


def decode_each(prior: Generator, w: Mapping[str, Tensor], state: State) -> Tensor:
    """Every image with its own copy of the generator's parameters (GIAS, algorithm 1, line 3).

    Args:
        w: every parameter by name, (R, B, *shape).
        state: the inputs, (R, B, ...).

    Returns:
        images (R, B, C, H, W) in [0, 1]: image (r, b) is G_{w[r, b]} of state[r, b].
    """
    buffers = dict(prior.named_buffers())
    leading = next(iter(state.values())).shape[:2]

    def one(w_rb: dict[str, Tensor], s_rb: dict[str, Tensor]) -> Tensor:
        return functional_call(prior, (w_rb, buffers), ({n: s.unsqueeze(0) for n, s in s_rb.items()},)).squeeze(0)

    flat = [{name: tensor.flatten(0, 1) for name, tensor in tensors.items()} for tensors in (w, state)]
    return vmap(one)(*flat).unflatten(0, leading)


def shrink(images: Tensor, side: int) -> Tensor:
    """Area-resize images (R, B, C, H, W) to `side`, at most their own, as GGL and GIFD do.

    Equal to torch's `interpolate(mode="area")`, whose gradient on CUDA is not deterministic unless the side is a whole
    multiple.
    """
    large = images.shape[-1]
    if large == side:
        return images
    if large % side == 0:
        return avg_pool2d(images.flatten(0, 1), large // side).unflatten(0, images.shape[:2])
    weights = area_weights(large, side, images)
    return weights @ images @ weights.T


def area_weights(large: int, small: int, like: Tensor) -> Tensor:
    """(small, large): each of `small` pixels is the mean of those of `large` that it overlaps."""
    i, j = torch.arange(small, device=like.device)[:, None], torch.arange(large, device=like.device)
    overlap = ((j + 1) * small > i * large) & (j * small < (i + 1) * large)
    return overlap.to(like) / overlap.sum(1, keepdim=True)
