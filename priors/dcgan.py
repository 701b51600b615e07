"""DCGAN (Radford et al., 2016), the generator of GIAS's and GIML's 32 px experiments."""

import torch
from torch import Tensor, nn

from priors.base import Prior


class Block(nn.Sequential):
    """Transposed convolution x2, batch normalisation, ReLU."""

    def __init__(self, c_in: int, c_out: int, stride: int, padding: int) -> None:
        super().__init__(
            nn.ConvTranspose2d(c_in, c_out, 4, stride, padding, bias=False), nn.BatchNorm2d(c_out), nn.ReLU()
        )


class FirstBlock(Block):
    """The latent vector as a 1x1 map, to 4x4."""

    def forward(self, z: Tensor) -> Tensor:
        return super().forward(z[..., None, None])


class LastBlock(nn.Module):
    """To colour, tanh, and from (-1, 1) to (0, 1)."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(c_in, c_out, 4, 2, 1, bias=False)

    def forward(self, h: Tensor) -> Tensor:
        return (self.conv(h).tanh() + 1) / 2


class DCGAN(Prior):
    """Latent 100 -> 4x4 -> 8x8 -> 16x16 -> 32x32, channels 4, 2, 1 times `ngf`."""

    def __init__(self, *, nz: int = 100, ngf: int = 64) -> None:
        super().__init__()
        self.latent_shape, self.image_shape = (nz,), (3, 32, 32)
        self.blocks = nn.ModuleList(
            [
                FirstBlock(nz, 4 * ngf, 1, 0),
                Block(4 * ngf, 2 * ngf, 2, 1),
                Block(2 * ngf, ngf, 2, 1),
                LastBlock(ngf, 3),
            ]
        )
        for module in self.modules():  # the initialisation of the DCGAN paper
            if isinstance(module, nn.ConvTranspose2d):
                nn.init.normal_(module.weight, 0.0, 0.02)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1.0, 0.02)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.randn(count, *self.latent_shape, generator=generator)


class Discriminator(nn.Sequential):
    """The mirror image of the generator: (N, 3, 32, 32) in (-1, 1) -> one logit (N,)."""

    def __init__(self, ndf: int = 64) -> None:
        super().__init__(
            nn.Conv2d(3, ndf, 4, 2, 1, bias=False), nn.LeakyReLU(0.2),
            nn.Conv2d(ndf, 2 * ndf, 4, 2, 1, bias=False), nn.BatchNorm2d(2 * ndf), nn.LeakyReLU(0.2),
            nn.Conv2d(2 * ndf, 4 * ndf, 4, 2, 1, bias=False), nn.BatchNorm2d(4 * ndf), nn.LeakyReLU(0.2),
            nn.Conv2d(4 * ndf, 1, 4, 1, 0, bias=False), nn.Flatten(0),
        )  # fmt: skip
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0.0, 0.02)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1.0, 0.02)
