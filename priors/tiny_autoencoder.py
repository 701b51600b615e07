"""The decoder of a tiny autoencoder (madebyollin/taesd): a latent space for natural images of any size."""

import itertools
from collections import OrderedDict
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from priors.base import Generator, State
from victims.checkpoints import expected, tensors
from victims.errors import InputError

CHANNELS = 32  # of a latent
WIDTH = 64  # channels of every layer
FACTOR = 8  # pixels along one side of a latent's entry
STD = 0.9  # root mean square of photographs' latents: 0.91 on CIFAR-10's training set, 0.89 on ImageNet at 64 px


class Clamp(nn.Module):
    """Smoothly into (-3, 3), which holds the latents of images."""

    def forward(self, h: Tensor) -> Tensor:
        return 3 * (h / 3).tanh()


class Double(nn.Module):
    """Every pixel twice along both sides."""

    def forward(self, h: Tensor) -> Tensor:
        return interpolate(h, scale_factor=2)


def conv(c_in: int = WIDTH, c_out: int = WIDTH, *, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, 3, padding=1, bias=bias)


class Residual(nn.Module):
    """ReLU(h + three convolutions of h).

    With `pool`, h first gets what 1x1 convolutions make of the whole image, which they see by the mean and variance of
    a group normalization between them.
    """

    def __init__(self, *, pool: bool = False) -> None:
        super().__init__()
        self.conv = nn.Sequential(conv(), nn.ReLU(), conv(), nn.ReLU(), conv())
        into, out = nn.Conv2d(WIDTH, 4 * WIDTH, 1, bias=False), nn.Conv2d(4 * WIDTH, WIDTH, 1, bias=False)
        self.pool = nn.Sequential(into, nn.GroupNorm(4, 4 * WIDTH), nn.ReLU(), out) if pool else None

    def forward(self, h: Tensor) -> Tensor:
        if self.pool:
            h = h + self.pool(h)
        return (h + self.conv(h)).relu()


class TinyAutoencoder(Generator):
    """Decoder of the Tiny AutoEncoder for FLUX.2: natural images of any size from latents of an eighth of it.

    Latent 32 x S/8 x S/8 -> 64 channels at S/8 -> S/4 -> S/2 -> color at S. A block is the layers of one side, so that
    GIFD has three layers of features. It is a space to search in, with a sixth of the numbers that the pixels have, and
    no sampler: random latents give colored texture. The output is not bounded: a few pixels lie outside [0, 1], and
    clamping them here would stop their gradients.

    `draw` is normal with the root mean square of photographs' latents, which differs little between them (0.75 to 1.05
    on CIFAR-10): GIFD searches latents on the sphere of their start, so that a start near zero would stay gray. For
    `gi_z` too, a tenth of it was worse on two tune images of ImageNet at 64 px (60 steps: 3.4 and 1.6 dB).

    Args:
        size: side of the images, rounded up to a multiple of 8.
    """

    published = {
        "taef2": {
            "file": "taef2_decoder.pth",
            "size": None,
            "trained_on": "natural images, which are not stated with the weights",
            "license": "MIT",
            "source": "https://github.com/madebyollin/taesd (taef2_decoder.pth)",
            "sha256": "0a44a31e1ae59eb9dbf9359d24942fd3ef5928162c1800d97a28c61d51be0ab5",
        },
    }
    follows_size = True
    bounded = False

    def __init__(self, *, size: int = 64) -> None:
        super().__init__()
        if size < 1:
            raise InputError(f"images have a side of 1 pixel or more, not {size}.")
        self.side = -(-size // FACTOR)
        self.image_shape = (3, FACTOR * self.side, FACTOR * self.side)
        blocks: list[list[nn.Module]] = [
            [Clamp(), conv(CHANNELS), nn.ReLU(), *(Residual(pool=True) for _ in range(3))],
            [Double(), conv(bias=False), *(Residual() for _ in range(3))],
            [Double(), conv(bias=False), *(Residual() for _ in range(3))],
            [Double(), conv(bias=False), Residual(), conv(c_out=3)],
        ]
        number = itertools.count()  # the layers have the names of the published file
        self.blocks = nn.ModuleList(nn.Sequential(OrderedDict((f"{next(number)}", m) for m in b)) for b in blocks)

    def draw(self, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        """One vector for each image, (count, 32 side^2)."""
        return {"z": STD * torch.randn(count, CHANNELS * self.side**2, generator=generator)}

    def enter(self, state: State) -> dict[str, Tensor]:
        return {**state, "h": state["z"].unflatten(1, (CHANNELS, self.side, self.side))}

    @classmethod
    def load_public(cls, path: Path, *, size: int = 64) -> "TinyAutoencoder":
        """A state dict under the numbers of the layers; it is stored in half precision and computed in float32.

        The file does not say what it was trained on: its name is used instead.

        Args:
            size: side of the images, which the weights do not depend on.

        Raises:
            InputError: no file, code in it, or other tensors than these.
        """
        prior, public = cls(size=size), tensors(path)
        with expected("the decoder of the tiny autoencoder for FLUX.2", path):
            block = {number: k for k, layers in enumerate(prior.blocks) for number, _ in layers.named_children()}
            prior.load_state_dict({f"blocks.{block[name.partition('.')[0]]}.{name}": t for name, t in public.items()})
        prior.trained_on = path.stem
        return prior.eval().requires_grad_(False)
