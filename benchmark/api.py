"""Capture, attack and score in Python: what the package `gibench` exports."""

from collections.abc import Collection, Iterable, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from attacks.base import Attack, Common
from attacks.engine.author import built
from attacks.engine.half_precision import in_single_precision
from attacks.engine.stage import Reconstruction
from benchmark.config import Config, on_top, options_of
from benchmark.registry import find, open_defense, open_loss, open_training
from benchmark.scoring.lpips import find_all
from benchmark.scoring.metrics import score as score_images
from benchmark.tasks.capture import Client
from benchmark.tasks.capture import capture as capture_images
from benchmark.tasks.effect import check_effect
from defenses.base import Chain, Defense, parts
from leaderboard.options import Options
from priors import by_name as priors_by_name
from priors.base import Denoiser, Prior
from victims.choices import TRAINING, Amp, Mode
from victims.errors import InputError
from victims.losses.base import Function, as_loss
from victims.names import nearest
from victims.observation import Observation
from victims.own_preprocessing import declared
from victims.preprocessing import Preprocessing
from victims.trial import trial
from victims.victim import Victim, build
from victims.wrappers import copied, inside, unwrapped

WEIGHTS_DIR = Path("weights")

# On a GPU convolutions are in full precision and in one order, as in every command; the caller's settings stay.
exact = torch.backends.cudnn.flags(torch.backends.cudnn.enabled, deterministic=True, allow_tf32=False)
SPACE_MEAN, SPACE_STD = 0.5, 0.25  # of pixels, where no data set says it: attacks search in what these normalize


@exact
def capture(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    mean: float | Sequence[float] | Tensor | None = None,
    std: float | Sequence[float] | Tensor | None = None,
    mode: Mode = "eval",
    loss: str | Function = "cross_entropy",
    defense: str | Defense | None = None,
    lr: float | None = None,
    epochs: int = 1,
    mini_batch: int | None = None,
    clients: int = 1,
    optimizer: str = "sgd",
    amp: Amp = "none",
    seed: int = 0,
    task: str = "task",
    **knowledge: Any,
) -> Observation:
    """What the server sees of a client that computes its update from these images.

    The model is copied, and the client computes on another copy, for a model may keep what it is given. What it kept of
    earlier passes is forgotten, unless its logits depend on it.

    Args:
        model: a classifier, normalized images (B, C, H, W) -> logits (B, K); with K = 1 it tells odd classes from even.
        images: (B, C, H, W) in [0, 1].
        labels: (B,) integers, or (B, K) probabilities, as by Mixup.
        mean, std: one number each, or one per channel, by which the client normalizes; by default the model's
            attributes `input_mean` and `input_std`, else images enter the model as they are.
        mode: of the model while the client computes its update; `as_is` leaves every layer in its own.
        loss: the client's, a name such as `label_smoothing:0.1`, or your own: logits (B, K) and labels -> their mean.
        defense: what the client does against leakage, such as `noise:0.01` or `clipping:1+sign`.
        lr: learning rate of local training (FedAvg); None shares the gradient of the batch (FedSGD).
        epochs, mini_batch, clients, optimizer: of local training, see `LocalTraining`; `sgd:0.9:1e-4` has momentum 0.9
            and weight decay 1e-4, `adam` and `adamw` are there too.
        amp: mixed precision of the client, `bf16` or `fp16`.
        seed: of the defense's randomness.
        task: the name of the batch; the attacker knows it, and its starting points depend on it.
        knowledge: what the attacker is declared to know: `give_labels`, `adapt`, `surrogate`, `bn`, `know_lr`, see
            `Client`.

    Raises:
        InputError: images, labels or options do not fit.
    """
    check_batch(images, labels)
    check_names("option of capture", knowledge, ("give_labels", "adapt", "surrogate", "bn", "know_lr"))
    if mode not in TRAINING:
        raise InputError(f"mode is '{mode}'; give one of {', '.join(TRAINING)}.")
    model = unwrapped(model)
    shape = (images.shape[1], images.shape[2], images.shape[3])
    make = partial(
        Victim,
        mean=(SPACE_MEAN,) * shape[0],
        std=(SPACE_STD,) * shape[0],
        preprocessing=preprocessing_of(model, shape, mean, std),
        training=TRAINING[mode],
        loss=open_loss(loss) if isinstance(loss, str) else as_loss(loss),
    )

    def defended(*chain: Defense) -> Victim:
        if not chain:
            return make(model)
        return make(build(partial(Chain(chain).model, copied(model), shape), seed=seed))

    names = defense.split("+") if isinstance(defense, str) else [type(part).__name__ for part in parts(defense)]
    defense = open_defense(defense) if isinstance(defense, str) else defense
    chain = parts(defense)
    for part in chain:
        if not isinstance(part, Defense):
            given = f"the class {part.__name__}" if isinstance(part, type) else f"of type {type(part).__name__}"
            raise InputError(f"defense is {given}; give a name, such as 'noise:0.01', or an object of a Defense.")
    victim = defended(*chain)
    victim.to(next(iter(victim.parameters.values())).device)
    fix = "give mode='eval'" if mode != "eval" else "give another model"
    name = f"{type(model).__name__} in {mode} mode"
    labels_of = partial(checked_labels, labels)
    classes = trial(victim, images.shape, name, "give images or a model that fit", fix, labels_of)
    labels = labels_of(classes)
    local = open_training(lr, epochs, mini_batch, clients, optimizer, fix="give lr=")
    client = Client(defense=defense, local=local, amp=amp, seed=seed, **knowledge)
    check_effect(client, names, victim, lambda i: defended(*chain[:i], *chain[i + 1 :]), images, labels)
    return capture_images(victim, images, labels, client, task=task, num_classes=max(2, classes))


def preprocessing_of(
    model: nn.Module,
    shape: tuple[int, int, int],
    mean: float | Sequence[float] | Tensor | None,
    std: float | Sequence[float] | Tensor | None,
) -> Preprocessing:
    """As given, or what the model declares; else images enter the model as they are.

    Args:
        shape: (C, H, W) of the images.

    Raises:
        InputError: they are no numbers, not as many as channels, or cannot be used.
    """
    if mean is None and std is None:
        return (declared(inside(model)) or Preprocessing((0.0,), (1.0,))).of_channels(shape[0])
    if mean is None or std is None:
        lacks = "mean" if mean is None else "std"
        raise InputError(f"mean= and std= go together, and {lacks} is missing; give both, or neither.")
    return Preprocessing(per_channel("mean", mean, shape[0]), per_channel("std", std, shape[0]))


def per_channel(name: str, given: float | Sequence[float] | Tensor, channels: int) -> tuple[float, ...]:
    """One number for each channel, where there may be one for all.

    Raises:
        InputError: they are no numbers, or not as many as channels.
    """
    try:
        values = torch.as_tensor(given, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(
            f"{name} is of type {type(given).__name__}, and no numbers; give one, or one for each of the {channels} "
            "channels."
        ) from None
    if values.ndim and values.numel() != channels:
        raise InputError(f"{name} has {values.numel()} numbers; give one for each of the {channels} channels.")
    return tuple(values.flatten().expand(channels).tolist())


def checked_labels(labels: Tensor, classes: int) -> Tensor:
    """Labels (B,) as int64, or probabilities (B, K) as they are.

    Args:
        classes: the model's; 1 if its one logit tells odd classes from even.

    Raises:
        InputError: they are not of these classes.
    """
    if labels.is_floating_point():
        if labels.shape[-1] != max(2, classes):
            raise InputError(f"labels have {labels.shape[-1]} probabilities each; the model has {classes} classes.")
        return labels
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0 or (classes > 1 and highest >= classes):
        raise InputError(f"labels go from {lowest} to {highest}; the model has {classes} classes, counted from 0.")
    return labels.long()


def check_batch(images: Tensor, labels: Tensor) -> None:
    """Refuse what is no batch of images with their labels.

    Raises:
        InputError: a wrong shape, type or range.
    """
    if not isinstance(images, Tensor) or not isinstance(labels, Tensor):
        raise InputError("images and labels are no tensors; give torch.as_tensor(...) of them.")
    if images.ndim != 4 or not images.is_floating_point() or not images.numel():
        raise InputError(f"images are {images.dtype} {tuple(images.shape)}; give floats (B, C, H, W) in [0, 1].")
    low, high = (float(bound) for bound in images.aminmax())
    if not (low >= 0 and high <= 1):
        raise InputError(f"images go from {low:.3g} to {high:.3g}; give them in [0, 1], and their mean= and std=.")
    if labels.is_floating_point():
        rows = labels.ndim == 2 and len(labels) == len(images)
        if not rows or not (labels >= 0).all() or not torch.allclose(labels.sum(1), labels.new_ones(()), atol=1e-3):
            raise InputError(
                f"labels are {labels.dtype} {tuple(labels.shape)}; give {len(images)} integers, or {len(images)} rows "
                "of probabilities, which sum to 1."
            )
    elif labels.shape != images.shape[:1] or labels.dtype == torch.bool:
        raise InputError(f"labels are {labels.dtype} {tuple(labels.shape)}; give {len(images)} integers.")


def check_names(what: str, given: Iterable[str], known: Collection[str]) -> None:
    """Refuse mistyped keywords.

    Raises:
        InputError: names the nearest known one.
    """
    for name in given:
        if name not in known:
            raise InputError(f"unknown {what} '{name}'; {nearest(name, known)}known: {', '.join(known)}.")


@exact
def attack(
    method: str | type[Attack],
    observation: Observation,
    *,
    prior: str | Prior | None = None,
    refine: str | Denoiser | None = None,
    preset: str = "default",
    weights_dir: Path = WEIGHTS_DIR,
    seed: int = 0,
    **options: Any,
) -> Reconstruction:
    """Run an attack to its end. The images are `reconstruction.pixels[0]`, (B, C, H, W) in [0, 1].

    A model of half precision is attacked in float32, see `in_single_precision`.

    Args:
        method: a name, as `run --attack` takes it, or a class.
        prior: of methods that take one: as `run --prior` takes it, by default what `run` takes; or an object.
        refine: as `run --refine` takes it; or a denoiser. By default the result stays as it is.
        preset: the method's options: `default`, `paper`, `code`, ...; `tuned` are those that were tuned on the default
            track of the record, which a command takes, and `tuned:cifar10-b1` those of that track.
        weights_dir: folder with weights that are not shipped: generators in `priors/`.
        seed: of the starting points.
        options: on top of the preset: `steps`, `restarts`, and the method's own.

    Raises:
        InputError: a name is unknown, nothing was tuned, or the attack cannot work on this observation.
    """
    chosen: type[Attack] = find("attack", method) if isinstance(method, str) else method
    own_options = of_preset(chosen, preset)
    check_names(f"option of {chosen.name}", options, [*Common.__annotations__, *options_of(chosen)])
    if prior is not None and "prior" not in chosen.needs:
        raise InputError(f"{chosen.name} takes no prior; leave prior= out.")
    observation = in_single_precision(observation)
    size, mean = observation.image_shape[-1], observation.victim.mean

    def own(given: str | Prior) -> Prior:
        """The caller's stays as it is, where it is, and in its mode."""
        if isinstance(given, str):
            given = priors_by_name.find(given, weights_dir, size=size, seed=seed)
        else:
            given = deepcopy(given).eval().requires_grad_(False)
        return given.to(mean.device, mean.dtype)

    if "prior" in chosen.needs:
        options["prior"] = own(chosen.default_prior if prior is None or prior == "default" else prior)
    if refine is not None:
        options["refine"] = own(refine)
    given = on_top(own_options, {"seed": seed, **options})
    return built(chosen, given, [name for name in Common.__annotations__ if name in given]).run([observation])


def of_preset(method: type[Attack], preset: str) -> dict[str, Any]:
    """The options of a method that a preset has.

    Raises:
        InputError: there is no such preset, or nothing was tuned.
    """
    kind, _, track = preset.partition(":")
    if kind == "tuned":
        return Config(attack=method.name, prior="none", preset=kind, track=track).preset_options(method)
    presets = {"default": {}, **method.presets}
    check_names(f"preset of {method.name}", [preset], [*presets, "tuned"])
    return dict(presets[preset])


def score(
    reconstruction: Reconstruction | Tensor,
    images: Tensor,
    *,
    lpips: str = Options.lpips,
    weights_dir: Path = WEIGHTS_DIR,
) -> dict[str, list[float | None]]:
    """Every metric for every image, after the images were assigned one to one; the i-th score belongs to image i.

    LPIPS is None if its weights are neither in `weights_dir` nor in torch's cache: nothing is downloaded. IIP needs a
    gallery of other images, and `same_face` pictures that are known to be aligned faces: they are left out.

    A reconstruction that diverged, whose cost is infinite, has the scores of a failure.

    Args:
        reconstruction: of one batch; or its images (B, C, H, W) in [0, 1].
        images: the private ones, (B, C, H, W) in [0, 1].
        lpips: backbones of LPIPS, as `run --lpips` takes them: `squeeze` gives `lpips`, `alex` and `vgg` give
            `lpips_alex` and `lpips_vgg`; several with commas between them.
        weights_dir: folder with weights that are not shipped: backbones in `lpips/`.

    Raises:
        InputError: there is no such backbone, or a file does not hold its weights.
        ValueError: the shapes differ, or `images` are not in [0, 1].
    """
    pixels, failed = reconstruction, False
    if isinstance(reconstruction, Reconstruction):
        pixels, failed = reconstruction.pixels.squeeze(0), not bool(reconstruction.cost.isfinite().all())
    _, scores = score_images(pixels, images, failed=failed, **find_all(lpips, weights_dir, download=False))
    return scores
