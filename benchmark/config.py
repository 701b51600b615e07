"""What a run is made of: its options, and the objects they name."""

import hashlib
import inspect
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from torch import nn

from attacks.base import Attack, Common
from attacks.engine.compiled import Compile
from attacks.engine.objective import Match
from benchmark.registry import find
from benchmark.spec import open_data, open_defense, parse
from benchmark.tasks.batches import Batch, draw_batches
from benchmark.tasks.capture import Client
from defenses.base import Defense
from leaderboard.rows import PROTOCOL, Control
from priors import catalog as catalog
from priors.base import Prior
from victims import catalog as victims_by_name
from victims import checkpoints
from victims.client import Level, LocalTraining, calibrate
from victims.data.base import ImageData
from victims.data.files import Resize
from victims.errors import InputError
from victims.rounds import Rounds, models_of_rounds
from victims.victim import Victim, build

NOT_THE_RESULT = ("tasks", "devices", "nodes", "data_dir", "out", "weights_dir", "wandb")  # options that change no row


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options of a run. Names may be dotted paths to classes of your own.

    Args:
        attack: the method; several with commas between them.
        preset: the method's options: `default`, or as its `paper` or its authors' `code` has them.
        set: single options of the method, KEY=VALUE, on top of the preset.
        data: the data set; NAME:ARGUMENT where it takes one (pacs:sketch, folder:PATH).
        split: whose images are attacked; settings are chosen on `tune`, results come from `test`.
        size: side of the images in pixels.
        resize: how images that come as files get that size: the shorter side to it, bicubic; or as the code of a paper.
        data_dir: the folder that holds the data set's own, for data sets that come as files.
        victim: the model: a name, `torchvision:NAME` or `timm:NAME`.
        victim_weights: `random`; `calibrated`: random, with batch-norm running statistics of training images; or a
            file of trained ones (.th, .pt, .pth, .safetensors), as a path or below the weights folder.
        lr: learning rate of local training (FedAvg); without it a client shares the gradient of its batch (FedSGD).
        epochs: of local training.
        mini_batch: images per local step; by default all of a client's.
        clients: that train locally, each on an equal share of the batch; the server sees the mean of their updates.
        know_lr: whether the attacker knows the learning rate.
        match: how the attack matches local training: `aga`, as one gradient; or `fa`, by repeating it.
        rounds: of federated learning in which the client shares an update of the same images.
        between: steps of training by other clients from one round to the next; with 0 every round has new weights.
        victim_mode: whether the client computes its update in eval or in train mode.
        prior: the generator for attacks that need one: a name from `prior list`; ARCHITECTURE:FILE in its authors'
            layout; a .safetensors file of this suite; or, untrained, ARCHITECTURE or ARCHITECTURE:SIZE.
        defense: what the client does against leakage: none, or name:parameter:..., several in their order with +; runs
            with one after the other have commas between them.
        adapt: whether the attacker knows which defense is used, and copies it from what it received; yes, no or both.
        labels: whether the attacker is `given` the batch's labels, has `none`, or reads them from the update by one of
            the methods of `attacks/labels`, such as `alr`.
        bn: the batch-norm statistics that the attacker has: `none`; the model's own `running` ones; those of the
            batch `recovered` from the running ones that the client shares; or the batch's `exact` ones.
        control: `none`; `mean_image` scores the mean training image, `shuffled_update` shows the attack an
            update of other images.
        batch: images per task.
        batches: which images go together: `random`; `distinct`, no label twice; `unbalanced`, half of one class and a
            quarter of another; or a file with the ids of one task's images on each line.
        tasks: how many private batches are attacked; more of them extend the same run.
        restarts: independent starts per task; by default the preset's, or 2.
        steps: in total per task; by default the preset's.
        group: tasks that are attacked together.
        chunk: runs (tasks times restarts) evaluated at once; by default all on a GPU, few on a CPU.
        compile: the evaluations of a step: `auto`, on a CPU where a task's steps repay it; `on` or `off`.
        devices: processes on every machine, by default one for each GPU or else for each CPU core.
        nodes: machines on which this command is started, each with its NODE_RANK; what torchrun and srun start says so.
        precision: of images, victim and attack.
        seed: of the victim's weights, an untrained prior's and the attack's starts.
        out: folder of results.
        weights_dir: folder with weights that are not shipped: generators in `priors/`, the LPIPS backbone in `lpips/`.
        wandb: Weights & Biases logging.
    """

    attack: str = "gias"
    preset: str = "default"
    set: list[str] = field(default_factory=list)
    data: str = "photos"
    split: str = "test"
    size: int = 32
    resize: Resize = "shorter"
    data_dir: Path = Path("data")
    victim: str = "convnet"
    victim_weights: str = "random"
    victim_mode: Literal["eval", "train"] = "eval"
    lr: float | None = None
    epochs: int = 1
    mini_batch: int | None = None
    clients: int = 1
    know_lr: bool = True
    match: Match = "aga"
    rounds: int = 1
    between: int = 0
    prior: str = "dcgan-photos32"
    defense: str = "sparsification:0.5"
    adapt: bool = True
    labels: str = "given"
    bn: Level = "none"
    control: Control = "none"
    batch: int = 4
    batches: str = "random"
    tasks: int = 6
    restarts: int | None = None
    steps: int | None = None
    group: int = 1
    chunk: int | None = None
    compile: Compile = "auto"
    devices: int | None = None
    nodes: int = 1
    precision: Literal["float32", "float64"] = "float32"
    seed: int = 0
    out: Path = Path("results")
    weights_dir: Path = Path("weights")
    wandb: Literal["online", "offline", "off"] = "offline"

    def identity(self) -> dict[str, Any]:
        """The options that a row depends on."""
        options = {name: value for name, value in asdict(self).items() if name not in NOT_THE_RESULT}
        return {**options, "victim_weights": self.weights_label(), "protocol": PROTOCOL}

    def weights_file(self) -> Path | None:
        """Of the victim's trained weights."""
        named = self.victim_weights not in ("random", "calibrated")
        return checkpoints.find(self.victim_weights, self.weights_dir) if named else None

    def weights_label(self) -> str:
        """What a row calls the victim's weights; of a file it holds the beginning of its SHA-256."""
        file = self.weights_file()
        return checkpoints.label(file) if file else self.victim_weights

    def folder(self, lpips: bool) -> Path:
        """Where the results go: the same options, the same folder."""
        identity = json.dumps([self.identity(), lpips], sort_keys=True)
        digest = hashlib.sha256(identity.encode()).hexdigest()[:8]
        parts = [
            self.attack,
            self.preset,
            Path(self.data).name,
            self.victim,
            f"b{self.batch}",
            self.defense,
            self.control,
        ]
        return self.out / ("-".join(parts).replace("/", "_").replace(":", "_") + f"-s{self.seed}-{digest}")

    def make_data(self, split: str | None = None) -> ImageData:
        """The attacked split, or another one."""
        return open_data(self.data, split or self.split, self.size, self.data_dir, self.resize)

    def make_batches(self, data: ImageData, tasks: int) -> list[Batch]:
        """The first `tasks` batches of a split."""
        defense = self.make_defense()
        return draw_batches(
            data,
            f"{self.data}-{data.split}-{self.size}px" + (f"-{self.resize}" if self.resize != "shorter" else ""),
            rule=self.batches,
            counts=defense.class_counts(self.batch) if defense else [],
            batch_size=self.batch,
            tasks=tasks,
        )

    def make_victim(self, data: ImageData) -> Victim:
        models = self.make_models(data, self.seed)
        model = Rounds(models) if self.rounds > 1 else models[0]
        if self.victim_weights == "calibrated":
            calibrate(model, self.make_data("train"))
        model.to(getattr(torch, self.precision))
        return Victim(model, mean=data.mean, std=data.std, training=self.victim_mode == "train")

    def make_models(self, data: ImageData, seed: int) -> list[nn.Module]:
        """The victim's model in every round, for images such as those of `data`."""
        if self.rounds < 1 or self.between < 0:
            raise InputError(f"rounds is {self.rounds} and between {self.between}; give 1 or more, and 0 or more.")
        file = self.weights_file()
        if file and self.rounds > 1 and not self.between:
            raise InputError("trained weights are the same in every round; add --between, or run with --rounds 1.")
        own = partial(find, "victim")
        model = victims_by_name.find(self.victim, own, training=self.victim_mode == "train")

        defense = self.make_defense()

        def defended(**options: Any) -> nn.Module:
            plain = model(**options)
            if defense is None:
                return plain
            before = set(plain.state_dict())
            made = defense.model(plain)
            if file and set(made.state_dict()) != before:
                raise InputError(
                    f"{self.defense} adds to the model, and {file.name} has no weights for that; run with "
                    "--victim-weights random."
                )
            return made

        def make(seed: int) -> nn.Module:
            made = build(defended, image_shape=data.image_shape, num_classes=len(data.classes), seed=seed)
            if file:
                checkpoints.load(made, file, self.victim)
            return made

        others = self.make_data("train") if self.between else data
        return models_of_rounds(make, others, rounds=self.rounds, between=self.between, seed=seed)

    def local_training(self) -> LocalTraining | None:
        """What the clients do before they share; None is FedSGD.

        Raises:
            InputError: a count below 1, no learning rate for what needs one, or no equal shares of the batch.
        """
        if self.lr is None:
            if (self.epochs, self.mini_batch, self.clients) != (1, None, 1):
                raise InputError("local epochs, mini-batches and several clients need a learning rate; add --lr.")
            return None
        local = LocalTraining(lr=self.lr, epochs=self.epochs, mini_batch=self.mini_batch, clients=self.clients)
        local.schedule(self.batch)
        return local

    def make_defense(self) -> Defense | None:
        return open_defense(self.defense)

    def make_client(self) -> Client:
        """How a client computes its update, and what the attacker is declared to know.

        Raises:
            InputError: the defense or the local training cannot be used.
        """
        return Client(
            defense=self.make_defense(),
            local=self.local_training(),
            adapt=self.adapt,
            give_labels=self.labels == "given",
            bn=self.bn,
            know_lr=self.know_lr,
            seed=self.seed,
        )

    def make_prior(self) -> Prior:
        return catalog.find(self.prior, self.weights_dir, size=self.size, seed=self.seed)

    def make_attack(self) -> Attack:
        """The method with its preset, the single options on top, and what every attack takes."""
        method: type[Attack] = find("attack", self.attack)
        common = {"restarts": self.restarts, "steps": self.steps, "chunk": self.chunk, "seed": self.seed}
        common |= {"match": self.match, "compile": self.compile}
        options = self.method_options(method)
        if self.labels not in ("given", "none"):
            common["label_method"] = self.labels
        options |= {name: value for name, value in common.items() if value is not None}
        if "prior" in method.needs:
            options["prior"] = self.make_prior().to(getattr(torch, self.precision))
        return method(**options)

    def method_options(self, method: type) -> dict[str, Any]:
        """The method's preset, and the single options on top."""
        return {**self.preset_options(method), **self.single_options(method)}

    def changes(self, method: type) -> dict[str, str]:
        """Of `set`, as it was written, what differs from the preset: what a row says of it."""
        before = {name: option.default for name, option in options_of(method).items()} | self.preset_options(method)
        written = dict(text.split("=", 1) for text in self.set)
        return {name: written[name] for name, value in self.single_options(method).items() if value != before[name]}

    def preset_options(self, method: type) -> Mapping[str, Any]:
        presets: Mapping[str, Mapping[str, Any]] = {"default": {}, **method.presets}
        if self.preset not in presets:
            raise InputError(f"{self.attack} has no preset '{self.preset}'; it has {', '.join(presets)}.")
        return presets[self.preset]

    def single_options(self, method: type) -> dict[str, Any]:
        """`set` as typed constructor options."""
        known = options_of(method)
        chosen = {}
        for text in self.set:
            name, equals, value = text.partition("=")
            if not equals or name not in known:
                raise InputError(f"{self.attack} has no option '{text}'; it takes KEY=VALUE of {', '.join(known)}.")
            chosen[name] = parse(known[name], value, f"{self.attack} option")
        return chosen


def dump(config: Config, resolved: Mapping[str, Any]) -> str:
    """The resolved options as YAML that `--config` reads back."""
    plain = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(config).items()}
    comment = "".join(f"# {name}: {json.dumps(value)}\n" for name, value in resolved.items())
    return comment + yaml.safe_dump(plain, sort_keys=False)


def options_of(method: type) -> dict[str, inspect.Parameter]:
    """The method's own constructor options, without those that every attack takes."""
    parameters = inspect.signature(method.__init__).parameters
    return {n: p for n, p in parameters.items() if p.kind is p.KEYWORD_ONLY and n not in Common.__annotations__}
