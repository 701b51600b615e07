"""LPIPS, its backbones, and the places where their weights may be."""

import os
import shlex
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from http.client import HTTPException
from pathlib import Path
from threading import Event, Thread
from typing import Any, NamedTuple
from urllib.request import urlopen

import torch
import torchmetrics.functional.image as torchmetrics_image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import conv2d
from torchvision.models import AlexNet_Weights, SqueezeNet1_1_Weights, VGG16_Weights, get_model

from victims.errors import InputError
from victims.names import separated

ANSWER_SECONDS = 10.0  # until a server begins to send


class Backbone(NamedTuple):
    """A network of torchvision whose features LPIPS compares.

    Attributes:
        model: its name in torchvision.
        file: in `weights_dir/lpips/`: the state dict of the model's `features`, in any precision.
        url: of torchvision's file of the whole model, whose name ends with the first digits of its SHA-256.
        levels: the layers of `features` whose output is compared.
        min_side: pixels; in smaller images the last of these layers has nothing left.
        seconds: that the download may take, by its size.
    """

    model: str
    file: str
    url: str
    levels: tuple[int, ...]
    min_side: int
    seconds: float

    @property
    def cached(self) -> Path:
        """Where torch keeps what it downloads."""
        return Path(torch.hub.get_dir()) / "checkpoints" / self.url.rsplit("/", 1)[-1]

    @property
    def digest(self) -> str:
        """The first digits of the SHA-256 of the file behind `url`."""
        return self.url.rsplit("-", 1)[-1].removesuffix(".pth")


BACKBONES = {
    "squeeze": Backbone(
        model="squeezenet1_1",
        file="squeezenet1_1_features.pth",
        url=SqueezeNet1_1_Weights.IMAGENET1K_V1.url,
        levels=(1, 4, 7, 9, 10, 11, 12),
        min_side=17,
        seconds=10,
    ),
    "alex": Backbone(
        model="alexnet",
        file="alexnet_features.safetensors",
        url=AlexNet_Weights.IMAGENET1K_V1.url,
        levels=(1, 4, 7, 9, 11),
        min_side=31,
        seconds=120,
    ),
    "vgg": Backbone(
        model="vgg16",
        file="vgg16_features_fp16.safetensors",
        url=VGG16_Weights.IMAGENET1K_V1.url,
        levels=(3, 8, 15, 22, 29),
        min_side=16,
        seconds=300,
    ),
}


class Net(nn.Module):
    """LPIPS (Zhang et al. 2018), version 0.1: two batches of images in [0, 1], (B, C, H, W) -> (B,).

    The squared difference of features of unit length, weighted by channel, averaged over space, summed over levels.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, features: nn.Sequential, weights: list[Tensor], backbone: Backbone) -> None:
        """
        Args:
            weights: of the channels at every level, (1, C, 1, 1).
        """
        super().__init__()
        self.features, self.backbone = features.eval().requires_grad_(False), backbone
        self.weights = nn.ParameterList(nn.Parameter(weight, requires_grad=False) for weight in weights)
        self.register_buffer("mean", torch.tensor([-0.030, -0.088, -0.188])[:, None, None])
        self.register_buffer("std", torch.tensor([0.458, 0.448, 0.450])[:, None, None])

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        levels = zip(self.weights, self.levels(a), self.levels(b), strict=True)
        return torch.stack([conv2d((x - y).square(), w).mean((2, 3)) for w, x, y in levels]).sum(0).flatten()

    def levels(self, images: Tensor) -> Iterator[Tensor]:
        """The features of images at every level, of length 1 at every place."""
        x = (2 * images - 1 - self.mean) / self.std
        for place, layer in enumerate(self.features[: self.backbone.levels[-1] + 1]):
            x = layer(x)
            if place in self.backbone.levels:
                yield x / (x.square().sum(1, keepdim=True) + 1e-8).sqrt()


class Lpips:
    """Learned perceptual distance on one backbone; lower is closer.

    `backbone` is its name in `BACKBONES`, or the one-line reason if the weights are missing (`available` is False);
    then `fix` is the command that gets them.
    """

    def __init__(self, net: Net | None, backbone: str, fix: str = "") -> None:
        self._net = net
        self.backbone, self.fix = backbone, fix

    @classmethod
    def find(cls, weights_dir: Path | None, name: str = "squeeze", *, download: bool = True) -> "Lpips":
        """Load a backbone from the first place that has it.

        In turn: its file in `weights_dir/lpips/`, torchvision's own file in the torch hub cache, and its download into
        that cache (not tried without `download` or if GIBENCH_OFFLINE=1).

        Raises:
            InputError: a file in one of these places does not hold these weights.
        """
        backbone = BACKBONES[name]
        given = weights_dir / "lpips" / backbone.file if weights_dir else None
        if given and given.is_file():
            return cls(_load(given, name), name)
        offline = os.environ.get("GIBENCH_OFFLINE") == "1"
        if not backbone.cached.is_file() and download and not offline:
            _download(backbone)
        if backbone.cached.is_file():
            return cls(_load(backbone.cached, name), name)
        places = f"neither at {given} nor" if given else "not"
        why = "they could not be downloaded" if download else "no download is tried"
        why = "GIBENCH_OFFLINE=1 forbids the download" if offline else why
        fix = f"curl --create-dirs -o {shlex.quote(str(backbone.cached))} {backbone.url}"
        return cls(None, f"none: {backbone.model} weights are {places} in the torch hub cache, and {why}", fix)

    @property
    def available(self) -> bool:
        return self._net is not None

    @property
    def reason(self) -> str:
        """Why it is not available."""
        return self.backbone.removeprefix("none: ")

    @property
    def features(self) -> nn.Sequential:
        """The backbone alone, as torchvision has it; only where it is available."""
        assert self._net is not None
        return self._net.features

    def takes(self, images: Tensor) -> bool:
        """Whether the backbone is available, and images (B, C, H, W) are gray or in three colors and large enough."""
        return (
            self._net is not None
            and images.shape[1] in (1, 3)
            and min(images.shape[-2:]) >= self._net.backbone.min_side
        )

    @torch.no_grad()
    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """Distance of each pair of [0, 1] images that the backbone takes: (B, C, H, W) twice -> (B,).

        One channel counts as gray.

        Raises:
            RuntimeError: the backbone is not available.
        """
        if self._net is None:
            raise RuntimeError(self.backbone)
        return self._net.to(a.device)(a, b)


def find_all(names: str, weights_dir: Path, *, download: bool = True) -> dict[str, Lpips]:
    """The backbones of the option `lpips`, by name; see `Lpips.find`.

    Raises:
        InputError: there is no such backbone, or a file does not hold its weights.
    """
    asked = separated(names)
    if unknown := set(asked) - BACKBONES.keys():
        raise InputError(
            f"lpips has no backbone '{min(unknown)}'; give {', '.join(BACKBONES)}, or several with commas between them."
        )
    return {name: Lpips.find(weights_dir, name, download=download) for name in BACKBONES if name in asked}


def _load(path: Path, name: str) -> Net:
    """LPIPS with the weights of the channels that torchmetrics ships, and every tensor of the backbone from `path`."""
    backbone = BACKBONES[name]
    with torch.device("meta"):  # no time, memory or random numbers for weights that are replaced
        features: Any = get_model(backbone.model, weights=None).features
    try:
        tensors = load_file(path) if path.suffix == ".safetensors" else _unpickled(path)
        features.load_state_dict(
            {
                key.removeprefix("features."): tensor.float()
                for key, tensor in tensors.items()
                if not key.startswith("classifier.")
            },
            assign=True,
        )
    except Exception as error:  # a broken or foreign file fails in many ways
        raise InputError(
            f"{path} does not hold the weights of torchvision's {backbone.model} ({type(error).__name__}): "
            "replace it, or remove it to look elsewhere"
        ) from error
    channels = _unpickled(Path(torchmetrics_image.__file__).parent / "lpips_models" / f"{name}.pth")
    return Net(features, [channels[f"lin{level}.model.1.weight"] for level in range(len(channels))], backbone)


def _unpickled(path: Path) -> dict[str, Tensor]:
    """The tensors of a file of torch; nothing else in it is made."""
    return torch.load(path, map_location="cpu", weights_only=True)


def _download(backbone: Backbone) -> None:
    """Try to download torchvision's file to the cache; without a network nothing is written."""
    # In a thread: a socket's time limit covers neither the name look-up nor the several addresses of one name.
    begun, late = Event(), Event()
    attempt = Thread(target=_fetch, args=(backbone, begun, late), daemon=True)
    attempt.start()
    attempt.join(ANSWER_SECONDS)
    if begun.is_set():
        attempt.join(backbone.seconds)
    late.set()  # the run goes on without: a file that came now would give its other processes another metric


def _fetch(backbone: Backbone, begun: Event, late: Event) -> None:
    with suppress(OSError, HTTPException):
        with urlopen(backbone.url, timeout=ANSWER_SECONDS) as answer:
            begun.set()
            data = answer.read()
        if sha256(data).hexdigest().startswith(backbone.digest):
            target = backbone.cached
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
            partial.write_bytes(data)
            if late.is_set():
                partial.unlink()
            else:
                partial.replace(target)  # atomic: another process never sees half a file
