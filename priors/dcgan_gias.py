"""The generator of GIAS's code for 32 px: the DCGAN of csinva/gan-vae-pretrained-pytorch."""

from pathlib import Path

import torch
from torch import Tensor, nn

from priors.base import Generator
from priors.dcgan import Block, FirstBlock, renamed
from victims.checkpoints import expected, tensors

NZ = 100  # length of the latent


class LastBlock(nn.Sequential):
    """A 1x1 convolution to color, tanh, and from (-1, 1) to (0, 1)."""

    def __init__(self) -> None:
        super().__init__(nn.ConvTranspose2d(64, 3, 1, bias=False), nn.Tanh())

    def forward(self, h: Tensor) -> Tensor:
        return (super().forward(h) + 1) / 2


class DCGANGIAS(Generator):
    """DCGAN of GIAS's code at 32 px: twice as wide as `dcgan`, and the last block keeps the side.

    Latent 100 -> 512 channels at 4x4 -> 256 at 8x8 -> 128 at 16x16 -> 64 at 32x32 -> color. Random weights are those
    that torch initializes layers with, as in that code.
    """

    published = {
        "dcgan-gias-cifar10": {
            "file": "netG_epoch_199.pth",
            "size": 32,
            "trained_on": "CIFAR-10 (training set), 32 px",
            "license": "not stated with the weights",
            "source": "https://github.com/csinva/gan-vae-pretrained-pytorch (cifar10_dcgan/weights)",
            "sha256": None,
        },
    }
    image_shape = (3, 32, 32)

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            [
                FirstBlock(NZ, 512, 1, 0),
                Block(512, 256, 2, 1),
                Block(256, 128, 2, 1),
                Block(128, 64, 2, 1),
                LastBlock(),
            ]
        )

    def draw(self, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        return {"z": torch.randn(count, NZ, generator=generator)}

    @classmethod
    def load_public(cls, path: Path) -> "DCGANGIAS":
        """A state dict under `main.`: convolution, batch norm and activation of one block after the other.

        The file does not say what it was trained on: its name is used instead.

        Raises:
            InputError: no file, code in it, or other tensors than these.
        """
        prior, public = cls(), tensors(path)
        with expected("the DCGAN of GIAS's code, of 32 px", path):
            prior.load_state_dict({renamed(name): tensor for name, tensor in public.items()})
        prior.trained_on = path.stem
        return prior.eval().requires_grad_(False)
