"""The untrained U-Nets among which GI-NAS chooses, which differ in skip connections and upsampling (its code)."""

from collections.abc import Callable
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import interpolate

from victims.modules import build

SCALES = 5  # of the encoder and of the decoder: H, H/2, ..., H/16; the narrowest map has H/32
SLOPE = 0.2  # of every LeakyReLU
CHUNKS = 4  # of channels that `split_sum` adds up

RESIZES = ("bilinear", "bicubic", "nearest", "shuffle", "shuffle_last")
MIXES = ("conv", "transposed", "split_sum", "separable", "depthwise", "none")
KERNELS = (1, 3, 5, 7)
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "none": nn.Identity,
    "relu": nn.ReLU,
    "leaky_relu": lambda: nn.LeakyReLU(SLOPE),
}


class Upsampling(NamedTuple):
    """How a map is doubled: resized, and its channels mixed by a convolution, each with this activation after it."""

    resize: str
    mix: str
    kernel: int
    activation: str


def possible(kind: Upsampling) -> bool:
    """Whether the channels fit, and the kernel means anything."""
    shuffles = kind.resize in ("shuffle", "shuffle_last")
    return not (shuffles and kind.mix in ("depthwise", "none")) and (kind.mix != "none" or kind.kernel == KERNELS[0])


UPSAMPLINGS = tuple(filter(possible, map(Upsampling._make, product(RESIZES, MIXES, KERNELS, ACTIVATIONS))))


class Resize(nn.Module):
    """Doubles height and width, as torch's `interpolate`, by matrices: its gradient is deterministic on CUDA too."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.mode = mode

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = (self.matrix(torch.eye(side, device=x.device, dtype=x.dtype)) for side in x.shape[-2:])
        return rows @ x @ columns.T

    def matrix(self, eye: Tensor) -> Tensor:
        """(2 side, side), from the identity (side, side)."""
        return interpolate(eye[None, :, :, None], scale_factor=(2, 1), mode=self.mode)[0, :, :, 0].T


class SplitSum(nn.Module):
    """The sum of the channels' four quarters."""

    def forward(self, x: Tensor) -> Tensor:
        return x.unflatten(1, (CHUNKS, -1)).sum(1)


def upsampling(kind: Upsampling, C: int) -> nn.Sequential:
    """(B, C, h, w) -> (B, C, 2h, 2w)."""
    act = ACTIVATIONS[kind.activation]
    if kind.resize == "shuffle_last":
        return nn.Sequential(*mix(kind, C, 4 * C), nn.PixelShuffle(2), act())
    if kind.resize == "shuffle":
        return nn.Sequential(nn.PixelShuffle(2), act(), *mix(kind, C // 4, C))
    return nn.Sequential(Resize(kind.resize), act(), *mix(kind, C, C))


def mix(kind: Upsampling, c_in: int, c_out: int) -> list[nn.Module]:
    """(B, c_in, h, w) -> (B, c_out, h, w)."""
    k = kind.kernel

    def same(c_in: int, groups: int = 1, c_out: int = c_out) -> nn.Module:
        return nn.Conv2d(c_in, c_out, k, padding=k // 2, groups=groups, bias=False)

    layers: list[nn.Module]
    match kind.mix:
        case "conv":
            layers = [same(c_in)]
        case "transposed":
            layers = [nn.ConvTranspose2d(c_in, c_out, k, padding=k // 2, bias=False)]
        case "split_sum":
            layers = [SplitSum(), same(c_in // CHUNKS)]
        case "separable":
            layers = [same(c_in, groups=c_in, c_out=c_in), nn.Conv2d(c_in, c_out, 1, bias=False)]
        case "depthwise":
            layers = [same(c_in, groups=c_out)]
        case _:
            return []
    return [*layers, ACTIVATIONS[kind.activation]()]


def conv(c_in: int, c_out: int, kernel: int = 3, stride: int = 1) -> list[nn.Module]:
    """With batch norm, by the batch at hand, and LeakyReLU."""
    convolution = nn.Conv2d(c_in, c_out, kernel, stride=stride, padding=kernel // 2, bias=False)
    return [convolution, nn.BatchNorm2d(c_out, track_running_stats=False), nn.LeakyReLU(SLOPE)]


class SkipUNet(nn.Module):
    """Noise of the images' shape -> images in [0, 1].

    Where `skips[i][j]`, the encoder's map of scale j (0 is the noise itself) is added to the decoder's of scale i: by a
    1x1 convolution if i = j, else scale by scale, by strided convolutions down or by the upsampling up; all paths
    between two neighboring scales have one layer. Batch norm couples the images of a batch.

    Convolutions before batch norm and those of upsamplings have no bias: batch norm takes it out again, so that its
    gradient is rounding alone, of whose sign a step would be made.
    """

    def __init__(self, *, channels: int, width: int, skips: Tensor, kind: Upsampling) -> None:
        """
        Args:
            channels: of the images.
            width: channels of every map, a multiple of 16.
            skips: (5, 5), true or false.
            kind: of every upsampling.
        """
        super().__init__()
        self.skips = skips.tolist()
        C, inputs = width, [channels, *[width] * (SCALES - 1)]  # of the encoder's maps
        self.encoder = nn.ModuleList(nn.Sequential(*conv(c, C, stride=2), *conv(C, C)) for c in inputs)
        self.across = nn.ModuleList(nn.Sequential(*conv(c, C, kernel=1)) for c in inputs)
        self.down = nn.ModuleList(nn.Sequential(*conv(c, C, stride=2)) for c in inputs[:-1])
        self.up = nn.ModuleList(upsampling(kind, C) for _ in inputs[:-1])
        self.enlarge = nn.ModuleList(upsampling(kind, C) for _ in inputs)
        self.decoder = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(C, track_running_stats=False), *conv(C, C), *conv(C, C), *conv(C, C, kernel=1))
            for _ in inputs
        )
        self.to_pixels = nn.Conv2d(C, channels, 1)

    def forward(self, z: Tensor) -> Tensor:
        """(B, channels, H, W) -> the same shape; H and W are multiples of 32."""
        e = [z]
        for encode in self.encoder:
            e.append(encode(e[-1]))
        x = e.pop()
        for i in reversed(range(SCALES)):
            x = self.enlarge[i](x)
            for j in range(SCALES):
                if self.skips[i][j]:
                    x = x + self.skip(e[j], i, j)
            x = self.decoder[i](x)
        return self.to_pixels(x).sigmoid()

    def skip(self, h: Tensor, i: int, j: int) -> Tensor:
        """From scale j to scale i."""
        if i == j:
            return self.across[i](h)
        for scale in range(j, i):
            h = self.down[scale](h)
        for scale in reversed(range(i, j)):
            h = self.up[scale](h)
        return h


def draw_unet(*, channels: int, width: int, seed: int) -> SkipUNet:
    """A network whose every skip is there with probability 1/2, and of any upsampling; with its initial parameters."""
    generator = torch.Generator().manual_seed(seed)
    skips = torch.rand(SCALES, SCALES, generator=generator) < 0.5
    kind = UPSAMPLINGS[int(torch.randint(len(UPSAMPLINGS), (), generator=generator))]
    return build(SkipUNet, channels=channels, width=width, skips=skips, kind=kind, seed=seed)


def flatten(net: nn.Module) -> Tensor:
    """All parameters as one vector (P,)."""
    return torch.cat([p.detach().flatten() for p in net.parameters()])


def generate(net: nn.Module, w: Tensor, z: Tensor) -> Tensor:
    """Images of z by the network with parameters w: `flatten` undone; entries beyond P are not used."""
    shapes = {name: p.shape for name, p in net.named_parameters()}
    parts = w[: sum(map(torch.Size.numel, shapes.values()))].split([shape.numel() for shape in shapes.values()])
    return functional_call(net, {n: p.view(shapes[n]) for n, p in zip(shapes, parts, strict=True)}, (z,))
