"""What is attacked: images, victim and client, as the options of a run name them."""

import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmark.registry import open_data, open_defense, open_loss, open_training, open_victim
from benchmark.tasks.batches import Batch, draw_batches
from benchmark.tasks.capture import Client
from benchmark.tasks.effect import check_effect
from benchmark.trained import plain_form, steps_of, train_first
from defenses.base import Defense
from leaderboard.options import Options
from victims import by_name as victims_by_name
from victims import checkpoints
from victims.choices import TRAINING
from victims.client import LocalTraining, calibrate
from victims.data.base import ImageData
from victims.data.channels import in_channels
from victims.errors import InputError
from victims.modules import build
from victims.own_preprocessing import of_model
from victims.preprocessing import Preprocessing, given
from victims.rounds import LR, Rounds, models_of_rounds
from victims.victim import Victim


@dataclass(frozen=True, kw_only=True)
class Setting(Options):
    """The options of a run, and what they name but for the attack.

    Raises:
        InputError: the folder of weights is a file, a number is too large, or a name has bytes that are no text.
    """

    def __post_init__(self) -> None:
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
            if isinstance(value, int):
                not_too_large(**{name: value})

    def weights_file(self) -> Path | None:
        """The file of the victim's trained weights, or None."""
        named = self.victim_weights not in ("random", "calibrated")
        return checkpoints.find(self.victim_weights, self.weights_dir) if named else None

    def weights_label(self) -> str:
        """What a row calls the victim's weights; of a file it holds the beginning of its SHA-256."""
        file = self.weights_file()
        return checkpoints.label(file) if file else self.victim_weights

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


def not_too_large(**numbers: int) -> None:
    """
    Raises:
        InputError: names the first that torch and itertools cannot take.
    """
    for name, number in numbers.items():
        if abs(number) >= 2**63:
            raise InputError(f"{name} is {number}; give a number below 2^63 (9.2e18).")
