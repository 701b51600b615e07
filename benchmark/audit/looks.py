"""Whether a picture looks like one image of a folder more than like the others, by LPIPS."""

import io
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import to_tensor

from benchmark.audit.verdicts import FEWEST, OTHERS
from benchmark.scoring.lpips import Lpips
from benchmark.tasks.controls import alike
from victims.data.base import ImageData


@dataclass(frozen=True)
class Looks:
    """The images of an audit, as LPIPS sees them.

    Attributes:
        data: the folder.
        lpips: on a backbone that may be missing; then nothing is said to look alike.
    """

    data: ImageData
    lpips: Lpips

    def nearest(self, image: str, picture: bytes) -> bool:
        """Whether none of the others is nearer to the picture (PNG) than the image with this id; its copies aside.

        The others are evenly spaced in the folder; where they are fewer than `FEWEST`, this is false.
        """
        truth = self.truth(image)
        if not self.lpips.takes(truth[None]):
            return False
        others, _ = self.data.batch(self.data.readable(range(0, len(self.data), -(-len(self.data) // OTHERS))))
        compared = torch.cat([truth[None], others[~alike(truth, others)]])
        if len(compared) < FEWEST:
            return False
        rebuilt = pixels(picture)
        own, *rest = self.lpips(rebuilt.expand_as(compared), compared).tolist()
        return own <= min(rest, default=own)

    def truth(self, image: str) -> Tensor:
        """(C, H, W) in [0, 1]."""
        return self.data[self.data.ids.index(image)][0]


def pixels(picture: bytes) -> Tensor:
    """A picture (PNG) as (C, H, W) in [0, 1]."""
    return to_tensor(Image.open(io.BytesIO(picture)))
