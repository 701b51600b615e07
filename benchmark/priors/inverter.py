"""`python -m benchmark prior train-inverter`: a network from updates to images, trained for one victim."""

import time
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Adam
from torchvision.utils import make_grid

from attacks.engine.gradients import victim_gradients
from attacks.engine.probe import Probe, vectorizes
from benchmark.contents import of_training
from benchmark.device import best_device, reproducible
from benchmark.launch.lock import alone, writable
from benchmark.priors.recorded import command, folders
from benchmark.scoring.picture import png
from benchmark.setting import Setting
from benchmark.tasks.capture import client_update
from defenses.base import Defense, parts
from leaderboard.options import Options
from priors import checkpoint, names, weights
from priors.inverters import Inverter, signature
from victims.choices import Mode
from victims.data.base import ImageData
from victims.errors import InputError
from victims.modules import build
from victims.ranges import above_zero, at_least
from victims.victim import Gradient, Victim

HELD_OUT = 16  # images of the train split that are never trained on; more where they make no batch
ENTRIES = 1 << 25  # of updates that are held at once
CHECKPOINT_EVERY = 100
Batches = tuple[Tensor, Tensor]
"""Images (N, B, C, H, W) in [0, 1] and labels (N, B), every batch in the order of its labels."""


def train_inverter(
    out: Path,
    *,
    attack: str = "lti",
    data: str = Options.data,
    size: int = Options.size,
    data_dir: Path = Options.data_dir,
    victim: str = Options.victim,
    victim_weights: str = Options.victim_weights,
    victim_mode: Mode = Options.victim_mode,
    weights_dir: Path = Options.weights_dir,
    batch: int = Options.batch,
    defense: str = Options.defense,
    width: int | None = None,
    hashed: int = 4096,
    lr: float = 1e-4,
    updates: int = 256,
    steps: int = 2_000,
    minutes: float | None = None,
    half: bool = False,
    seed: int = Options.seed,
) -> None:
    """Train an inverter, such as those of lti and fgla, for one victim; the same command continues a stopped training.

    Args:
        out: the .safetensors file to write; beside it are written a record (.json), and batches of images that were
            held out, each above what is rebuilt from its update (.png).
        attack: the one that takes it, `lti` or `fgla`; the file of its name in `priors/` says how it is built.
        data: the data set; updates are those of images of its train split.
        victim: the model; the inverter fits no other.
        defense: what the clients of the training do; it is learned with the rest.
        width: of the network; in the paper of LTI 3000, or 10 000 for four images and LeNet. Default: 1000 for lti, 128
            for fgla.
        hashed: numbers to which LTI hashes an update; 0 feeds all of its entries.
        lr: learning rate of Adam; a tenth of it in the last quarter.
        updates: in a training step.
        steps: of training.
        minutes: of training, in place of steps. What is learned then depends on the machine.
        half: store the weights in half precision, which halves the file.
        seed: of the victim's weights, as in `run`, and of the network and the batches.
    """
    weights.check_name(out, "prior train-inverter")
    at_least(1, batch=batch, width=width, updates=updates, steps=steps)
    at_least(0, hashed=hashed)
    above_zero(lr=lr, minutes=minutes)
    inverters = {name: found for name, found in names.architectures().items() if found.kind == "inverter"}
    if attack not in inverters:
        raise InputError(f"no inverter is trained for {attack}; choose one of {', '.join(inverters)}.")
    kind: type[Inverter] = inverters[attack].load()  # type: ignore[assignment]
    reproducible()
    setting: dict[str, Any] = {"data": data, "size": size, "victim": victim, "batch": batch, "defense": defense}
    setting |= {"victim_weights": victim_weights, "victim_mode": victim_mode, "seed": seed}
    config = Setting(data_dir=data_dir, weights_dir=weights_dir, **setting)
    images = config.make_data("train")
    device = best_device()
    target, client = config.make_victim(images).to(device), config.make_defense()
    if client and client.class_counts(batch):
        raise InputError(f"{defense} forms the batches, and an inverter is trained on random ones; choose another.")
    defaults = {name: getattr(Options, name) for name in setting}
    shown = {name: str(value) for name, value in setting.items() if name in SHOWN or value != defaults[name]}
    shape = images.image_shape
    own = kind.options(target, shape, batch, width=width, hashed=hashed)
    options = {"setting": shown, "signature": signature(target, shape), "batch": batch, "image_shape": shape, **own}
    words = {"attack": attack, **shown, "width": options["width"], "hashed": hashed, "lr": lr, "updates": updates}
    words |= {"steps": steps} if minutes is None else {"minutes": minutes}
    words |= {"half": "true"} if half else {}
    written = command("train-inverter", out, words)
    training = Training(build(kind, seed=seed, **options).to(device), target, client, images, seed, lr)
    training.held_out()  # what fails, fails before the first step
    identity = f"{written}, contents {of_training(config, target, kind)}"
    written += folders(data_dir, weights_dir)
    state, total = out.with_suffix(".state"), None if minutes else steps
    share = partial(training.share, steps, minutes)
    with alone(writable(out.parent), out.name):
        for bar in checkpoint.steps_left(
            training, state, identity, every=CHECKPOINT_EVERY, total=total, more=lambda: share() < 1
        ):
            loss = training.step(updates, share())
            bar.set_postfix(mse=f"{loss:.4f}", refresh=False)
        network = training.network.eval()
        truth, rebuilt = training.held_out()
        psnr = float((-10 * network.errors(rebuilt, truth).log10()).mean())
        seen = f"{training.done * updates} updates of {victim}, seed {seed}, B={batch}, defense {defense}"
        network.trained_on = f"{data} train, {size} px: {seen}"
        network.training_seconds = round(training.seconds, 3)
        if half:
            network.body.half()
        weights.save(network, out, architecture=attack, options=options, command=written)
        pairs = make_grid(torch.stack([truth, rebuilt], 1).flatten(0, 2), nrow=batch)
        out.with_suffix(".png").write_bytes(png(pairs))
        state.unlink(missing_ok=True)
        print(f"{out}: {psnr:.2f} dB on {truth.shape[0] * batch} held-out images, after {training.seconds:.0f} s")


SHOWN = ("data", "size", "victim", "batch", "defense", "seed")
"""Of the setting, what a refusal always says."""


class Training:
    """The network, its optimizer, and the batches that are drawn for it; `step` takes one step.

    Attributes:
        done, seconds: steps, and the time that they took.
    """

    def __init__(
        self, network: Inverter, victim: Victim, defense: Defense | None, data: ImageData, seed: int, lr: float
    ) -> None:
        self.network, self.victim, self.defense, self.data, self.lr = network, victim, defense, data, lr
        self.adam = Adam(network.parameters(), lr=lr)
        self.draws = torch.Generator().manual_seed(seed)
        self.done, self.seconds = 0, 0.0
        self.kept_out, self.held = self.hold_out()
        alone = all(type(part).gradient_fn is Defense.gradient_fn for part in parts(defense))
        self.vectorized = alone and vectorizes(Probe(victim, network.image_shape, network.batch))

    def step(self, updates: int, share: float) -> float:
        """One step on so many updates, when this share of the training is done; its loss."""
        started = time.perf_counter()
        for group in self.adam.param_groups:
            group["lr"] = self.lr * (0.1 if share >= 0.75 else 1)
        images, labels = self.draw(updates)
        if not self.done:
            self.network.prepare(*next(self.sent(images, labels, self.draws)))
        read = torch.cat([self.network.read(u, y) for u, y in self.sent(images, labels, self.draws)])
        loss = self.network.errors(self.network.decode(read), images.to(read.device)).mean()
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()
        self.done += 1
        self.seconds += time.perf_counter() - started
        return loss.item()

    def share(self, steps: int, minutes: float | None) -> float:
        return self.done / steps if minutes is None else self.seconds / (60 * minutes)

    def draw(self, count: int) -> Batches:
        """So many batches of images that are not held out; their labels are distinct where the network needs it."""
        size = count * self.network.batch
        x, y = self.data.augmented(size, self.draws, without=self.kept_out)
        while len(found := self.batches(list(range(len(y))), y)) < count:
            more = self.data.augmented(size, self.draws, without=self.kept_out)
            x, y = torch.cat([x, more[0]]), torch.cat([y, more[1]])
        chosen = torch.tensor(found[:count])
        return in_order(x[chosen], y[chosen])

    def admits(self, labels: Tensor) -> bool:
        return not self.network.distinct or len(labels.unique()) == len(labels)

    def hold_out(self) -> tuple[frozenset[int], list[list[int]]]:
        """The images that are never trained on, and those of them of which batches are made.

        Raises:
            InputError: half of the images make no batch, or the others make none.
        """
        images = len(self.data)
        most = images // 2
        count = min(HELD_OUT, most)
        while count:
            every = images // count
            kept_out = frozenset(range(0, every * count, every))
            batches = self.batches(self.data.readable(sorted(kept_out)), self.data.labels)
            if batches and self.suffice(index for index in range(images) if index not in kept_out):
                return kept_out, batches
            count = min(2 * count, most) if count < most else 0
        kind = "of distinct labels " if self.network.distinct else ""
        raise InputError(
            f"half of the {images} images make no batch of {self.network.batch} {kind}to hold out, or the others none "
            "to train on; give a smaller --batch, or other --data."
        )

    def suffice(self, left: Iterable[int]) -> bool:
        """Whether these images make a batch; no more are read than it needs."""
        once = self.data.labels.tolist() if self.network.distinct else range(len(self.data))
        found = set[int]()
        for index, _ in self.data.each(index for index in left if once[index] not in found):
            found.add(once[index])
            if len(found) == self.network.batch:
                return True
        return False

    def batches(self, left: list[int], labels: Tensor) -> list[list[int]]:
        """As many batches as these images make, which have these of the labels."""
        B, found = self.network.batch, list[list[int]]()
        while len(left) >= B:
            chosen = left[:B] if self.admits(labels[left[:B]]) else distinct(left, labels, B)
            if not chosen:
                break
            found.append(chosen)
            left = [index for index in left if index not in chosen]
        return found

    def held_out(self) -> tuple[Tensor, Tensor]:
        """Images that were held out, as batches (N, B, C, H, W), and what is rebuilt from their updates."""
        images, labels = in_order(*map(torch.stack, zip(*map(self.data.batch, self.held), strict=True)))
        rebuilt = []
        for update, y in self.sent(images, labels, torch.Generator().manual_seed(0)):
            with torch.no_grad():  # not around the updates, which clients compute with gradients
                rebuilt.append(self.network(update, y).cpu())
        return images, torch.cat(rebuilt)

    def sent(self, images: Tensor, labels: Tensor, draws: torch.Generator) -> Iterator[tuple[Gradient, Tensor]]:
        """What clients send of batches, (n, *shape) per parameter, and the labels (n, B), not too many at once."""
        many = max(1, ENTRIES // sum(p.numel() for p in self.victim.parameters.values()))
        for x, y in zip(images.split(many), labels.split(many), strict=True):
            yield sent(self.victim, x, y, self.defense, draws, self.vectorized), y.to(self.victim.mean.device)

    def state_dict(self) -> dict[str, Any]:
        adam = checkpoint.moments(self.adam)
        return {"network": self.network.state_dict(), "adam": adam, "done": self.done, "seconds": self.seconds} | {
            "draws": self.draws.get_state()
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        checkpoint.restore(self.adam, state["adam"])
        self.done, self.seconds = state["done"], state["seconds"]
        self.draws.set_state(state["draws"])


def sent(
    victim: Victim,
    images: Tensor,
    labels: Tensor,
    defense: Defense | None,
    generator: torch.Generator,
    vectorized: bool,
) -> Gradient:
    """What clients send of batches (N, B, C, H, W) in [0, 1] with labels (N, B): (N, *shape) per parameter.

    Args:
        vectorized: compute all gradients at once; a defense of theirs, not of the update, needs them one by one.
    """
    if not vectorized:
        each = [
            client_update(victim, x, y, generator=generator, defense=defense)
            for x, y in zip(images, labels, strict=True)
        ]
        return {name: torch.stack([update[name] for update in each]) for name in each[0]}
    images, labels = images.to(victim.mean), labels.to(victim.mean.device)
    with torch.no_grad():
        found = victim_gradients(victim, victim.normalize(images), labels)
    if defense is None:
        return found
    each = [defense({name: g[i] for name, g in found.items()}, generator) for i in range(len(images))]
    return {name: torch.stack([update[name] for update in each]) for name in each[0]}


def in_order(images: Tensor, labels: Tensor) -> Batches:
    """Batches (N, B, ...), each in the order of its labels (N, B)."""
    labels, order = labels.sort(dim=1, stable=True)
    return torch.stack([x[place] for x, place in zip(images, order, strict=True)]), labels


def distinct(indices: list[int], labels: Tensor, count: int) -> list[int]:
    """The first `count` of the indices whose labels are distinct; none if there are not so many."""
    first = {int(labels[index]): index for index in reversed(indices)}
    return sorted(first.values())[:count] if len(first) >= count else []
