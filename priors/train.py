"""Training a DCGAN: the adversarial game of Radford et al.; the prior is a moving average of the generator."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.optim import Adam
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn
from torchvision.utils import save_image

from priors import checkpoint, weights
from priors.base import Generator
from priors.dcgan import DCGAN, Discriminator
from victims.data.base import ImageData
from victims.errors import InputError

BATCH = 64
CHECKPOINT_EVERY = 500


class Game:
    """Generator, discriminator and their optimizers; `step` plays one round."""

    def __init__(self, seed: int, *, size: int, classes: int | None) -> None:
        self.draws = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.generator = DCGAN(size=size, classes=classes)
            self.discriminator = Discriminator(size=size, classes=classes)
        self.average = AveragedModel(self.generator, multi_avg_fn=get_ema_multi_avg_fn(0.999), use_buffers=True)
        self.adam_g = Adam(self.generator.parameters(), lr=2e-4, betas=(0.5, 0.999))
        self.adam_d = Adam(self.discriminator.parameters(), lr=2e-4, betas=(0.5, 0.999))
        self.done = 0

    def step(self, real: Tensor, labels: Tensor) -> tuple[float, float]:
        """Update each player once on real images (N, 3, H, W) in [0, 1] of classes (N,), and return their losses."""
        judge = self.discriminator
        fake = self.generator({**self.generator.draw(len(real), self.draws), "y": labels})
        on_real, on_fake = judge(2 * real - 1, labels), judge(2 * fake.detach() - 1, labels)
        loss_d = softplus(-on_real).mean() + softplus(on_fake).mean()
        self.adam_d.zero_grad()
        loss_d.backward()
        self.adam_d.step()
        loss_g = softplus(-judge(2 * fake - 1, labels)).mean()  # non-saturating
        self.adam_g.zero_grad()
        loss_g.backward()
        self.adam_g.step()
        self.average.update_parameters(self.generator)
        self.done += 1
        return loss_d.item(), loss_g.item()

    def prior(self) -> DCGAN:
        """The averaged generator, with batch-norm statistics from 64 batches of its own latents."""
        prior, draws = self.average.module, torch.Generator().manual_seed(0)
        assert isinstance(prior, DCGAN)
        update_bn([inputs(prior, BATCH, draws, first=k * BATCH) for k in range(64)], prior)
        return prior.eval()

    @property
    def networks(self) -> dict[str, nn.Module]:
        return {
            "generator": self.generator,
            "discriminator": self.discriminator,
            "average": self.average,
        }

    @property
    def optimizers(self) -> dict[str, Adam]:
        return {"adam_g": self.adam_g, "adam_d": self.adam_d}

    def state_dict(self) -> dict[str, Any]:
        networks = {name: network.state_dict() for name, network in self.networks.items()}
        optimizers = {name: checkpoint.moments(optimizer) for name, optimizer in self.optimizers.items()}
        return {**networks, **optimizers, "done": self.done, "draws": self.draws.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, network in self.networks.items():
            network.load_state_dict(state[name])
        for name, optimizer in self.optimizers.items():
            checkpoint.restore(optimizer, state[name])
        self.done = state["done"]
        self.draws.set_state(state["draws"])


def inputs(prior: Generator, count: int, draws: torch.Generator, first: int = 0) -> dict[str, Tensor]:
    """Random inputs of a prior, (count, ...) each, on the CPU; a conditional prior gets its classes in turn.

    Args:
        first: how many inputs were drawn before these, so that the turn goes on.
    """
    state = prior.draw(count, draws)
    return {**state, "y": torch.arange(first, first + count) % prior.classes} if prior.classes else state


def train(
    data: ImageData, out: Path, *, conditional: bool, steps: int, seed: int, trained_on: str, command: str
) -> Path:
    """Train, and write `out` (safetensors), `<out>.json` and a grid of samples `<out>.png`.

    Every 500 steps a state is saved beside `out`, from which the same call resumes. The generator of random numbers is
    part of it, so a resumed training sees the same images and latents as one that was never stopped.

    Raises:
        InputError: the data's images are not 32 or 64 px in color, or the state beside `out` is of another training, or
            has more steps than are asked for.
    """
    shape = data.image_shape
    if shape not in ((3, 32, 32), (3, 64, 64)):
        raise InputError(f"dcgan makes 3x32x32 and 3x64x64 images, the data has {shape}; use --size 32 or 64.")
    options: dict[str, Any] = {"size": shape[-1], "classes": len(data.classes) if conditional else None}
    out.parent.mkdir(parents=True, exist_ok=True)
    state, identity = out.with_suffix(".state"), f"{trained_on}, {options}, seed {seed}, images {data.digest()}"
    game = Game(seed, **options)
    for bar in checkpoint.steps_left(
        game, state, identity, every=CHECKPOINT_EVERY, total=steps, more=lambda: game.done < steps
    ):
        loss_d, loss_g = game.step(*data.augmented(BATCH, game.draws))
        bar.set_postfix(D=f"{loss_d:.2f}", G=f"{loss_g:.2f}", refresh=False)
    prior = game.prior()
    prior.trained_on = trained_on
    weights.save(prior, out, architecture="dcgan", options=options, command=command)
    with torch.no_grad():
        rows = prior.classes or 8
        save_image(prior(inputs(prior, 8 * rows, torch.Generator().manual_seed(1))), out.with_suffix(".png"), nrow=rows)
    state.unlink(missing_ok=True)
    return out
