"""BigGAN-deep (Brock, Donahue and Simonyan, 2019, appendix B), the ImageNet generator of GIAS, GGL, GIFD and IGIMS."""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool2d

from priors.base import Generator, State
from victims.checkpoints import expected, tensors
from victims.errors import InputError

WIDTHS = {  # channels at 4x4, 8x8, ..., in multiples of the base width
    128: (16, 16, 8, 4, 2, 1),
    256: (16, 16, 8, 8, 4, 2, 1),
    512: (16, 16, 8, 8, 4, 2, 1, 1),
}
NZ = 128  # length of the latent, and of the class embedding
EPS = 1e-4  # of the batch normalizations of the public weights


class ConditionalNorm(nn.Module):
    """Inference batch normalization whose scale and offset are linear in the condition (N, 2 NZ)."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Linear(2 * NZ, channels, bias=False)
        self.offset = nn.Linear(2 * NZ, channels, bias=False)
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, h: Tensor, cond: Tensor) -> Tensor:
        scale = (1 + self.scale(cond)) / (self.running_var + EPS).sqrt()
        return (h - self.running_mean[:, None, None]) * scale[..., None, None] + self.offset(cond)[..., None, None]


class GenBlock(nn.Module):
    """A bottleneck of 1x1, 3x3, 3x3 and 1x1 convolutions, and a skip connection that drops surplus channels."""

    def __init__(self, c_in: int, c_out: int, *, up: bool) -> None:
        super().__init__()
        self.c_out, self.up, c = c_out, up, c_in // 4
        self.norms = nn.ModuleList(ConditionalNorm(width) for width in (c_in, c, c, c))
        self.convs = nn.ModuleList(
            [
                nn.Conv2d(c_in, c, 1),
                nn.Conv2d(c, c, 3, padding=1),
                nn.Conv2d(c, c, 3, padding=1),
                nn.Conv2d(c, c_out, 1),
            ]
        )

    def forward(self, h: Tensor, cond: Tensor) -> Tensor:
        skip = h[:, : self.c_out]
        for layer, (norm, conv) in enumerate(zip(self.norms, self.convs, strict=True)):
            h = norm(h, cond).relu()
            if self.up and layer == 1:
                h, skip = interpolate(h, scale_factor=2), interpolate(skip, scale_factor=2)
            h = conv(h)
        return h + skip


class Attention(nn.Module):
    """Self-attention of every position to the 2x2-pooled map, weighted by a learned `gamma` (Zhang et al., 2019)."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.theta, self.phi = nn.Conv2d(c, c // 8, 1, bias=False), nn.Conv2d(c, c // 8, 1, bias=False)
        self.g, self.o = nn.Conv2d(c, c // 2, 1, bias=False), nn.Conv2d(c // 2, c, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, h: Tensor) -> Tensor:
        queries = self.theta(h).flatten(2)  # (N, c/8, HW)
        keys = max_pool2d(self.phi(h), 2).flatten(2)  # (N, c/8, HW/4)
        values = max_pool2d(self.g(h), 2).flatten(2)  # (N, c/2, HW/4)
        attended = values @ (queries.mT @ keys).softmax(-1).mT  # (N, c/2, HW)
        return h + self.gamma * self.o(attended.unflatten(2, h.shape[2:]))


class LastBlock(nn.Module):
    """Batch normalization, ReLU, convolution to color, tanh, and from (-1, 1) to (0, 1)."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.bn, self.conv = nn.BatchNorm2d(c, eps=EPS), nn.Conv2d(c, 3, 3, padding=1)

    def forward(self, h: Tensor) -> Tensor:
        return (self.conv(self.bn(h).relu()).tanh() + 1) / 2


class BigGAN(Generator):
    """BigGAN-deep, the generator of ImageNet's classes, for 128, 256 or 512 px.

    The latent and the class's embedding together are the condition, which every GenBlock sees. The blocks are the
    layers of the public weights, self-attention at 64x64 among them, so that the features before block k are those of
    GIFD's phase k. The condition is part of the state: a search of features does not change it.

    Args:
        size: side of the images, 128, 256 or 512.
        channels: the base width, before the last block.
        classes: their number.
    """

    published = {
        "biggan-deep-128": {
            "file": "biggan-deep-128-pytorch_model.bin",
            "size": 128,
            "options": {"size": 128},  # refuse the file of another
            "trained_on": "ImageNet, 128 px",
            "license": "not stated with the weights (DeepMind's, converted)",
            "source": "https://s3.amazonaws.com/models.huggingface.co/biggan/biggan-deep-128-pytorch_model.bin",
            "sha256": None,
        },
        "biggan-deep-256": {
            "file": "biggan-deep-256-pytorch_model.bin",
            "size": 256,
            "options": {"size": 256},
            "trained_on": "ImageNet, 256 px",
            "license": "not stated with the weights (DeepMind's, converted)",
            "source": "https://s3.amazonaws.com/models.huggingface.co/biggan/biggan-deep-256-pytorch_model.bin",
            "sha256": None,
        },
        "biggan-deep-512": {
            "file": "biggan-deep-512-pytorch_model.bin",
            "size": 512,
            "options": {"size": 512},
            "trained_on": "ImageNet, 512 px",
            "license": "not stated with the weights (DeepMind's, converted)",
            "source": "https://s3.amazonaws.com/models.huggingface.co/biggan/biggan-deep-512-pytorch_model.bin",
            "sha256": None,
        },
    }

    def __init__(self, *, size: int = 256, channels: int = 128, classes: int = 1000) -> None:
        super().__init__()
        if size not in WIDTHS:
            raise InputError(f"BigGAN has no size {size}; give one of {', '.join(map(str, WIDTHS))}.")
        self.classes, self.image_shape = classes, (3, size, size)
        self.embed = nn.Embedding(classes, NZ)
        self.linear = nn.Linear(2 * NZ, 4 * 4 * WIDTHS[size][0] * channels)
        self.blocks = nn.ModuleList()
        for octave, (c_in, c_out) in enumerate(pairwise(channels * width for width in WIDTHS[size])):
            if 4 * 2**octave == 64:
                self.blocks.append(Attention(c_in))
            self.blocks += [GenBlock(c_in, c_in, up=False), GenBlock(c_in, c_out, up=True)]
        self.blocks.append(LastBlock(channels))

    def draw(self, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Standard normal, as in GGL and GIFD: not truncated."""
        return {"z": torch.randn(count, NZ, generator=generator)}

    def enter(self, state: State) -> dict[str, Tensor]:
        cond = torch.cat([state["z"], self.embed(state["y"])], 1)
        h = self.linear(cond).unflatten(1, (4, 4, -1)).permute(0, 3, 1, 2)  # channels last in the public weights
        return {**state, "cond": cond, "h": h}

    def step(self, block: nn.Module, state: State) -> dict[str, Tensor]:
        h = state["h"]
        return {**state, "h": block(h, state["cond"]) if isinstance(block, GenBlock) else block(h)}

    @classmethod
    def load_public(cls, path: Path, *, size: int | None = None) -> "BigGAN":
        """`from_public` of a file `pytorch_model.bin`.

        Args:
            size: side of the images that the file must be for; None takes any.

        Raises:
            InputError: no file, one that is not plain tensors or has others than `from_public` takes, or another size.
        """
        public = tensors(path)
        with expected("a pytorch_model.bin of the public BigGAN-deep", path):
            prior = from_public(public)
        if size not in (None, prior.image_shape[-1]):
            raise InputError(f"{path} is the BigGAN-deep of {prior.image_shape[-1]} px; give that of {size} px.")
        return prior


def from_public(public: Mapping[str, Tensor]) -> BigGAN:
    """The prior with the public weights, given in the layout of the package pytorch-pretrained-biggan.

    Its parameters, which GIAS and IGIMS search, are the weights after spectral normalization. Its batch statistics are
    those of truncation 1, which the papers use.

    Returns:
        the prior in eval mode, its parameters frozen.

    Raises:
        Exception: of any kind, of other tensors than the public ones.
    """
    classes, channels = public["embeddings.weight"].shape[1], len(public["generator.bn.bias"])
    layers = {name.split(".")[2] for name in public if name.startswith("generator.layers.")}
    size = 4 * 2 ** (len(layers) // 2)  # two GenBlocks for every doubling, and self-attention
    with torch.device("meta"):
        prior = BigGAN(size=size, channels=channels, classes=classes)
    prior.load_state_dict(converted(public, last=len(prior.blocks) - 1), assign=True)
    prior.trained_on = f"ImageNet ({size} px BigGAN-deep, truncation 1)"
    return prior.eval().requires_grad_(False)


def converted(public: Mapping[str, Tensor], last: int) -> dict[str, Tensor]:
    """The public state dict -> that of `BigGAN`, whose last block has the index `last`."""
    new_names = {
        "embeddings": "embed",
        "generator.gen_z": "linear",
        "generator.layers": "blocks",
        "generator.bn": f"blocks.{last}.bn",
        "generator.conv_to_rgb": f"blocks.{last}.conv",
        ".bn_": ".norms.",
        ".conv_": ".convs.",
        ".snconv1x1_": ".",
        ".o_conv": ".o",
    }
    tensors = {}
    for name, tensor in public.items():
        stem, _, kind = name.rpartition(".")
        if kind in ("weight_u", "weight_v"):
            continue
        if kind == "weight_orig":  # spectral normalization, with the stored singular vectors
            sigma = public[f"{stem}.weight_u"] @ tensor.flatten(1) @ public[f"{stem}.weight_v"]
            kind, tensor = "weight", tensor / sigma
        elif kind in ("running_means", "running_vars"):
            kind, tensor = kind[:-1], tensor[-1].clone()  # of those for truncation 0, 0.02, ..., 1
        if name.startswith("embeddings"):  # stored as a linear map of one-hot classes
            tensor = tensor.T.contiguous()
        elif name.startswith("generator.conv_to_rgb"):  # only three of the stored outputs are colors
            tensor = tensor[:3]
        for old, new in new_names.items():
            stem = stem.replace(old, new)
        tensors[f"{stem}.{kind}"] = tensor
    return tensors
