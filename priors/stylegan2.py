"""StyleGAN2, configuration F (Karras et al., *Analyzing and Improving the Image Quality of StyleGAN*, 2020)."""

import re
from collections.abc import Mapping
from functools import cached_property
from math import sqrt
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d, leaky_relu, linear

from priors.base import Prior, State
from victims.checkpoints import expected, tensors
from victims.errors import InputError

SIZES = (32, 64, 128, 256, 512, 1024)
FITTED_ON = 10_000  # mapped latents, for the Gaussian start
LR_MAPPING = 0.01  # the learning rate of the mapping network, relative to the rest

Start = Literal["mapped", "gaussian"]


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


class StyleGAN2(Prior):
    """StyleGAN2, the face generator of GIFD, GIAS and others, from 32 to 1024 px.

    W+ and noise maps -> 4x4 -> 8x8 -> ... -> `size`; block k works at the side 2^(k + 2).

    Inputs: `w` (N, L, style_dim) with L = 2 log2(size) - 2, `noise0` (N, 1, 4, 4), and two noise maps for
    each further side. Between blocks: `h`, and `skip`, the colors so far. The output is not bounded: a few pixels
    lie outside [0, 1], and clamping them here would stop their gradients.

    The mapping network is only used in `draw`. Its weights are buffers, so that a search of the parameters, with a copy
    for every image, has no variables that the image does not depend on.

    Args:
        size: side of the images. channel_multiplier: 2 is configuration F; 32, 64, ... channels at the sides 1024, 512,
        ... width: most channels of any side. style_dim: length of a latent. layers_mapping: depth of the mapping
        network. start: how `draw` makes W+. mapped (GIAS): the same mapped latent in every row. gaussian (GIFD): every
        row from a
            Gaussian that is fitted to mapped latents before their last LeakyReLU.
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
        },
    }
    latents = ("w",)
    mapping_weight: Tensor
    mapping_bias: Tensor

    def __init__(
        self,
        *,
        size: int = 256,
        channel_multiplier: float = 2,
        width: int = 512,
        style_dim: int = 512,
        layers_mapping: int = 8,
        start: Start = "mapped",
    ) -> None:
        super().__init__()
        if size not in SIZES:
            raise InputError(f"StyleGAN2 makes images of {', '.join(map(str, SIZES))} px, not {size}.")
        self.image_shape, self.style_dim, self.start = (3, size, size), style_dim, start
        last = size.bit_length() - 3
        self.noises = tuple(f"noise{i}" for i in range(convolutions(last).stop))
        channels = [min(width, int(16_384 * channel_multiplier) >> (k + 2)) for k in range(last + 1)]
        self.const = nn.Parameter(torch.randn(1, channels[0], 4, 4))
        self.blocks = nn.ModuleList(
            (LastBlock if k == last else Block)(k, channels[max(0, k - 1)], channels[k], style_dim)
            for k in range(last + 1)
        )
        self.register_buffer("mapping_weight", torch.randn(layers_mapping, style_dim, style_dim) / LR_MAPPING)
        self.register_buffer("mapping_bias", torch.zeros(layers_mapping, style_dim))

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
    def gaussian(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, (style_dim,) each, of mapped latents with the last LeakyReLU undone."""
        undone = leaky_relu(self.mapped, 5.0)
        return undone.mean(0), undone.std(0)

    def center(self, state: State) -> dict[str, Tensor]:
        """The mean latent in every row of W+."""
        return {"w": self.mapped.mean(0).to(state["w"]).expand_as(state["w"])}

    def draw(self, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        layers = convolutions(len(self.blocks) - 1).stop
        if self.start == "mapped":
            z = torch.randn(count, self.style_dim, generator=generator)
            w = self.map(z)[:, None].repeat(1, layers + 1, 1)
        else:
            mean, std = self.gaussian
            w = leaky_relu(std * torch.randn(count, layers + 1, self.style_dim, generator=generator) + mean, 0.2)
        sides = [2 ** ((i + 1) // 2 + 2) for i in range(layers)]
        return {
            "w": w,
            **{f"noise{i}": torch.randn(count, 1, s, s, generator=generator) for i, s in enumerate(sides)},
        }

    def enter(self, state: State) -> dict[str, Tensor]:
        return {**state, "h": self.const.expand(len(state["w"]), -1, -1, -1)}

    def step(self, block: nn.Module, state: State) -> dict[str, Tensor]:
        return block(state)

    def features(self, k: int) -> tuple[str, ...]:
        """h (not before block 0), W+ and, as in GIFD's code, the noise maps with index < 5 + 2k that the image still
        depends on.

        That code drops the colors so far when it proceeds to a later block; here `skip` stays in the state.
        """
        noises = range(convolutions(k).start, min(5 + 2 * k, convolutions(len(self.blocks) - 1).stop))
        return (*(("h",) if k else ()), "w", *(f"noise{i}" for i in noises))

    @classmethod
    def load_public(cls, path: Path, *, start: Start = "mapped") -> "StyleGAN2":
        """`.pt` with `g_ema`, or the same keys as `.safetensors`.

        The file does not say what it was trained on: its name is used instead.

        Raises:
            InputError: no file, code in it, or not such a generator.
        """
        public = tensors(path)
        with expected("a StyleGAN2 generator in the layout of the PyTorch port", path):
            options, weights = convert(public if path.suffix == ".safetensors" else public["g_ema"])
            prior = cls(**options, start=start)
            prior.load_state_dict(weights)
        prior.trained_on = path.stem
        return prior.eval().requires_grad_(False)


# The layout of public weights: that of the common PyTorch port (rosinality).

RENAMED = (
    (r"^input\.input$", "const"),
    (r"^conv1\.", "blocks.0.convs.0."),
    (r"^to_rgb1\.", "blocks.0.to_rgb."),
    (r"\.modulation\.", ".modulation_"),
    (r"\.noise\.weight$", ".strength"),
    (r"\.activate\.bias$", ".bias"),
)
UNUSED = re.compile(r"^noises\.|\.kernel$|^style\.")  # fixed noise, the FIR filters; the mapping network is stacked


def renamed(name: str) -> str:
    """The port's name of a synthesis tensor -> ours."""
    name = re.sub(r"^convs\.(\d+)", lambda m: f"blocks.{int(m[1]) // 2 + 1}.convs.{int(m[1]) % 2}", name)
    name = re.sub(r"^to_rgbs\.(\d+)", lambda m: f"blocks.{int(m[1]) + 1}.to_rgb", name)
    for theirs, ours in RENAMED:
        name = re.sub(theirs, ours, name)
    return name


def convert(public: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The port's state dict -> the options of `StyleGAN2`, which keys and shapes determine, and its state dict.

    Raises:
        KeyError: a tensor that determines an option is missing.
    """
    layers = sum(re.fullmatch(r"style\.\d+\.weight", name) is not None for name in public)
    ups = sum(re.fullmatch(r"to_rgbs\.\d+\.bias", name) is not None for name in public)
    size = 4 * 2**ups
    options = {
        "size": size,
        "width": public["input.input"].shape[1],
        "channel_multiplier": public[f"convs.{2 * ups - 1}.conv.weight"].shape[1] * size / 16_384,
        "style_dim": public["style.1.weight"].shape[1],
        "layers_mapping": layers,
    }
    ours = {
        renamed(name): tensor[0] if name.endswith(".conv.weight") else tensor
        for name, tensor in public.items()
        if not UNUSED.search(name)
    }
    for kind in ("weight", "bias"):
        ours[f"mapping_{kind}"] = torch.stack([public[f"style.{i + 1}.{kind}"] for i in range(layers)])
    return options, ours
