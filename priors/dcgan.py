"""DCGAN (Radford et al., 2016), the generator of GIAS's and GIML's 32 px experiments."""

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from priors.base import Generator, State
from victims.errors import InputError


class Block(nn.Sequential):
    """Transposed convolution x2, batch normalization, ReLU."""

    def __init__(self, c_in: int, c_out: int, stride: int, padding: int) -> None:
        super().__init__(
            nn.ConvTranspose2d(c_in, c_out, 4, stride, padding, bias=False), nn.BatchNorm2d(c_out), nn.ReLU()
        )


class FirstBlock(Block):
    """The latent vector as a 1x1 map, to 4x4."""

    def forward(self, z: Tensor) -> Tensor:
        return super().forward(z[..., None, None])


class LastBlock(nn.Module):
    """Transposed convolution to color, tanh, and from (-1, 1) to (0, 1)."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(c_in, c_out, 4, 2, 1, bias=False)

    def forward(self, h: Tensor) -> Tensor:
        return (self.conv(h).tanh() + 1) / 2


class DCGAN(Generator):
    """DCGAN, the generator of GIAS and GIML: small, for 32 or 64 px, with or without classes.

    Latent 100 -> 4x4 -> 8x8 -> ... -> `size`, each block with half the channels, the last but one `ngf`.

    Args:
        nz: length of the latent.
        ngf: channels before the last block.
        size: side of the images, 32 or 64.
        classes: their number for a conditional generator, whose further input is a learned embedding of the class, as
            long as the latent.
    """

    follows_size = True

    def __init__(self, *, nz: int = 100, ngf: int = 64, size: int = 32, classes: int | None = None) -> None:
        super().__init__()
        if size not in (32, 64):
            raise InputError(f"DCGAN makes images of 32 or 64 px, not {size}.")
        self.nz, self.classes, self.image_shape = nz, classes, (3, size, size)
        self.embed = nn.Embedding(classes, nz) if classes else None
        channels = [ngf * size // side for side in (8, 16, 32, 64) if side <= size]
        self.blocks = nn.ModuleList(
            [
                FirstBlock(nz * (2 if classes else 1), channels[0], 1, 0),
                *(Block(c_in, c_in // 2, 2, 1) for c_in in channels[:-1]),
                LastBlock(ngf, 3),
            ]
        )
        for module in self.modules():  # the initialization of the DCGAN paper
            if isinstance(module, nn.ConvTranspose2d):
                nn.init.normal_(module.weight, 0.0, 0.02)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1.0, 0.02)
            elif isinstance(module, nn.Embedding):  # of length 1, as a one-hot code: if longer, G ignores the latent
                nn.init.normal_(module.weight, 0.0, nz**-0.5)

    def draw(self, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        return {"z": torch.randn(count, self.nz, generator=generator)}

    def enter(self, state: State) -> dict[str, Tensor]:
        z = state["z"]
        return {**state, "h": torch.cat([z, self.embed(state["y"])], 1) if self.embed else z}


class Discriminator(nn.Module):
    """The mirror image of the generator: images (N, 3, H, W) in (-1, 1), and classes (N,) -> one logit each (N,).

    A conditional discriminator also sees one map for every class: ones for the class of the image, zeros for the others
    (Mirza and Osindero, *Conditional Generative Adversarial Nets*, 2014).
    """

    def __init__(self, ndf: int = 64, *, size: int = 32, classes: int | None = None) -> None:
        super().__init__()
        self.classes = classes or 0
        layers: list[nn.Module] = [nn.Conv2d(3 + self.classes, ndf, 4, 2, 1, bias=False), nn.LeakyReLU(0.2)]
        width = ndf
        while size > 8:
            layers += [nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False), nn.BatchNorm2d(2 * width), nn.LeakyReLU(0.2)]
            width, size = 2 * width, size // 2
        self.body = nn.Sequential(*layers)  # to (N, width, 4, 4)
        self.head = nn.Conv2d(width, 1, 4, 1, 0, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0.0, 0.02)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1.0, 0.02)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        if self.classes:
            assert labels is not None
            maps = one_hot(labels, self.classes).to(images)[:, :, None, None]
            images = torch.cat([images, maps.expand(-1, -1, *images.shape[2:])], 1)
        return self.head(self.body(images)).flatten()
