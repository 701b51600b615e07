"""Training a denoiser: white Gaussian noise of random strength is taken off images of a train split."""

from collections.abc import Mapping
from math import cos, pi
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import l1_loss
from torch.optim import Adam
from torchvision.utils import save_image

from priors import checkpoint, weights
from priors.ffdnet import FFDNet
from victims.data.base import ImageData
from victims.errors import InputError
from victims.modules import build

OPTIONS = {"depth": 8, "width": 64, "residual": True}  # of the network: a quarter of the published one
BATCH = 16
LR = 1e-3
CHECKPOINT_EVERY = 100
SHOWN = (0.05, 0.1, 0.2)  # sigmas of the picture


class Lesson:
    """A denoiser and its optimizer; `step` shows it one batch of `steps`."""

    def __init__(self, seed: int, steps: int) -> None:
        self.draws = torch.Generator().manual_seed(seed)
        self.denoiser = build(FFDNet, seed=seed, **OPTIONS)
        start_locally(self.denoiser)
        self.adam = Adam(self.denoiser.parameters(), lr=LR)
        self.steps, self.done = steps, 0

    def step(self, images: Tensor) -> float:
        """Images (N, 3, H, W) in [0, 1]; each gets noise of its own sigma, uniform up to that of the architecture."""
        sigma = self.denoiser.sigma_max * torch.rand(len(images), generator=self.draws)
        noise = torch.randn(images.shape, generator=self.draws)
        loss = l1_loss(self.denoiser(images + sigma[:, None, None, None] * noise, sigma), images)
        self.adam.param_groups[0]["lr"] = LR * (1 + cos(pi * self.done / self.steps)) / 2
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()
        self.done += 1
        return loss.item()

    def state_dict(self) -> dict[str, Any]:
        optimizer, draws = checkpoint.moments(self.adam), self.draws.get_state()
        return {"denoiser": self.denoiser.state_dict(), "adam": optimizer, "done": self.done, "draws": draws}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.denoiser.load_state_dict(state["denoiser"])
        checkpoint.restore(self.adam, state["adam"])
        self.done = state["done"]
        self.draws.set_state(state["draws"])


@torch.no_grad()
def start_locally(net: FFDNet) -> None:
    """Weights that hand every pixel on, with both signs, to the last layer, which begins at zero: D(x) = x.

    Random layers mix neighboring pixels, and the noise of a single one is then hard to find.
    """
    first, *middle, last = (layer for layer in net.model if isinstance(layer, nn.Conv2d))
    for k in range(len(first.weight)):
        first.weight[k, k % 12, 1, 1] += (-1) ** (k // 12)
    for layer in middle:
        layer.weight.copy_(0.05 * layer.weight + nn.init.dirac_(torch.empty_like(layer.weight)))
    for parameter in last.parameters():
        parameter.zero_()


def train(data: ImageData, out: Path, *, steps: int, seed: int, trained_on: str, command: str) -> Path:
    """Train an FFDNet, and write `out` (safetensors), `<out>.json` and a picture of what it does, `<out>.png`.

    Every 100 steps a state is saved beside `out`, from which the same call resumes with the same draws.

    Raises:
        InputError: the images are not in color, or the state beside `out` is of another training.
    """
    if data.image_shape[0] != 3:
        raise InputError("a denoiser is trained on images in color; choose other --data.")
    out.parent.mkdir(parents=True, exist_ok=True)
    state = out.with_suffix(".state")
    identity = f"{trained_on}, {OPTIONS}, {steps} steps, seed {seed}, images {data.digest()}"
    lesson = Lesson(seed, steps)
    for bar in checkpoint.steps_left(
        lesson, state, identity, every=CHECKPOINT_EVERY, total=steps, more=lambda: lesson.done < steps
    ):
        loss = lesson.step(data.augmented(BATCH, lesson.draws)[0])
        bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
    denoiser = lesson.denoiser.eval()
    denoiser.trained_on = trained_on
    weights.save(denoiser, out, architecture="ffdnet", options=OPTIONS, command=command)
    save_image(picture(denoiser, data), out.with_suffix(".png"), nrow=8)
    state.unlink(missing_ok=True)
    return out


@torch.no_grad()
def picture(denoiser: FFDNet, data: ImageData) -> Tensor:
    """Eight images, and for each sigma a row with its noise and a row without: (8 (1 + 2 sigmas), 3, H, W)."""
    draws = torch.Generator().manual_seed(1)
    clean, _ = data.augmented(8, draws)
    rows = [clean]
    for sigma in SHOWN:
        noisy = clean + sigma * torch.randn(clean.shape, generator=draws)
        rows += [noisy, denoiser(noisy, sigma)]
    return torch.cat(rows).clamp(0, 1)
