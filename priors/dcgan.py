"""DCGAN (Radford et al., 2016), as GIAS and GIML use; their code's own, for 32 px, is `priors/dcgan_gias.py`."""

import re
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from priors.base import Generator, State
from victims.checkpoints import expected, tensors
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
    """DCGAN: small, for 32 or 64 px, with or without classes.

    Latent 100 -> 4x4 -> 8x8 -> ... -> `size`, each block with half the channels, the last but one `ngf`.

    Args:
        nz: length of the latent.
        ngf: channels before the last block.
        size: side of the images, 32 or 64.
        classes: their number for a conditional generator, whose further input is a learned embedding of the class, as
            long as the latent.
    """

    published = {
        "dcgan_digiface64": {
            "file": "dcgan_digiface64.safetensors",
            "size": 64,
            "trained_on": "DigiFace-1M (synthetic faces), 64 px",
            "license": "MIT",
            "source": "https://pypi.org/project/gan-face-generate/1.1.1/ (its weights.tar as .safetensors with the "
            "names of this suite; PRIOR=dcgan:weights.tar takes it as it is)",
            "sha256": "3d1f5a33d4302f508a5a20b4160106d482135a19a31b594609f19eae86f6afc4",
        },
    }
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

    @classmethod
    def load_public(cls, path: Path) -> "DCGAN":
        """A state dict of PyTorch's tutorial on DCGAN (`main.0.weight`, ...), or under the names of this class.

        The file does not say what it was trained on: its name is used instead.

        Raises:
            InputError: no file, code in it, or other tensors than these.
        """
        public = tensors(path)
        with expected("a DCGAN without classes, of 32 or 64 px, in the layout of PyTorch's tutorial", path):
            public = public.get("netG_state_dict", public)
            weights = {renamed(name): tensor for name, tensor in public.items()}
            last = len({name.split(".")[1] for name in weights}) - 1
            weights = {name.replace(f".{last}.0.", f".{last}.conv."): tensor for name, tensor in weights.items()}
            first, colors = weights["blocks.0.0.weight"], weights[f"blocks.{last}.conv.weight"]
            prior = cls(nz=len(first), ngf=len(colors), size=4 * 2**last)
            prior.load_state_dict(weights)
        prior.trained_on = path.stem
        return prior.eval().requires_grad_(False)


def renamed(name: str) -> str:
    """The place of a tensor in one sequence of layers, `main` -> in blocks of three."""
    return re.sub(r"^main\.(\d+)", lambda m: f"blocks.{int(m[1]) // 3}.{int(m[1]) % 3}", name)


class Discriminator(nn.Module):
    """The mirror image of the generator: images (N, 3, H, W) in (-1, 1), and classes (N,) -> one logit each (N,).

    A conditional discriminator also sees one map for every class: ones for the class of the image, zeros for the others
    (Mirza and Osindero, *Conditional Generative Adversarial Nets*, 2014).
    """

    def __init__(self, *, size: int = 32, classes: int | None = None) -> None:
        super().__init__()
        self.classes = classes or 0
        width = 64
        layers: list[nn.Module] = [nn.Conv2d(3 + self.classes, width, 4, 2, 1, bias=False), nn.LeakyReLU(0.2)]
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
