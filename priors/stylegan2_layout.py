"""The layout of public StyleGAN2 weights: that of the common PyTorch port (rosinality)."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

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
