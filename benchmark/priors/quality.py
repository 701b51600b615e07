"""How close a generator's images are to real ones: KID and FID on features of the LPIPS backbone."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance
from tqdm import tqdm

from priors.base import Generator
from victims.data.base import ImageData

NET = "SqueezeNet 1.1 (ImageNet), a fifth of the mean over the last feature map, images at 128 px"
SIDE = 128
SCALE = 5  # root mean square of the features of photographs, so that the constant 1 in KID's kernel matters
BATCH = 50
SUBSETS = 100
LARGEST_SUBSET = 1000  # both as in the paper of KID (Binkowski et al., 2018)
LEAST = 4  # images: a KID needs subsets of two, which are half of a set


class Features(nn.Module):
    """Images (N, 3, H, W) in [0, 1] -> (N, 512), by the body `squeezenet1_1().features`."""

    mean: Tensor
    std: Tensor

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406])[:, None, None])
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225])[:, None, None])

    def forward(self, images: Tensor) -> Tensor:
        images = interpolate(images, size=(SIDE, SIDE), mode="bilinear", antialias=True)
        return self.body((images - self.mean) / self.std).mean((2, 3)) / SCALE


@dataclass(frozen=True)
class Distance:
    """Between two sets of images: KID, its standard deviation over random subsets, and FID; 0: same distribution."""

    kid: float
    kid_std: float
    fid: float


def distance(real: Tensor, fake: Tensor) -> Distance:
    """The distance of features (N, D) and (M, D), N and M at least `LEAST`.

    KID's subsets are half of the smaller set, at most 1000. FID decreases as the sets grow; KID has no such bias.
    """
    given: Any = nn.Identity()
    given.num_features = real.shape[1]  # FrechetInceptionDistance reads it
    subset = min(LARGEST_SUBSET, len(real) // 2, len(fake) // 2)
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")  # about the memory that the features take
        torch.manual_seed(0)
        kid = KernelInceptionDistance(given, subsets=SUBSETS, subset_size=subset)
        fid = FrechetInceptionDistance(given)
        for metric in (kid, fid):
            metric.update(real.double(), real=True)  # double: both are small differences of large sums
            metric.update(fake.double(), real=False)
        mean, std = kid.compute()
    return Distance(mean.item(), std.item(), fid.compute().item())


def photographs(data: ImageData) -> Iterator[Tensor]:
    """All readable images of a split, in batches (N, 3, H, W)."""
    for start in range(0, len(data), BATCH):
        yield data.batch(data.readable(range(start, min(start + BATCH, len(data)))))[0]


def samples(prior: Generator, count: int, seed: int) -> Iterator[Tensor]:
    """`count` images of the prior in batches (N, 3, H, W) in [0, 1]; a conditional prior gets its classes in turn."""
    generator = torch.Generator().manual_seed(seed)
    device = next(prior.parameters()).device
    for start in range(0, count, BATCH):
        stop = min(start + BATCH, count)
        state = prior.draw(stop - start, generator)
        if prior.classes:
            state["y"] = torch.arange(start, stop) % prior.classes
        yield prior({name: tensor.to(device) for name, tensor in state.items()}).clamp(0, 1)


@torch.no_grad()
def features(net: Features, batches: Iterator[Tensor], count: int, what: str) -> Tensor:
    """The features of `count` images in batches: (count, 512), on the CPU."""
    bar = tqdm(batches, desc=what, total=-(-count // BATCH), leave=False)
    return torch.cat([net(images.to(net.mean.device)).cpu() for images in bar])
