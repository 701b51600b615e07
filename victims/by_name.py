"""Victims by name: one of this suite's, `torchvision:NAME`, `timm:NAME`, or a dotted path to the user's own."""

import difflib
import warnings
from collections.abc import Callable
from functools import partial
from textwrap import shorten
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import relu6

from victims.choices import TRAINING
from victims.errors import InputError, Notice
from victims.victim import set_mode, trained_parameters

Make = Callable[..., nn.Module]
"""Called as `make(image_shape=(C, H, W), num_classes=K)`."""


def find(spec: str, own: Callable[[str], Make], *, training: bool | None = False) -> Make:
    """A function that builds the victim of this name, and refuses images that it cannot take.

    Args:
        own: finds plain names and dotted paths.
        training: whether the client computes its update in train mode; None leaves every layer in its own mode.

    Raises:
        InputError: the name is unknown; names the nearest one.
    """
    library, colon, name = spec.partition(":")
    if not colon:
        return partial(tried, own(spec), spec, training)
    if library not in LIBRARIES:
        raise InputError(f"victim '{spec}' is of no library known here; write torchvision:NAME or timm:NAME.")
    list_names, make = LIBRARIES[library]
    names = list_names()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=3)
        hint = (
            f"did you mean {', '.join(near)}?" if near else f"its {len(names)} names are listed in its documentation."
        )
        raise InputError(f"{library} has no classifier '{name}'; {hint}")
    return partial(tried, partial(make, name), spec, training)


def of_torchvision(name: str, *, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """The unchanged model. Most take color images of any size from 32 or 64 px."""
    return torchvision.models.get_model(name, weights=None, num_classes=num_classes)


def of_timm(name: str, *, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """The model; if its form depends on the size of the images, as a transformer's does, it is built for that size."""
    import timm  # takes most of a second, and few runs need it

    channels, *size = image_shape
    sized: dict[str, Any] = {"img_size": tuple(size)} if timm.get_pretrained_cfg_value(name, "fixed_input_size") else {}
    return timm.create_model(name, pretrained=False, num_classes=num_classes, in_chans=channels, **sized)


def names_of_timm() -> list[str]:
    import timm

    return timm.list_models()


LIBRARIES: dict[str, tuple[Callable[[], list[str]], Make]] = {
    "torchvision": (partial(torchvision.models.list_models, module=torchvision.models), of_torchvision),
    "timm": (names_of_timm, of_timm),
}


def tried(
    make: Make, spec: str, training: bool | None, *, image_shape: tuple[int, int, int], num_classes: int
) -> nn.Module:
    """The model in its mode, after a trial on two images of noise. A Notice says if it does not see all pixels.

    Raises:
        InputError: it cannot take the images, trains no parameter, has no second derivative, gives no logits, or draws
            random numbers, as dropout does, so that nobody can repeat its gradient.
    """
    try:
        model = elementary(make(image_shape=image_shape, num_classes=num_classes))
        set_mode(model, training)
        trained_parameters(model)  # refuses a model without any
        given, seen, drew = probe(model, image_shape)
    except InputError:
        raise
    except Exception as error:  # a model may refuse images by any exception
        size = " x ".join(str(side) for side in image_shape)
        reason = shorten(f"{type(error).__name__}: {error}", 160)
        raise InputError(f"{spec} cannot take {size} images ({reason}); choose another --size or --victim.") from None
    mode = next(mode for mode, flag in TRAINING.items() if flag is training)
    fix = "choose another --victim" if mode == "eval" else "use --victim-mode eval"
    if given not in ((2, num_classes), (2, 1)):
        raise InputError(f"{spec} in {mode} mode gives no logits for {num_classes} classes; {fix}.")
    if drew:
        raise InputError(
            f"{spec} in {mode} mode draws random numbers, as dropout does; its gradient cannot be repeated; {fix}."
        )
    if seen not in ((0, 0), image_shape[1:]):  # with a classifier that starts at zero this cannot be measured
        warnings.warn(
            f"{spec} sees {seen[0]} of {image_shape[1]} rows and {seen[1]} of {image_shape[2]} columns of the images; "
            "its update holds nothing of the others.",
            Notice,
            stacklevel=2,
        )
    return model


def probe(model: nn.Module, image_shape: tuple[int, int, int]) -> tuple[tuple[int, ...], tuple[int, int], bool]:
    """Try a model on two images of noise. The model is not changed.

    Returns:
        the shape of the output, empty if it is no tensor; the number of rows and of columns of the images that the
        output depends on; whether random numbers were drawn.

    Raises:
        Exception: the model's own, for what it cannot do; torch's, if there is no second derivative.
    """
    images = torch.rand(2, *image_shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with torch.random.fork_rng(devices=[]):
        before = torch.get_rng_state()
        logits = functional_call(model, buffers, (images,))
        drew = not torch.equal(before, torch.get_rng_state())
    if not isinstance(logits, Tensor):
        return (), (0, 0), drew
    (gradients,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    if gradients.requires_grad:  # raises where an operation cannot be differentiated twice
        torch.autograd.grad(gradients.square().sum(), images, allow_unused=True)
    seen = gradients.abs().sum((0, 1)) > 0
    return tuple(logits.shape), (int(seen.any(1).sum()), int(seen.any(0).sum())), drew


def elementary(model: nn.Module) -> nn.Module:
    """Replace, in place, parts that torch cannot differentiate twice; the outputs stay the same.

    From here on torch also computes attention step by step in the whole process, not in fused kernels.
    """
    torch.backends.cuda.enable_flash_sdp(False)  # these settings hold on CPUs too
    torch.backends.cuda.enable_mem_efficient_sdp(False)
    torch.backends.cuda.enable_cudnn_sdp(False)
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Hardsigmoid):
                setattr(module, name, Hardsigmoid())
    return model


class Hardsigmoid(nn.Module):
    """torch's Hardsigmoid, in operations that can be differentiated twice."""

    def forward(self, x: Tensor) -> Tensor:
        return relu6(x + 3) / 6
