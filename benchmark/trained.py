"""Victims that are trained before they are attacked: once for all runs and processes, and kept by what decides them."""

import re
import time
import warnings
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from benchmark.device import best_device
from benchmark.launch.lock import Busy, alone
from benchmark.sources import loaded, of_text, sources
from benchmark.state import of_state, of_tensors
from victims import checkpoints
from victims.data.base import ImageData
from victims.errors import InputError, Notice
from victims.losses.base import Loss
from victims.preprocessing import Preprocessing
from victims.rounds import BATCH, train

FOLDER = "victims"  # below the folder of results; it may be removed at any time
FILE = "weights.safetensors"
DIGEST = "digest"  # of the training and its tensors, in the metadata of the file
LOOK = 0.1  # seconds between two looks


def plain_form(written: str) -> str:
    """The same training in its shortest form: `05steps` is `5steps`, `1.0` is `1`; other text stays as it is."""
    found = re.fullmatch(r"0*([0-9]+)(?:(steps)|\.([0-9]+))?", written)
    if not found:
        return written
    whole, unit, part = found.groups(default="")
    return f"{whole}.{part}".rstrip("0").rstrip(".") if part else whole + unit


def steps_of(written: str, images: int) -> int:
    """Steps of a training that is written as `1000steps`, or in epochs of so many images as `3` or `0.5`; 0 is none.

    Raises:
        InputError: it is neither, or less than one step.
    """
    if written == "0":
        return 0
    found = re.fullmatch(r"([0-9]{1,9})steps|([0-9]{1,9}(?:\.[0-9]{1,9})?)", written)
    if not found:
        raise InputError(f"epochs_trained is '{written}'; give epochs such as 3 or 0.5, or steps such as 1000steps.")
    steps = int(found[1]) if found[1] else round(float(found[2]) * images / BATCH)
    if not steps:
        raise InputError(
            f"epochs_trained {written} is less than a step of training; give 0 for no training, or a larger number."
        )
    return steps


def train_first(
    model: nn.Module,
    loss: Loss,
    data: ImageData,
    preprocessing: Preprocessing,
    *,
    steps: int,
    seed: int,
    written: str,
    out: Path,
) -> None:
    """Give a model, in place, its weights after steps of training, as `victims.rounds.train` takes them.

    The weights are kept in `out`, and whoever needs them while they are being made waits. What names them is the model
    with its initial weights, the loss, the code of both and of the training, the images and the preprocessing.

    Args:
        seed: of the order of the images, and of dropout.
        written: the loss as an option, which may hold a dotted path.

    Raises:
        InputError: the training diverges, or its weights cannot be written.
    """
    code = sources(loaded(), written, *{type(layer) for layer in model.modules()}, type(loss), train)
    images = (data.digest(), data.split_digest())
    decides = (of_state(model), of_state(loss), code, images, preprocessing.mean, preprocessing.std, steps, seed)
    folder, waiting = out / FOLDER / of_text(decides), False
    while (weights := kept(folder / FILE)) is None:
        try:
            with alone(folder):
                if kept(folder / FILE) is None:  # nobody has just written them
                    if (folder / FILE).exists():
                        line = f"{folder / FILE} is not what was written there; the victim is trained again."
                        warnings.warn(line, Notice, stacklevel=2)
                    learn(model, loss, data, preprocessing, steps, seed)
                    write(folder / FILE, model)
        except Busy:
            if not waiting:
                warnings.warn("another process is training this victim, and is waited for.", Notice, stacklevel=2)
            waiting = True
            time.sleep(LOOK)
        except OSError as error:
            raise InputError(
                f"cannot write the trained victim to {folder} ({error.strerror}); choose another --out."
            ) from None
    state = model.state_dict()
    state.update(weights)  # the file lacks the versions of layers, without which some do not load
    model.load_state_dict(state)


def kept(file: Path) -> dict[str, Tensor] | None:
    """The weights in a file; None where it is not there, or is not what was written."""
    try:
        found = checkpoints.tensors(file)
    except InputError:
        return None
    with safe_open(file, framework="pt") as opened:
        return found if (opened.metadata() or {}).get(DIGEST) == seal(file, found) else None


def seal(file: Path, tensors: dict[str, Tensor]) -> str:
    """A digest of the tensors and of the training that names their folder, so that weights of another do not pass."""
    return of_text((file.parent.name, of_tensors(tensors)))


def learn(model: nn.Module, loss: Loss, data: ImageData, preprocessing: Preprocessing, steps: int, seed: int) -> None:
    """Train, in place, on a GPU where there is one; the same on every start.

    Raises:
        InputError: the weights do not stay finite.
    """
    draws = torch.Generator().manual_seed(seed)
    device = best_device()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # for models with dropout
        train(model.to(device), loss.to(device), data, preprocessing, steps, draws, bar="training the victim")
    model.cpu()
    if not all(p.isfinite().all() for p in model.parameters()):  # a buffer may be infinite, as a mask is
        raise InputError(f"{steps} steps of training gave NaN or infinite weights; choose another --victim or --loss.")


def write(file: Path, model: nn.Module) -> None:
    state = model.state_dict().items()  # copied, for layers may share weights
    tensors = {name: value.clone(memory_format=torch.contiguous_format) for name, value in state}
    checkpoints.write({file: to_bytes(tensors, metadata={DIGEST: seal(file, tensors)})})
