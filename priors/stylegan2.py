"""StyleGAN2, configuration F (Karras et al., *Analyzing and Improving the Image Quality of StyleGAN*, 2020)."""

from functools import cached_property
from math import sqrt
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d, leaky_relu, linear

from priors.base import Generator, State
from priors.stylegan2_layout import convert
from victims.checkpoints import expected, tensors
from victims.errors import InputError

SIZES = (32, 64, 128, 256, 512, 1024)
FITTED_ON = 10_000  # mapped latents, for the Gaussian start
LR_MAPPING = 0.01  # the learning rate of the mapping network, relative to the rest


class FIR(nn.Module):
    """The low-pass filter [1, 3, 3, 1] along both axes, of gain 4 for the zeros that doubling puts between pixels."""

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 4
        self.register_buffer("kernel", taps.outer(taps), persistent=False)

    def blur(self, h: Tensor) -> Tensor:
        """What a transposed 3x3 convolution gave, zeros around it: (N, C, 2S + 1, 2S + 1) -> (N, C, 2S, 2S)."""
        channels = h.shape[1]
        return conv2d(h, self.kernel.expand(channels, 1, 4, 4), padding=1, groups=channels)

    def upsample(self, h: Tensor) -> Tensor:
        """Zeros between the pixels, then the filter: (N, C, S, S) -> (N, C, 2S, 2S)."""
        channels = h.shape[1]
        return conv_transpose2d(h, self.kernel.expand(channels, 1, 4, 4), stride=2, padding=1, groups=channels)


def activate(h: Tensor) -> Tensor:
    """LeakyReLU that keeps the second moment of a standard normal near 1."""
    return sqrt(2) * leaky_relu(h, 0.2)


class ModulatedConv(nn.Module):
    """A convolution whose weight is scaled by the style per input channel, then to unit length per output channel.

    Equivalently (paper, section 2.2), the input is scaled by the style and the output by the length. So images share
    one convolution, and under `vmap` each image can have its own weight.
    """

    def __init__(
        self, c_in: int, c_out: int, kernel: int, style_dim: int, *, up: bool = False, demodulate: bool = True
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(c_out, c_in, kernel, kernel))
        self.modulation_weight = nn.Parameter(torch.randn(c_in, style_dim))
        self.modulation_bias = nn.Parameter(torch.ones(c_in))
        self.fir = FIR() if up else None
        self.demodulate = demodulate

    def forward(self, h: Tensor, w: Tensor) -> Tensor:
        """Features (N, C, S, S), latents (N, style_dim) -> (N, C', S, S), twice the side where `up`."""
        weight = self.weight / sqrt(self.weight[0].numel())
        style = linear(w, self.modulation_weight / sqrt(w.shape[1]), self.modulation_bias)
        h = h * style[..., None, None]
        if self.fir:
            h = self.fir.blur(conv_transpose2d(h, weight.transpose(0, 1), stride=2))
        else:
            h = conv2d(h, weight, padding=weight.shape[-1] // 2)
        if self.demodulate:
            squared_length = linear(style.square(), weight.square().sum((2, 3)))
            h = h * (squared_length + 1e-8).rsqrt()[..., None, None]
        return h


class StyledConv(nn.Module):
    """Modulated 3x3 convolution, noise, bias, activation."""

    def __init__(self, c_in: int, c_out: int, style_dim: int, *, up: bool) -> None:
        super().__init__()
        self.conv = ModulatedConv(c_in, c_out, 3, style_dim, up=up)
        self.strength = nn.Parameter(torch.zeros(1))
        self.bias = nn.Parameter(torch.zeros(c_out))

    def forward(self, h: Tensor, w: Tensor, noise: Tensor) -> Tensor:
        return activate(self.conv(h, w) + self.strength * noise + self.bias[:, None, None])


class ToRGB(nn.Module):
    """Modulated 1x1 convolution to color."""

    def __init__(self, c_in: int, style_dim: int) -> None:
        super().__init__()
        self.conv = ModulatedConv(c_in, 3, 1, style_dim, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(1, 3, 1, 1))

    def forward(self, h: Tensor, w: Tensor) -> Tensor:
        return self.conv(h, w) + self.bias


def convolutions(k: int) -> range:
    """The numbers of block k's convolutions in the generator: one in block 0, then two in each."""
    return range(max(0, 2 * k - 1), 2 * k + 1)


class Block(nn.Module):
    """One resolution: an up-convolution (not in block 0), a convolution, and their contribution to the colors.

    Convolution i of the generator takes noise i and row i of W+. The colors of a block take the next row, which is also
    that of the first convolution of the next block.
    """

    def __init__(self, k: int, c_in: int, c_out: int, style_dim: int) -> None:
        super().__init__()
        self.layers = convolutions(k)
        ups = [StyledConv(c_in, c_out, style_dim, up=True)] if k else []
        self.convs = nn.ModuleList([*ups, StyledConv(c_out, c_out, style_dim, up=False)])
        self.to_rgb = ToRGB(c_out, style_dim)
        self.fir = FIR()

    def forward(self, state: State) -> dict[str, Tensor]:
        h, w = state["h"], state["w"]
        for i, conv in zip(self.layers, self.convs, strict=True):
            h = conv(h, w[:, i], state[f"noise{i}"])
        rgb = self.to_rgb(h, w[:, self.layers.stop])
        return {**state, "h": h, "skip": rgb + self.fir.upsample(state["skip"]) if "skip" in state else rgb}


class LastBlock(Block):
    """Its colors are the image, scaled from (-1, 1) to (0, 1)."""

    def forward(self, state: State) -> dict[str, Tensor]:
        state = super().forward(state)
        return {**state, "h": (state["skip"] + 1) / 2}


class StyleGAN2(Generator):
    """StyleGAN2, the face generator of GIFD, GIAS and others, from 32 to 1024 px.

    W+ and noise maps -> 4x4 -> 8x8 -> ... -> `size`; block k works at the side 2^(k + 2).

    Inputs: `w` (N, L, style_dim) with L = 2 log2(size) - 2, `noise0` (N, 1, 4, 4), and two noise maps for
    each further side. Between blocks: `h`, and `skip`, the colors so far. The output is not bounded: a few pixels
    lie outside [0, 1], and clamping them here would stop their gradients.

    The mapping network is only used in `draw`. Its weights are buffers, so that a search of the parameters, with a copy
    for every image, has no variables that the image does not depend on.

    Args:
        size: side of the images.
        channel_multiplier: 2 is configuration F; 32, 64, ... channels at the sides 1024, 512, ...
        width: most channels of any side.
        style_dim: length of a latent.
        layers_mapping: depth of the mapping network.

    Attributes:
        fit: mean and standard deviation, (2, style_dim), of the Gaussian start, where a file states them.
    """

    published = {
        "stylegan2-ffhq-256": {
            "file": "550000.pt",
            "size": 256,
            "trained_on": "FFHQ, 256 px",
            "license": "not stated with the weights",
            "source": 'https://github.com/rosinality/stylegan2-pytorch ("Pretrained Checkpoints")',
            "sha256": None,
        },
        "stylegan2-ffhq-1024": {
            "file": "stylegan2-ffhq-config-f.pt",
            "size": 1024,
            "trained_on": "FFHQ, 1024 px",
            "license": "Nvidia Source Code License-NC",
            "source": "https://github.com/NVlabs/stylegan2 (stylegan2-ffhq-config-f.pkl), by convert_weight.py of "
            "https://github.com/rosinality/stylegan2-pytorch",
            "sha256": None,  # every conversion writes another file
            "options": {"fit": "stylegan2_ffhq_gaussian_fit.pt"},  # GIFD's
        },
    }
    bounded = False
    latents = ("w",)
    mapping_weight: Tensor
    mapping_bias: Tensor
    fit: Tensor | None

    def __init__(
        self,
        *,
        size: int = 256,
        channel_multiplier: float = 2,
        width: int = 512,
        style_dim: int = 512,
        layers_mapping: int = 8,
    ) -> None:
        super().__init__()
        if size not in SIZES:
            raise InputError(f"StyleGAN2 makes images of {', '.join(map(str, SIZES))} px, not {size}.")
        self.image_shape, self.style_dim = (3, size, size), style_dim
        last = size.bit_length() - 3
        self.noises = tuple(f"noise{i}" for i in range(convolutions(last).stop))
        self.rows = len(self.noises) + 1  # of W+: one for every convolution, and one for the last colors
        channels = [min(width, int(16_384 * channel_multiplier) >> (k + 2)) for k in range(last + 1)]
        self.const = nn.Parameter(torch.randn(1, channels[0], 4, 4))
        self.blocks = nn.ModuleList(
            (LastBlock if k == last else Block)(k, channels[max(0, k - 1)], channels[k], style_dim)
            for k in range(last + 1)
        )
        self.register_buffer("mapping_weight", torch.randn(layers_mapping, style_dim, style_dim) / LR_MAPPING)
        self.register_buffer("mapping_bias", torch.zeros(layers_mapping, style_dim))
        self.register_buffer("fit", None)

    def map(self, z: Tensor) -> Tensor:
        """Standard normal latents (N, style_dim) -> W (N, style_dim); computed on the weights' device."""
        w = z.to(self.mapping_weight)
        w = w * (w.square().mean(1, keepdim=True) + 1e-8).rsqrt()
        for weight, bias in zip(self.mapping_weight, self.mapping_bias, strict=True):
            w = activate(linear(w, weight * (LR_MAPPING / sqrt(self.style_dim)), bias * LR_MAPPING))
        return w.to(z)

    @cached_property
    def mapped(self) -> Tensor:
        """Many mapped latents, (FITTED_ON, style_dim), always the same."""
        return self.map(torch.randn(FITTED_ON, self.style_dim, generator=torch.Generator().manual_seed(0)))

    @cached_property
    def gaussian(self) -> Tensor:
        """Mean and standard deviation, (2, style_dim), of mapped latents whose last LeakyReLU is undone, or `fit`."""
        if self.fit is not None:
            return self.fit.to("cpu", torch.float32)
        undone = leaky_relu(self.mapped, 5.0)
        return torch.stack([undone.mean(0), undone.std(0)])

    def center(self, state: State) -> dict[str, Tensor]:
        """The mean latent in every row of W+."""
        return {"w": self.mapped.mean(0).to(state["w"]).expand_as(state["w"])}

    def draw(self, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        """The same mapped latent in every row of W+, as in GIAS."""
        z = torch.randn(count, self.style_dim, generator=generator)
        return {"w": self.map(z)[:, None].repeat(1, self.rows, 1), **self.draw_noises(count, generator)}

    def draw_gaussian(self, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Every row of W+ by itself, as in GIFD: LeakyReLU(std n + mean), n standard normal."""
        mean, std = self.gaussian
        n = torch.randn(count, self.rows, self.style_dim, generator=generator)
        return {"w": leaky_relu(std * n + mean, 0.2), **self.draw_noises(count, generator)}

    def draw_noises(self, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        sides = {name: 2 ** ((i + 1) // 2 + 2) for i, name in enumerate(self.noises)}
        return {name: torch.randn(count, 1, side, side, generator=generator) for name, side in sides.items()}

    def enter(self, state: State) -> dict[str, Tensor]:
        return {**state, "h": self.const.expand(len(state["w"]), -1, -1, -1)}

    def step(self, block: nn.Module, state: State) -> dict[str, Tensor]:
        return block(state)

    def features(self, k: int) -> tuple[str, ...]:
        """h (not before block 0), W+ and, as in GIFD's code, the noise maps with index < 5 + 2k that the image still
        depends on.
        """
        return (*(("h",) if k else ()), "w", *self.noises[convolutions(k).start : 5 + 2 * k])

    @classmethod
    def load_public(cls, path: Path, *, fit: str = "") -> "StyleGAN2":
        """`.pt` with `g_ema`, or the same keys as `.safetensors`.

        The file does not say what it was trained on: its name is used instead.

        Args:
            fit: a file in the same folder with `mean` and `std`, (style_dim,) each, of the Gaussian start. Where there
                is none, they are computed from mapped latents.

        Raises:
            InputError: no file, code in it, not such a generator, or not such a fit.
        """
        public = tensors(path)
        with expected("a StyleGAN2 generator in the layout of the PyTorch port", path):
            options, weights = convert(public if path.suffix == ".safetensors" else public["g_ema"])
            prior = cls(**options)
            prior.load_state_dict(weights)
        if fit and (beside := path.with_name(fit)).is_file():
            found = tensors(beside)
            with expected(f"a Gaussian fit, mean and std of {prior.style_dim} numbers each", beside):
                prior.fit = torch.stack([found["mean"], found["std"]]).view(2, prior.style_dim)
        prior.trained_on = path.stem
        return prior.eval().requires_grad_(False)
