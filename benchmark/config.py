"""What a run is made of: its options, and the objects they name."""

import hashlib
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from inspect import Parameter
from pathlib import Path
from typing import Any, ClassVar, Protocol, get_type_hints

import torch
import yaml
from torch import nn

from attacks.base import Attack, Common
from attacks.engine.author import built
from attacks.engine.preset import Preset
from benchmark.registry import (
    find,
    open_data,
    open_defense,
    open_loss,
    open_training,
    open_victim,
    parameters_of,
    parse,
)
from benchmark.tasks.batches import Batch, draw_batches
from benchmark.tasks.capture import Client
from benchmark.tasks.effect import check_effect
from benchmark.tracks import track as tracks
from benchmark.tracks.track import DEFAULT
from benchmark.tracks.tuned import command as tuning
from benchmark.tracks.tuned import is_tuned, tuned_options
from benchmark.trained import plain_form, steps_of, train_first
from defenses.base import Defense
from leaderboard.options import Options, abouts
from leaderboard.rows import PROTOCOL
from priors import by_name as priors_by_name
from priors.base import Prior
from priors.inverters import Inverter
from victims import by_name as victims_by_name
from victims import checkpoints
from victims.choices import TRAINING
from victims.client import LocalTraining, calibrate
from victims.data.base import ImageData
from victims.data.channels import in_channels
from victims.errors import InputError, Notice
from victims.names import nearest
from victims.own_preprocessing import of_model
from victims.preprocessing import Preprocessing, given
from victims.rounds import LR, Rounds, models_of_rounds
from victims.victim import Victim, build

SHARED = {
    name: Parameter(name, Parameter.KEYWORD_ONLY, annotation=get_type_hints(Common)[name])
    for name in ("restarts", "steps")
}
"""What is tuned of the options that every attack takes."""
LONGEST_NAME = 220  # bytes of a run folder's name, without its seed and digest; file systems take 255


class Method(Protocol):
    """A class with options of its own and named sets of them: an attack, or GIML."""

    presets: ClassVar[Mapping[str, Preset]]


@dataclass(frozen=True, kw_only=True)
class Config(Options):
    """The options of a run, and the objects that they name.

    Raises:
        InputError: the folder of weights is a file, a number is too large, or a name has bytes that are no text.
    """

    def __post_init__(self) -> None:
        if self.prior == "default":
            method: type[Attack] = find("attack", self.attack)
            if "prior" in method.needs:
                of_track = tracks.read(self.track).priors if self.track else {}
                object.__setattr__(self, "prior", of_track.get(method.takes.kind, method.default_prior))
        if self.preset == "auto":
            tuned = is_tuned(tracks.read(self.track or DEFAULT), self.attack)
            object.__setattr__(self, "preset", "tuned" if tuned else "default")
        object.__setattr__(self, "epochs_trained", plain_form(self.epochs_trained))
        if self.weights_dir.is_file():
            raise InputError(
                f"--weights {self.weights_dir} is a file, but it names the folder of generators and LPIPS weights; "
                "the weights of the victim go into --victim-weights."
            )
        for name, value in asdict(self).items():
            if isinstance(value, (str, Path)) and re.search("[\ud800-\udfff]", str(value)):  # no row can hold it
                raise InputError(
                    f"{name} is {str(value)!a}, which has bytes that are no text; rename the file or folder."
                )
            if isinstance(value, int) and abs(value) >= 2**63:  # too large for torch and itertools
                raise InputError(f"{name} is {value}; give a number below 2^63 (9.2e18).")

    def identity(self) -> dict[str, Any]:
        """The options that a row depends on."""
        options = {name: value for name, value in asdict(self).items() if abouts()[name].changes_rows}
        if self.preset == "tuned":
            options["tuned"] = self.tuned_options()
        backbones = ",".join(sorted({*self.lpips.split(",")}))
        return {**options, "lpips": backbones, "victim_weights": self.weights_label(), "protocol": PROTOCOL}

    def weights_file(self) -> Path | None:
        """Of the victim's trained weights."""
        named = self.victim_weights not in ("random", "calibrated")
        return checkpoints.find(self.victim_weights, self.weights_dir) if named else None

    def weights_label(self) -> str:
        """What a row calls the victim's weights; of a file it holds the beginning of its SHA-256."""
        file = self.weights_file()
        return checkpoints.label(file) if file else self.victim_weights

    def folder(self, networks: Sequence[str]) -> Path:
        """Where the results go: the same folder for the same options and the same available networks of metrics."""
        identity = json.dumps([self.identity(), sorted(networks)], sort_keys=True)
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
        name = "-".join(parts).replace("/", "_").replace(":", "_").encode(errors="replace")[:LONGEST_NAME]
        return self.out / f"{name.decode(errors='ignore')}-s{self.seed}-{digest}"

    def make_data(self, split: str | None = None) -> ImageData:
        """The attacked split, or another one."""
        data = open_data(self.data, split or self.split, self.size, self.data_dir, self.resize)
        return in_channels(data, self.channels)

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
        return self.as_victim(data, *self.make_net(data))

    def make_net(self, data: ImageData) -> tuple[nn.Module, Preprocessing]:
        """The model of all rounds with its weights, and what is done to images before it."""
        models, preprocessing = self.make_models(data, self.seed)
        model = Rounds(models) if self.rounds > 1 else models[0]
        if self.victim_weights == "calibrated":
            calibrate(model, self.make_data("train"), preprocessing)
        return model.to(getattr(torch, self.precision)), preprocessing

    def as_victim(self, data: ImageData, net: nn.Module, preprocessing: Preprocessing) -> Victim:
        """With the client's loss and mode; of the data set only its mean and std count."""
        options: dict[str, Any] = {"training": TRAINING[self.victim_mode], "loss": open_loss(self.loss)}
        return Victim(net, mean=data.mean, std=data.std, preprocessing=preprocessing, **options)

    def make_models(self, data: ImageData, seed: int, between_lr: float = LR) -> tuple[list[nn.Module], Preprocessing]:
        """The victim's model in every round, for images such as those of `data`, and what is done to these before.

        Args:
            between_lr: learning rate of the steps between rounds.

        Raises:
            InputError: as `make_model` does, or there are no such rounds.
        """
        if self.rounds < 1 or self.between < 0:
            raise InputError(f"rounds is {self.rounds} and between {self.between}; give 1 or more, and 0 or more.")
        if self.epochs_trained != "0" and self.victim_weights == "calibrated":
            raise InputError("calibrated weights are not trained ones; train from --victim-weights random or a file.")
        if self.rounds > 1 and not self.between and (self.weights_file() or self.epochs_trained != "0"):
            raise InputError("trained weights are the same in every round; add --between, or run with --rounds 1.")
        first, preprocessing = self.make_model(data, seed)
        if steps := self.steps_trained():
            how: dict[str, Any] = {"steps": steps, "seed": seed, "written": self.loss, "out": self.out}
            train_first(first, open_loss(self.loss), self.make_data("train"), preprocessing, **how)
        others = self.make_data("train") if self.between else data
        options: dict[str, Any] = {"rounds": self.rounds, "between": self.between, "lr": between_lr}
        options |= {"loss": open_loss(self.loss), "seed": seed}
        models = models_of_rounds(first, lambda seed: self.make_model(data, seed)[0], others, preprocessing, **options)
        return models, preprocessing

    def steps_trained(self) -> int:
        """How many steps the victim is trained before it is attacked.

        Raises:
            InputError: `epochs_trained` says no such number, or there are no images to train on.
        """
        return 0 if self.epochs_trained == "0" else steps_of(self.epochs_trained, len(self.make_data("train")))

    def make_model(self, data: ImageData, seed: int) -> tuple[nn.Module, Preprocessing]:
        """The victim's model with its defense and its weights, and what is done to images before it.

        Raises:
            InputError: there is no such model or defense, or the weights do not fit.
        """
        file, defense = self.weights_file(), self.make_defense()
        model = victims_by_name.find(self.victim, open_victim, training=TRAINING[self.victim_mode])

        def defended(**options: Any) -> tuple[nn.Module, nn.Module]:
            plain = model(**options)
            if defense is None:
                return plain, plain
            before = set(plain.state_dict())
            made = defense.model(plain, options["image_shape"])
            if file and set(made.state_dict()) != before:
                raise InputError(
                    f"{self.defense} adds to the model, and {file.name} has no weights for that; run with "
                    "--victim-weights random."
                )
            return made, plain

        shape, classes = data.image_shape, len(data.classes)
        made, plain = build(defended, image_shape=shape, num_classes=classes, seed=seed)
        if file:
            checkpoints.load(made, file, self.victim)
        return made, self.preprocessing(plain, data)  # a defense may hide the model's attributes

    def preprocessing(self, model: nn.Module, data: ImageData) -> Preprocessing:
        """What the client does to images before this model: as given, or the model's own, or that of the data set.

        Raises:
            InputError: what is given is no such numbers, or does not fit the channels of the images.
        """
        found = given(self.mean, self.std)
        found = found or of_model(model, self.victim, trained=self.weights_file() is not None)
        return (found or data.preprocessing).of_channels(data.image_shape[0])

    def local_training(self) -> LocalTraining | None:
        """What the clients do before they share; None is FedSGD.

        Raises:
            InputError: as `open_training` does, or the clients have no equal shares of the batch.
        """
        steps = (self.epochs, self.mini_batch, self.clients)
        local = open_training(self.lr, *steps, self.local_optimizer, fix="add --lr")
        if local:
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
            surrogate=self.surrogate,
            give_labels=self.labels == "given",
            bn=self.bn,
            know_lr=self.know_lr,
            amp=self.amp,
            seed=self.seed,
        )

    def check_defense(self, victim: Victim, data: ImageData, batch: Batch) -> None:
        """
        Raises:
            InputError: the defense changes neither this batch nor the model nor the update.
        """
        names = self.defense.split("+")

        def without(number: int) -> Victim:
            rest = "+".join(names[:number] + names[number + 1 :]) or "none"
            return replace(self, defense=rest).make_victim(data)

        check_effect(self.make_client(), names, victim, without, *data.batch(batch.indices))

    def make_prior(self) -> Prior:
        """The prior; a Notice says where an inverter has learned another defense than this one."""
        prior = priors_by_name.find(self.prior, self.weights_dir, size=self.size, seed=self.seed)
        if isinstance(prior, Inverter) and (learned := prior.setting["defense"]) != self.defense:
            text = (
                f"the inverter was trained under the defense {learned}, and the updates are sent under {self.defense}."
            )
            warnings.warn(text, Notice, stacklevel=2)
        return prior

    def make_denoiser(self) -> Prior:
        """Of the refinement."""
        return priors_by_name.find(self.refine, self.weights_dir, size=self.size, seed=self.seed)

    def make_attack(self) -> Attack:
        """The method with its preset, the single options on top, and what every attack takes.

        Raises:
            InputError: an option cannot be used, or batches may have labels that the method does not take.
        """
        method: type[Attack] = find("attack", self.attack)
        if self.batch > 1 and self.batches == "random" and method.made_for.get("batches") == "distinct":
            raise InputError(f"{self.attack} works on batches of distinct labels; run with --batches distinct.")
        common: dict[str, Any] = {
            "restarts": self.restarts,
            "steps": self.steps,
            "chunk": self.chunk,
            "seed": self.seed,
        }
        common |= {"match": self.match, "compile": self.compile, "compile_s": self.compile_s}
        options = self.method_options(method)
        if self.labels not in ("given", "none"):
            common["label_method"] = self.labels
        options |= {name: value for name, value in common.items() if value is not None}
        if "prior" in method.needs:
            options["prior"] = self.make_prior().to(getattr(torch, self.precision))
        if self.refine != "none":
            options["refine"] = self.make_denoiser().to(getattr(torch, self.precision))
        return built(method, options, [*common])

    def method_options(self, method: type[Method]) -> dict[str, Any]:
        """The method's preset, and the single options on top; steps of a stage replace tuned steps in total."""
        preset, single = self.preset_options(method), self.single_options(method)
        if any(name.startswith("steps") for name in single):
            preset.pop("steps", None)
        return preset | single

    def tuned_options(self) -> dict[str, Any]:
        """What was tuned for the method on the track."""
        return tuned_options(self.track or DEFAULT, self.attack)

    def changes(self, method: type[Method]) -> dict[str, Any]:
        """What was tuned, and of `set`, as it was written, what differs from the preset: what a row says of it."""
        own = options_of(method)
        before = {name: option.default for name, option in own.items()} | self.preset_options(method)
        written = dict(text.split("=", 1) for text in self.set)
        tuned = self.tuned_options() if self.preset == "tuned" else {}
        changed = [name for name, value in self.single_options(method).items() if value != before[name]]
        return {n: v for n, v in tuned.items() if n in own} | {name: written[name] for name in changed}

    def preset_options(self, method: type[Method]) -> dict[str, Any]:
        if self.preset == "tuned":
            tuned, own = self.tuned_options(), options_of(method) | SHARED
            again = f"run {tuning(self.track or DEFAULT, self.attack)}"
            for name, value in tuned.items():
                if name not in own:
                    raise InputError(f"{self.attack} was tuned with '{name}', which it has not; {again}")
                if parse(own[name], tracks.text(value), f"{self.attack} was tuned with") != value:
                    raise InputError(f"{self.attack} was tuned with {name} {value!r}; {again}")
            return tuned
        presets = {"default": {}, **method.presets}
        if self.preset not in presets:
            raise InputError(f"{self.attack} has no preset '{self.preset}'; it has {', '.join([*presets, 'tuned'])}.")
        return dict(presets[self.preset])

    def single_options(self, method: type[Method]) -> dict[str, Any]:
        """`set` as typed constructor options."""
        known = options_of(method)
        chosen = {}
        for text in self.set:
            name, equals, value = text.partition("=")
            if not equals:
                raise InputError(f"'{text}' is no KEY=VALUE; write for example {next(iter(known))}=1.")
            if name not in known:
                near = nearest(name, known)
                raise InputError(f"{self.attack} has no option '{name}'; {near}it takes {', '.join(known)}.")
            chosen[name] = parse(known[name], value, f"{self.attack} option")
        return chosen


def dump(config: Config, resolved: Mapping[str, Any]) -> str:
    """The resolved options as YAML that `--config` reads back."""
    plain = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(config).items()}
    comment = "".join(f"# {name}: {json.dumps(value)}\n" for name, value in resolved.items())
    return comment + yaml.safe_dump(plain, sort_keys=False)


def options_of(method: type[Method]) -> dict[str, Parameter]:
    """The method's own constructor options, without those that every attack takes.

    A constructor with `**options: Any` passes them on: then those of the next base are options too.
    """
    found: dict[str, Parameter] = {}
    for base in method.__mro__:
        if "__init__" in vars(base):
            own = parameters_of(base)
            found = {name: p for name, p in own.items() if p.kind is p.KEYWORD_ONLY} | found
            if not any(p.kind is p.VAR_KEYWORD and p.annotation is Any for p in own.values()):
                break
    return {name: p for name, p in found.items() if name not in Common.__annotations__}
