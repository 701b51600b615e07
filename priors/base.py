"""What every generator provides to the attacks that search its spaces."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap


class Prior(nn.Module, ABC):
    """A generator G_w with its three search spaces.

    - **latent**: z, drawn by `draw`.
    - **features by layer**: G is the chain of `blocks`; `advance(h, start, stop)` runs a part of it, so that
      `advance(advance(z, 0, k), k)` is `self(z)` and the features before block k can be searched.
    - **parameters**: w, by name, as `named_parameters` lists them.

    A prior is used in eval mode: images of a batch do not see each other.

    Attributes:
        latent_shape: shape of one latent.
        image_shape: (C, H, W) of one image.
        trained_on: what the weights have seen; goes into every row.
    """

    latent_shape: tuple[int, ...]
    image_shape: tuple[int, int, int]
    trained_on: str = "untrained"
    blocks: nn.ModuleList

    @abstractmethod
    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """`count` latents from the prior's own distribution, (count, *latent_shape), on the CPU."""

    def advance(self, h: Tensor, start: int = 0, stop: int | None = None) -> Tensor:
        """Run blocks start..stop-1; after the last block h is an image batch in [0, 1].

        Shapes: (N, ...) -> (N, ...); latents (N, *latent_shape) go in where start is 0.
        """
        for block in self.blocks[start:stop]:
            h = block(h)
        return h

    def forward(self, z: Tensor) -> Tensor:
        """Latents (N, *latent_shape) -> images (N, C, H, W) in [0, 1]."""
        return self.advance(z)


def decode(prior: Prior, z: Tensor) -> Tensor:
    """Latents (R, B, *latent_shape) -> images (R, B, C, H, W) in [0, 1], one generator for all."""
    return prior(z.flatten(0, 1)).unflatten(0, z.shape[:2])


def decode_each(prior: Prior, w: Mapping[str, Tensor], z: Tensor) -> Tensor:
    """Every image with its own copy of the generator's parameters (GIAS, algorithm 1, line 3).

    Args:
        w: every parameter by name, (R, B, *shape).
        z: latents (R, B, *latent_shape).

    Returns:
        images (R, B, C, H, W) in [0, 1]: image (r, b) is G_{w[r, b]}(z[r, b]).
    """
    buffers = dict(prior.named_buffers())

    def one(w_rb: dict[str, Tensor], z_rb: Tensor) -> Tensor:
        return functional_call(prior, (w_rb, buffers), (z_rb.unsqueeze(0),)).squeeze(0)

    flat = {name: tensor.flatten(0, 1) for name, tensor in w.items()}
    return vmap(one)(flat, z.flatten(0, 1)).unflatten(0, z.shape[:2])
