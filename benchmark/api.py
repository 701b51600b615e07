"""Capture, attack and score in Python: what the package `gibench` exports."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
from benchmark.given import check_batch, check_names, check_update, checked_labels, preprocessing_of
from benchmark.method_options import default_prior, of_preset, on_top, options_of
from benchmark.registry import find, open_defense, open_loss, open_training
from benchmark.scoring.lpips import find_all
from benchmark.scoring.score import score as score_images
from benchmark.tasks.capture import Client
from benchmark.tasks.capture import capture as capture_images
from benchmark.tasks.effect import check_effect
from benchmark.tracks.track import DEFAULT
from defenses.base import Chain, Defense, parts
from leaderboard.options import Options
from priors import by_name as priors_by_name
from priors.base import Denoiser, Prior
from victims.choices import TRAINING, Amp, Mode
from victims.errors import InputError
from victims.losses.base import Function, as_loss
from victims.modules import build
from victims.observation import Observation
from victims.trial import trial
from victims.victim import Victim
from victims.wrappers import copied, unwrapped

WEIGHTS_DIR = Path("weights")

SPACE_MEAN, SPACE_STD = 0.5, 0.25  # of pixels, where no data set says it: attacks search in what these normalize


@contextmanager
def exact() -> Iterator[None]:
    """As in every command: with gradients, in the model's own precision, on a GPU in full and in one order.

    The caller's settings stay, but for attention, which is computed step by step from the first capture on.
    """
    full = torch.backends.cudnn.flags(torch.backends.cudnn.enabled, deterministic=True, allow_tf32=False)
    cpu, gpu = torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False)
    with torch.inference_mode(False), torch.enable_grad(), full, cpu, gpu:
        yield


@exact()
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
    images, labels = images.clone(), labels.clone()  # those of `inference_mode` take part in no gradient
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

    def defended(*chain: Defense) -> nn.Module:
        return build(partial(Chain(chain).model, copied(model), shape), seed=seed) if chain else model

    names = defense.split("+") if isinstance(defense, str) else [type(part).__name__ for part in parts(defense)]
    defense = open_defense(defense) if isinstance(defense, str) else defense
    chain = parts(defense)
    for part in chain:
        if not isinstance(part, Defense):
            given = f"the class {part.__name__}" if isinstance(part, type) else f"of type {type(part).__name__}"
            raise InputError(f"defense is {given}; give a name, such as 'noise:0.01', or an object of a Defense.")
    net = defended(*chain)
    victim, as_given = make(net), make(net, as_given=True)
    for each in (victim, as_given):
        each.to(next(iter(each.parameters.values())).device)
    fix = "give mode='eval'" if mode != "eval" else "give another model"
    name = f"{type(model).__name__} in {mode} mode"
    labels_of = partial(checked_labels, labels)
    classes = trial(victim, as_given, images.shape, name, "give images or a model that fit", fix, labels_of)
    labels = labels_of(classes)
    local = open_training(lr, epochs, mini_batch, clients, optimizer, fix="give lr=")
    client = Client(defense=defense, local=local, amp=amp, seed=seed, **knowledge)
    check_effect(client, names, victim, lambda i: make(defended(*chain[:i], *chain[i + 1 :])), images, labels)
    return capture_images(victim, images, labels, client, task=task, num_classes=max(2, classes))


@exact()
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
    kind, track = (
        ("tuned", preset.removeprefix("tuned:") or DEFAULT) if preset.startswith("tuned:") else (preset, DEFAULT)
    )
    own_options = of_preset(chosen, chosen.name, kind, track)
    check_names(f"option of {chosen.name}", options, [*Common.__annotations__, *options_of(chosen)])
    if prior is not None and "prior" not in chosen.needs:
        raise InputError(f"{chosen.name} takes no prior; leave prior= out.")
    check_update(observation)
    observation = in_single_precision(observation)
    size, mean = observation.image_shape[-1], observation.victim.mean

    def own(given: str | Prior) -> Prior:
        """The caller's stays as it is, where it is, and in its mode."""
        if isinstance(given, str):
            given = priors_by_name.find(given, weights_dir, size=size, seed=seed)
        elif not isinstance(given, Prior):
            raise InputError(f"a prior is of type {type(given).__name__}; give a name, or an object of a Prior.")
        else:
            given = deepcopy(given).eval().requires_grad_(False)
        return given.to(mean.device, mean.dtype)

    if "prior" in chosen.needs:
        options["prior"] = own(default_prior(chosen, preset) if prior is None or prior == "default" else prior)
    if refine is not None:
        options["refine"] = own(refine)
    given = on_top(own_options, {"seed": seed, **options})
    return built(chosen, given, [name for name in Common.__annotations__ if name in given]).run([observation])


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
    if isinstance(reconstruction, Tensor) and not reconstruction.is_floating_point():
        raise InputError(f"reconstruction is {reconstruction.dtype}; give floats in [0, 1].")
    if isinstance(reconstruction, Reconstruction):
        pixels, failed = reconstruction.pixels.squeeze(0), not bool(reconstruction.cost.isfinite().all())
    _, scores = score_images(pixels, images, failed=failed, **find_all(lpips, weights_dir, download=False))
    return scores
