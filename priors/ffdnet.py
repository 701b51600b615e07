"""FFDNet: Zhang, Zuo, Zhang, *FFDNet: Toward a Fast and Flexible Solution for CNN-Based Image Denoising*, 2018."""

from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, pixel_shuffle, pixel_unshuffle

from priors.base import Denoiser
from victims.checkpoints import expected, tensors


class FFDNet(Denoiser):
    """FFDNet, a denoiser of color images of any size that is told how strong the noise is.

    Every 2x2 pixels become the channels of one, so that the convolutions work at half the side, with sigma as one more
    channel.

    Args:
        depth: convolutions; between them is ReLU.
        width: their channels.
        residual: the network f gives the noise in units of sigma, D(x) = x + sigma f(x); as published it gives D(x).
    """

    published = {
        "ffdnet": {
            "folder": "denoisers",
            "file": "ffdnet_color.pth",
            "size": None,
            "trained_on": "BSD, Waterloo Exploration and ImageNet (a part), color",
            "license": "MIT",
            "source": "https://github.com/cszn/KAIR (model_zoo, ffdnet_color.pth)",
            "sha256": "286f04f7e3a20254c067ba95efb5d3339f4fc8a09a365a93cd469184d4cdb279",
        },
    }
    sigma_max = 75 / 255

    def __init__(self, *, depth: int = 12, width: int = 96, residual: bool = False) -> None:
        super().__init__()
        self.residual = residual
        widths = [4 * 3 + 1, *[width] * (depth - 1), 4 * 3]
        layers: list[nn.Module] = []
        for c_in, c_out in pairwise(widths):
            layers += [nn.Conv2d(c_in, c_out, 3, padding=1), nn.ReLU()]
        self.model = nn.Sequential(*layers[:-1])

    def forward(self, images: Tensor, sigma: float | Tensor) -> Tensor:
        height, width = images.shape[-2:]
        h = pixel_unshuffle(pad(images, (0, width % 2, 0, height % 2), mode="replicate"), 2)
        sigma = (sigma.to(h) if isinstance(sigma, Tensor) else h.new_full((1,), sigma)).reshape(-1, 1, 1, 1)
        f = self.model(torch.cat([h, sigma.expand(len(h), 1, *h.shape[-2:])], 1))
        f = pixel_shuffle(f, 2)[..., :height, :width]
        return images + sigma * f if self.residual else f

    @classmethod
    def load_public(cls, path: Path) -> "FFDNet":
        """A state dict in KAIR's layout, of which the tensors tell depth and width."""
        public = tensors(path)
        with expected("an FFDNet for color in KAIR's layout", path):
            prior = cls(depth=len(public) // 2, width=len(public["model.0.weight"]))
            prior.load_state_dict(public)
        prior.trained_on = path.stem
        return prior.eval().requires_grad_(False)
