"""What is asked of any PyTorch module: its mode, its type, which tensors it trains, what passes its layers."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from victims.errors import InputError

T = TypeVar("T")


@contextmanager
def passing(layers: Mapping[str, nn.Module]) -> Iterator[dict[str, list[tuple[Tensor, Tensor]]]]:
    """Record the input and the output of layers, by name, one pair for each call while the context lasts."""
    seen: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in layers}
    hooks = [
        layer.register_forward_hook(lambda _, given, left, name=name: seen[name].append((given[0], left)))
        for name, layer in layers.items()
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def set_mode(model: nn.Module, training: bool | None) -> None:
    """Put a model into train or eval mode; None leaves every layer in its own."""
    if training is not None:
        model.train(training)


@contextmanager
def modes_kept(model: nn.Module) -> Iterator[None]:
    """Every layer is in its mode again when the context ends."""
    modes = {module: module.training for module in model.modules()}
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def trained_parameters(model: nn.Module) -> list[str]:
    """The names of the parameters that require gradients, which a client trains and shares.

    Raises:
        InputError: there are none.
    """
    parameters = dict(model.named_parameters())
    if not parameters:
        raise InputError(f"{type(model).__name__} has no parameters, so there is no update to attack.")
    trained = [name for name, parameter in parameters.items() if parameter.requires_grad]
    if not trained:
        raise InputError(
            f"all {len(parameters)} parameters of {type(model).__name__} are frozen, so there is no update to attack; "
            "call requires_grad_() on those that the client trains."
        )
    return trained


def main_type(model: nn.Module) -> torch.dtype:
    """The floating point type of most of a model's numbers, which its images have; single layers may have others.

    Integers, such as quantized weights that stay frozen, and complex numbers do not count.
    """
    counts = {torch.get_default_dtype(): 0}
    for p in model.parameters():
        if p.is_floating_point():
            counts[p.dtype] = counts.get(p.dtype, 0) + p.numel()
    return max(counts, key=lambda dtype: counts[dtype])


def tensor_name(layer: str, name: str) -> str:
    """The name in a model of a layer's tensor; the model itself is the layer ''."""
    return f"{layer}.{name}".lstrip(".")


def build(make: Callable[..., T], *, seed: int, **options: Any) -> T:
    """A network of `options` with weights drawn from `seed`, independent of earlier draws."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make(**options)
