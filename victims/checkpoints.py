"""Files of trained weights in the layout of their authors: read without running code, or refused in one line."""

import hashlib
import re
import secrets
import sys
import warnings
from argparse import Namespace
from collections import Counter, OrderedDict
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.serialization import safe_globals

from victims.data.base import some
from victims.errors import InputError, Notice

NESTED = ("state_dict", "model_state_dict", "model", "net", "network", "weights", "ema", "model_ema", "state_dict_ema")
"""Where training scripts put a state dict; of several the first one counts: trained weights before their averages."""

PREFIXES = frozenset(("module", "model", "net", "network", "_module"))
"""Names of the attribute that holds the model, in wrappers and training classes."""

WRAPPERS = r"\b(_orig_mod|_checkpoint_wrapped_module|_fsdp_wrapped_module)\."
"""What torch puts inside keys, at any depth: compiled, checkpointed and sharded modules."""

OLD_DENSE = r"(denselayer\d+\.(?:norm|relu|conv))\.([12])\."
"""In the keys of the files that torchvision publishes for its DenseNets, which it renames by itself as it gets them."""


def write(files: Mapping[Path, bytes]) -> None:
    """Write all of them or, on a full disk, none: every file is the older one or the new one, never a part."""
    # Named for this call, for on a disk without locks several processes may write at the same time.
    partial = {path: path.with_name(f"{path.name}.partial-{secrets.token_hex(8)}") for path in files}
    try:
        for path, content in files.items():
            partial[path].write_bytes(content)
        for path, whole in partial.items():
            whole.replace(path)
    finally:
        for left in partial.values():
            left.unlink(missing_ok=True)


def tensors(path: Path) -> Any:
    """The content of a file, on the CPU: `.safetensors`, or what `torch.save` wrote. Code in it never runs.

    Raises:
        InputError: no file, or one that is not of plain tensors.
    """
    if not path.is_file():
        raise InputError(f"no weights at {path}; put them there, or fix the path.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with safe_globals([Namespace]):  # options beside the weights; it holds values and runs nothing
            return torch.load(path, "cpu", weights_only=True)
    except Exception as error:  # on another kind of file the reader may fail in any way
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        if found:
            raise InputError(
                f"{path} is not a file of plain tensors: it also holds a {found[1]}, which only its own code can read; "
                "save model.state_dict() alone."
            ) from None
        raise InputError(f"{path} is not a file of plain tensors ({type(error).__name__}); get it again.") from None


@contextmanager
def expected(what: str, path: Path) -> Iterator[None]:
    """Turn any failure on a file of another layout into one line.

    Raises:
        InputError: in place of any error.
    """
    try:
        yield
    except Exception as error:
        reason = shorten(f"{type(error).__name__}: {error}", 160)
        raise InputError(f"{path} is not {what} ({reason}); give its weights.") from None


def find(name: str, folder: Path) -> Path:
    """The file of a victim's weights: at this path, or else inside the folder.

    Raises:
        InputError: there is none.
    """
    for path in (Path(name), folder / name):
        if path.is_file():
            return path
    raise InputError(f"no victim weights '{name}', here or in {folder}; give random, calibrated or such a file.")


def load(model: nn.Module, path: Path, name: str) -> None:
    """Give a model all of its weights and buffers, in place.

    The file holds a state dict, or has one under one of `NESTED`. A prefix that all of its keys have (`module.`,
    `model.`, ...) is removed; with one, keys without it are no part of the model and left out. A Notice says what timm
    resampled, see `adapted`.

    Args:
        name: of the model, for messages.

    Raises:
        InputError: no such file, or of another model, other classes or another image size; or its numbers are no
            weights.
    """
    state = tensors(path)
    with expected(f"a state dict of {name}", path):
        while inner := [state[key] for key in NESTED if isinstance(state.get(key), Mapping)]:
            state = inner[0]
        given = {re.sub(WRAPPERS, "", key): value for key, value in state.items()}
        versions = getattr(state, "_metadata", {})
    own = {re.sub(WRAPPERS, "", key): key for key in model.state_dict()}
    prefix = prefix_of(given, own, path, name)
    with expected(f"a state dict of {name}", path):
        given = {
            own.get(plain, plain): torch.as_tensor(value)
            for key, value in given.items()
            if key.startswith(prefix) and (plain := key.removeprefix(prefix))
        }
        found = adapted(given, model, name)
        found |= tied(found, model)
    for key, tensor in model.state_dict().items():
        if key in found:
            compare(found[key], tensor, key, path, name)
    with expected(f"a state dict of {name}", path):
        missing, unexpected = model.load_state_dict(versioned(found, model, versions, prefix), strict=False)
    if missing or unexpected:
        lacks = f" its keys lack {some(missing)};" if missing else ""
        has = f" the model has no {some(unexpected)};" if unexpected else ""
        raise InputError(f"{path} is not a state dict of {name}:{lacks}{has} give the weights of this model.")
    tell_resampled(given, found, path)


def versioned(
    found: Mapping[str, Tensor], model: nn.Module, versions: Mapping[str, Mapping[str, Any]], prefix: str
) -> OrderedDict[str, Tensor]:
    """The weights with the version of every layer, by which a layer knows the keys and the form of older ones.

    That is the file's. Where the file has none, as `.safetensors`, it is the model's own, unless there are keys that
    the model lacks, which are older ones then. Batch and instance norm have none, so that files without
    `num_batches_tracked` load.

    Args:
        versions: as the file has them, by its own names of layers.
        prefix: of these names.
    """
    state = model.state_dict()
    current, layers = getattr(state, "_metadata", {}), dict(model.named_modules())
    named = {re.sub(WRAPPERS, "", f"{layer}."): about for layer, about in versions.items()}
    of_file = {
        name.removeprefix(prefix).removesuffix("."): about for name, about in named.items() if name.startswith(prefix)
    }
    of_layers = of_file if found.keys() - state.keys() else {**current, **of_file}
    whole = OrderedDict(found)
    vars(whole)["_metadata"] = {
        layer: about for layer, about in of_layers.items() if not isinstance(layers.get(layer), _NormBase)
    }
    return whole


def adapted(given: dict[str, Tensor], model: nn.Module, name: str) -> dict[str, Tensor]:
    """Weights of a library's model as the library itself adapts them; those that fit, or are for another model, stay as
    they are.

    torchvision renames the keys of its DenseNets; timm those from a layout of their authors, and resamples position
    embeddings to the size of the images.
    """
    library, _, architecture = name.partition(":")
    if library == "torchvision" and architecture.startswith("densenet"):
        return {re.sub(OLD_DENSE, r"\1\2.", key): value for key, value in given.items()}
    if library != "timm" or shapes(given) == shapes(model.state_dict()):
        return given
    from timm.models import model_entrypoint  # takes most of a second, and few runs need it

    adapt = getattr(sys.modules[model_entrypoint(architecture).__module__], "checkpoint_filter_fn", None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about how timm resamples
        return dict(adapt(dict(given), model)) if adapt else given


def tied(found: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Names that a file lacks of numbers that it has: `.safetensors` has one name of what two layers share."""
    place = {key: (tensor.data_ptr(), tensor.shape, tensor.stride()) for key, tensor in model.state_dict().items()}
    given = {place[key]: found[key] for key in found.keys() & place.keys() if place[key][0]}
    return {key: given[at] for key, at in place.items() if key not in found and at in given}


def tell_resampled(given: Mapping[str, Tensor], found: Mapping[str, Tensor], path: Path) -> None:
    """A Notice of the tensors that timm changed to other shapes."""
    changed = [key for key in found if key in given and found[key].shape != given[key].shape]
    if changed:
        sizes = some(f"{key} from {sides(given[key])} to {sides(found[key])}" for key in changed)
        warnings.warn(
            f"{path.name} is for images of another size: timm resampled {sizes}; its accuracy here is not the "
            "published one.",
            Notice,
            stacklevel=3,
        )


def shapes(state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {key: tensor.shape for key, tensor in state.items()}


def prefix_of(given: Iterable[str], own: Container[str], path: Path, name: str) -> str:
    """What stands before the model's own keys in the file's: nothing, or a prefix with a dot at its end.

    Raises:
        InputError: the file holds several such models, and the prefixes do not tell which.
    """
    found: Counter[str] = Counter()
    for key in given:
        parts = key.split(".")
        found.update(".".join([*parts[:i], ""]) for i in range(len(parts)) if ".".join(parts[i:]) in own)
    most = [prefix for prefix, count in found.items() if count == max(found.values())]
    if not most or "" in most:
        return ""
    usual = [prefix for prefix in most if set(prefix.split(".")[:-1]) <= PREFIXES]
    if len(most) > 1 and len(usual) != 1:
        raise InputError(
            f"{path} has {len(most)} models like {name}, under {some(most)}; save the one to attack alone."
        )
    return (usual or most)[0]


def compare(given: Tensor, own: Tensor, key: str, path: Path, name: str) -> None:
    """Refuse a tensor that a model cannot have in place of its own.

    Raises:
        InputError: another shape, or what `require_numbers` refuses.
    """
    if given.shape != own.shape:
        raise InputError(
            f"{path} does not fit {name} here: its {key} is {sides(given)}, not {sides(own)}; "
            "give weights for the data's classes, --channels and --size."
        )
    require_numbers(given, own, key, path, name)


def require_numbers(given: Tensor, own: Tensor, key: str, path: Path, name: str) -> None:
    """Refuse what would load and be no weights.

    Raises:
        InputError: another kind of numbers than the model's own, or NaN or infinite ones.
    """
    if not own.is_floating_point():
        return
    if not given.is_floating_point():
        kind = str(given.dtype).removeprefix("torch.")
        raise InputError(f"{path} does not fit {name}: its {key} is {kind}, not floating point; give trained weights.")
    if own.isfinite().all():
        require_finite(given.to(own.dtype), key, path)


def require_finite(given: Tensor, key: str, path: Path) -> None:
    """Refuse NaN and infinite numbers.

    Raises:
        InputError: there are some.
    """
    if not given.isfinite().all():
        raise InputError(f"{path} has NaN or infinite numbers in {key}; give weights of a training that went well.")


def sides(tensor: Tensor) -> str:
    return " x ".join(str(side) for side in tensor.shape) or "one number"


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def label(path: Path) -> str:
    """The name of these weights in a row: the file's name and the beginning of its SHA-256."""
    return f"{path.name}:{sha256(path)[:8]}"
