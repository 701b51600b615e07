"""LPIPS with the SqueezeNet backbone, and the places where the weights of the backbone may be."""

import os
from contextlib import suppress
from hashlib import sha256
from http.client import HTTPException
from pathlib import Path
from threading import Thread
from urllib.request import urlopen

import torch
from torch import Tensor, nn
from torchmetrics.functional.image.lpips import _LPIPS
from torchvision.models import SqueezeNet1_1_Weights

from victims.errors import InputError

MIN_SIDE = 17  # pixels; below this the third pooling of SqueezeNet has nothing left to pool
URL = SqueezeNet1_1_Weights.IMAGENET1K_V1.url
FILE_NAME = URL.rsplit("/", 1)[-1]
SHA256_PREFIX = "b8a52dc0"  # of the file behind URL, which carries it in its name
DOWNLOAD_SECONDS = 10.0


class Lpips:
    """Learned perceptual distance (Zhang et al. 2018), version 0.1 on SqueezeNet 1.1; lower is closer.

    `backbone` is "squeeze", or the one-line reason if the weights are missing (`available` is False).
    """

    def __init__(self, net: _LPIPS | None, backbone: str) -> None:
        self._net = net
        self.backbone = backbone

    @classmethod
    def find(cls, weights_dir: Path | None, *, download: bool = True) -> "Lpips":
        """Load the backbone from the first place that has it.

        In turn: `weights_dir/lpips/squeezenet1_1_features.pth` (the state dict of torchvision's
        `squeezenet1_1().features`), torchvision's own file in the torch hub cache, and its download into that
        cache (at most `DOWNLOAD_SECONDS`; not tried without `download` or if GIBENCH_OFFLINE=1).

        Raises:
            InputError: a file in one of these places does not hold these weights.
        """
        given = weights_dir / "lpips" / "squeezenet1_1_features.pth" if weights_dir else None
        if given and given.is_file():
            return cls(_load(given), "squeeze")
        cached = Path(torch.hub.get_dir()) / "checkpoints" / FILE_NAME
        offline = os.environ.get("GIBENCH_OFFLINE") == "1"
        if not cached.is_file() and download and not offline:
            _download(cached)
        if cached.is_file():
            return cls(_load(cached), "squeeze")
        places = f"neither at {given} nor" if given else "not"
        why = "they could not be downloaded" if download else "no download is tried"
        why = "GIBENCH_OFFLINE=1 forbids the download" if offline else why
        return cls(None, f"none: squeezenet1_1 weights are {places} in the torch hub cache, and {why}")

    @property
    def available(self) -> bool:
        return self._net is not None

    @property
    def features(self) -> nn.Sequential:
        """The backbone alone: torchvision's `squeezenet1_1().features`; only where it is available."""
        assert self._net is not None
        return _features(self._net)

    @torch.no_grad()
    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """Distance of each pair of [0, 1] images, H and W at least `MIN_SIDE`: (B, C, H, W) twice -> (B,).

        One channel counts as gray.

        Raises:
            RuntimeError: the backbone is not available.
        """
        if self._net is None:
            raise RuntimeError(self.backbone)
        return self._net.to(a.device)(a, b, normalize=True).flatten()


def _load(path: Path) -> _LPIPS:
    """LPIPS with the linear layers that torchmetrics ships and every backbone tensor from `path`."""
    # Building draws random weights; the random numbers of the run must not depend on it.
    with torch.random.fork_rng(devices=[]):
        net = _LPIPS(net="squeeze", pnet_rand=True)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        _features(net).load_state_dict(
            {
                name.removeprefix("features."): tensor
                for name, tensor in state.items()
                if not name.startswith("classifier.")
            }
        )
    except Exception as error:  # a broken or foreign file fails in many ways
        raise InputError(
            f"{path} does not hold the weights of torchvision's squeezenet1_1 ({type(error).__name__}): "
            "replace it, or remove it to look elsewhere"
        ) from error
    return net


def _features(net: _LPIPS) -> nn.Sequential:
    """The layers of LPIPS's SqueezeNet in one sequence, as in torchvision."""
    return nn.Sequential(*(layer for part in net.net.get_submodule("slices").children() for layer in part.children()))


def _download(target: Path) -> None:
    """Try to download torchvision's file to `target`; without a network nothing is written."""
    # In a thread: a socket's time limit covers neither the name look-up nor the several addresses of one name.
    attempt = Thread(target=_fetch, args=(target,), daemon=True)
    attempt.start()
    attempt.join(DOWNLOAD_SECONDS)


def _fetch(target: Path) -> None:
    with suppress(OSError, HTTPException):
        with urlopen(URL, timeout=DOWNLOAD_SECONDS) as answer:
            data = answer.read()
        if sha256(data).hexdigest().startswith(SHA256_PREFIX):
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
            partial.write_bytes(data)
            partial.replace(target)  # atomic: another process never sees half a file
