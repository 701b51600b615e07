"""`python -m benchmark prior learn`: a generator learned only from the updates that clients share."""

import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torchvision.utils import make_grid
from tqdm import tqdm

from attacks.giml import GIML
from benchmark.config import Config
from benchmark.contents import of_training
from benchmark.device import best_device, reproducible
from benchmark.launch.lock import alone, writable
from benchmark.priors.federation import simulate
from benchmark.priors.recorded import command, folders
from leaderboard.options import Options
from priors import checkpoint, weights
from priors.base import Generator
from priors.dcgan import DCGAN
from priors.dcgan_gias import DCGANGIAS
from victims.errors import InputError
from victims.modules import build
from victims.ranges import above_zero, at_least
from victims.rounds import LR

GENERATORS: dict[str, type[Generator]] = {"dcgan": DCGAN, "dcgan_gias": DCGANGIAS}
SHOWN, COLUMNS = 8, 9  # latents in the picture, and snapshots over the steps


def learn(
    out: Path,
    *,
    data: str = Options.data,
    size: int = Options.size,
    data_dir: Path = Options.data_dir,
    victim: str = "lenet",
    rounds: int = 4,
    between: int = Options.between,
    between_lr: float = LR,
    clients: int = 200,
    batch: int = 1,
    defense: str = "none",
    steps: int = 200,
    preset: str = "default",
    set: list[str] | None = None,
    seed: int = Options.seed,
    architecture: Literal["dcgan", "dcgan_gias"] = "dcgan",
) -> None:
    """Learn a generator by GIML, only from the updates that clients share; the same command continues a stopped one.

    Args:
        out: the .safetensors file to write; a record (.json) and samples over the steps (.png) are written beside it.
        data: the data set; updates are computed from images of its train split.
        rounds: rounds of federated learning.
        between_lr: learning rate of the steps between rounds; GIML's code takes one with 1e-4.
        clients: clients that share an update in every round, each of its own batch.
        batch: images per update.
        defense: what a client does to its update: none, or name:parameter; the server knows which it is.
        steps: outer steps.
        preset: GIML's options: `default`, for a CPU; `paper`, as published; or `code`, as its authors ran it. All
            are in `docs/presets.md`.
        set: single options of GIML, KEY=VALUE, on top of the preset.
        seed: of the weights of victims and generator, the latents, and the order of the tasks.
        architecture: of the generator: `dcgan`, for 32 or 64 px, or `dcgan_gias`, that of GIML's code, for 32 px.
    """
    weights.check_name(out, "prior learn")
    at_least(1, rounds=rounds, clients=clients, steps=steps)
    at_least(0, between=between)
    above_zero(between_lr=between_lr)
    if architecture == "dcgan_gias" and size != 32:
        raise InputError(f"dcgan_gias makes images of 32 px, not {size}; give --size 32 or --architecture dcgan.")
    reproducible()
    chosen: dict[str, Any] = {
        "data": data,
        "size": size,
        "victim": victim,
        "rounds": rounds,
        "between": between,
        "batch": batch,
    }
    chosen |= {"defense": defense, "preset": preset, "seed": seed}
    config = Config(attack="giml", prior="none", data_dir=data_dir, set=set or [], **chosen)
    device = best_device()
    options = {"size": size} if architecture == "dcgan" else {}
    G = build(GENERATORS[architecture], seed=seed, **options).to(device)
    giml = GIML(G, seed=seed, **config.method_options(GIML))
    update = simulate(config, G.image_shape, clients, device, between_lr)
    G.trained_on = f"gradients of {data} train by GIML ({rounds} rounds x {clients} clients, B={batch})"
    G.trained_on += "" if defense == "none" else f", under {defense}"
    words = {**chosen, "between-lr": between_lr, "clients": clients, "steps": steps}
    words |= {"architecture": architecture}
    written = command("learn", out, words) + "".join(f" --set+={shlex.quote(text)}" for text in config.set)

    z = G.draw(SHOWN, torch.Generator().manual_seed(1))["z"].to(device)
    snapshots = dict.fromkeys((round(k * steps / (COLUMNS - 1)) for k in range(COLUMNS)), look(G, z))
    first = replace(config, rounds=1, between=0).make_victim(config.make_data("train"))
    state, identity = out.with_suffix(".state"), f"{written}, contents {of_training(config, first, GIML)}"

    def restore(saved: Mapping[str, Any]) -> None:
        giml.load_state_dict(saved["giml"])
        snapshots.update(saved["snapshots"])

    with alone(writable(out.parent), out.name):
        checkpoint.resume(state, identity, {"giml": giml.state_dict(), "snapshots": snapshots}, restore)
        if giml.t > steps:
            raise InputError(f"{state} has {giml.t} steps, more than the {steps} of this command; remove it.")
        with tqdm(total=steps, initial=giml.t, desc=f"prior {out.stem}", mininterval=1) as bar:
            while giml.t < steps:
                cost = giml.step([update(i) for i in giml.sample(rounds * clients)])
                bar.set_postfix(cost=f"{cost:.4f}", refresh=False)
                bar.update()
                if giml.t in snapshots:
                    snapshots[giml.t] = look(G, z)
                checkpoint.save(state, identity, {"giml": giml.state_dict(), "snapshots": snapshots})
        weights.save(G, out, architecture=architecture, options=options, command=written + folders(data_dir))
        draw(snapshots, out.with_suffix(".png"))
        state.unlink(missing_ok=True)
        print(out)


@torch.no_grad()
def look(G: Generator, z: Tensor) -> Tensor:
    return G({"z": z}).cpu()


def draw(snapshots: Mapping[int, Tensor], path: Path) -> None:
    """Samples by step, (SHOWN, C, H, W) each: every row of the grid shows one latent, as in figure 4a."""
    grid = make_grid(torch.stack(list(snapshots.values()), 1).flatten(0, 1), nrow=len(snapshots), padding=2)
    figure = Figure(figsize=(0.7 * len(snapshots), 0.7 * SHOWN + 0.3), layout="constrained")
    axis = figure.subplots()
    axis.imshow(grid.permute(1, 2, 0).numpy())
    cell = grid.shape[2] / len(snapshots)
    axis.set_xticks([(k + 0.5) * cell for k in range(len(snapshots))], [f"t = {t}" for t in snapshots], fontsize=7)
    axis.xaxis.tick_top()
    axis.tick_params(length=0)
    axis.set_yticks([])
    axis.set_frame_on(False)
    figure.savefig(path, dpi=160)
