"""BF-CNN: Mohan, Kadkhodaie, Simoncelli, Fernandez-Granda, *Robust and Interpretable Blind Image Denoising*, 2020."""

from itertools import pairwise
from pathlib import Path

from torch import Tensor, nn

from priors.base import Denoiser
from victims.checkpoints import expected, tensors

DEPTH = 20  # convolutions


class BFCNN(Denoiser):
    """BF-CNN, a denoiser of color images of any size without bias, which finds out by itself how strong the noise is.

    The network returns the noise. Nothing in it is added, so that an image of twice the contrast with twice the noise
    gives twice the image: it goes beyond the noise that it was trained on.
    """

    published = {
        "bf_cnn": {
            "folder": "denoisers",
            "file": "bf_cnn_bsd300_color_0to100.pt",
            "size": None,
            "trained_on": "BSD300, color, sigma 0 to 100/255",
            "license": "none stated",
            "source": "https://github.com/LabForComputationalVision/universal_inverse_problem",
            "sha256": "24254895bb92d929f6f8365e29fb89b41085685d0b1ee3759a5999c5617c1bab",
        },
    }

    def __init__(self) -> None:
        super().__init__()
        widths = [3, *[64] * (DEPTH - 1), 3]
        self.layers = nn.ModuleList(
            nn.Conv2d(c_in, c_out, 3, padding=1, bias=False) for c_in, c_out in pairwise(widths)
        )

    def forward(self, images: Tensor, sigma: float | Tensor) -> Tensor:
        """Blind: sigma is not used."""
        h = images
        for layer in self.layers[:-1]:
            h = layer(h).relu()
        return images - self.layers[-1](h)

    @classmethod
    def load_public(cls, path: Path) -> "BFCNN":
        """The authors' layout, in which all but the first and the last convolution are followed by a normalization.

        It is a factor gamma / sd for each channel, and becomes a part of the weights.
        """
        prior, public = cls(), tensors(path)
        with expected("a BF-CNN of 20 layers for color", path):
            weights = {f"layers.{k}.weight": public.pop(f"conv_layers.{k}.weight") for k in range(DEPTH)}
            for k in range(DEPTH - 2):
                factor = public.pop(f"gammas.{k}") / public.pop(f"running_sd.{k}")
                weights[f"layers.{k + 1}.weight"] = weights[f"layers.{k + 1}.weight"] * factor.transpose(0, 1)
            prior.load_state_dict({**weights, **public})  # refuses what is left
        prior.trained_on = path.stem
        return prior.eval().requires_grad_(False)
