"""The face generator of fletchersarip93/face-generator: a DCGAN of five blocks at 32 px."""

from pathlib import Path

import torch
from torch import Tensor, nn

from priors.base import Generator
from victims.checkpoints import expected, tensors

NZ = 100  # length of the latent


class FirstBlock(nn.Sequential):
    """The latent vector as a 1x1 map, to 4x4, normalized; no activation follows."""

    def __init__(self) -> None:
        super().__init__(nn.ConvTranspose2d(NZ, 256, 4, bias=False), nn.BatchNorm2d(256))

    def forward(self, z: Tensor) -> Tensor:
        return super().forward(z[..., None, None])


class Block(nn.Sequential):
    """A convolution, batch normalization, LeakyReLU."""

    def __init__(self, conv: nn.Module, c_out: int) -> None:
        super().__init__(conv, nn.BatchNorm2d(c_out), nn.LeakyReLU(0.2))


class LastBlock(nn.Sequential):
    """Transposed convolution to color, tanh, and from (-1, 1) to (0, 1)."""

    def __init__(self) -> None:
        super().__init__(nn.ConvTranspose2d(32, 3, 4, 2, 1), nn.Tanh())

    def forward(self, h: Tensor) -> Tensor:
        return (super().forward(h) + 1) / 2


class DCGANFaces(Generator):
    """DCGAN of faces at 32 px, in the form of fletchersarip93/face-generator.

    Latent 100 -> 4x4 -> 4x4 with half the channels -> 8x8 -> 16x16 -> 32x32; latents are uniform on (-1, 1).
    """

    published = {
        "dcgan-faces32": {
            "file": "dcgan_faces32.pt",
            "size": 32,
            "trained_on": "CelebA (a part, cropped to faces), 32 px",
            "license": "Apache-2.0",
            "source": "https://github.com/fletchersarip93/face-generator (generator.pt)",
            "sha256": "502f4c47bcabdbb59b730a1209c13a363030f384d5ac9a99e4214c360f2dc8f7",
        },
    }
    image_shape = (3, 32, 32)

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            [
                FirstBlock(),
                Block(nn.Conv2d(256, 128, 3, 1, 1, bias=False), 128),
                Block(nn.ConvTranspose2d(128, 64, 4, 2, 1, bias=False), 64),
                Block(nn.ConvTranspose2d(64, 32, 4, 2, 1, bias=False), 32),
                LastBlock(),
            ]
        )

    def draw(self, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        return {"z": 2 * torch.rand(count, NZ, generator=generator) - 1}

    @classmethod
    def load_public(cls, path: Path) -> "DCGANFaces":
        """A state dict under `generator_deconv.`.

        The file does not say what it was trained on: its name is used instead.

        Raises:
            InputError: no file, code in it, or other tensors than these.
        """
        prior, public = cls(), tensors(path)
        with expected("the face generator of 32 px", path):
            prior.load_state_dict({name.replace("generator_deconv", "blocks"): t for name, t in public.items()})
        prior.trained_on = path.stem
        return prior.eval().requires_grad_(False)
