"""Wrapped and odd models, as people have them, and what becomes of each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.utils import parametrizations as new
from torch.nn.utils import spectral_norm

from tests.zoo import forwards, layers, wrapped
from tests.zoo.layers import parametrized
from tests.zoo.net import SHAPE, Logits, Net
from victims.choices import Mode


@dataclass(frozen=True)
class Odd:
    """
    Attributes:
        refused: what the line that refuses it says; empty where it runs.
        cure: makes of a refused model, as the line says, one that runs.
        dtype: of model and images; None leaves the model as it is.
        tolerance: of gradients, relative.
        reference: see `outcome`.
    """

    make: Callable[[], nn.Module]
    mode: Mode = "as_is"
    refused: str = ""
    cure: Callable[[nn.Module], nn.Module] | None = None
    dtype: torch.dtype | None = torch.float64
    tolerance: float = 1e-6
    reference: Callable[[], nn.Module] | None = None


def refused(
    make: Callable[[], nn.Module], says: str, cure: Callable[[nn.Module], nn.Module], dtype: torch.dtype | None = None
) -> Odd:
    return Odd(make, refused=says, cure=cure, dtype=dtype)


def own_types(make: Callable[[], nn.Module], tolerance: float) -> Odd:
    """A model in several types, which it keeps."""
    return Odd(make, dtype=None, tolerance=tolerance)


def plainly(model: nn.Module) -> nn.Module:
    """The same weights in a model without what is odd about it."""
    net = Net()
    net.load_state_dict(model.state_dict())
    return net


def picked(pick: Callable) -> Callable[[nn.Module], nn.Module]:
    """A module whose forward returns one of a model's outputs alone."""
    return lambda model: Logits(model, pick)


def called(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        model.eval()(torch.zeros(2, *SHAPE))
    return model


BF16 = 1e-2  # its numbers have 8 bits
FP32 = 1e-5
NO_LOGITS = "no logits .* forward returns them alone"
CUT_OFF = "no derivative in the pixels"

ODD: Mapping[str, Odd] = {
    "a plain model, train mode": Odd(Net),
    "a plain model, eval mode": Odd(Net, "eval"),
    # Parameters.
    "linear probe: all but the head frozen": Odd(layers.linear_probe),
    "LoRA adapters": Odd(layers.lora),
    "a parameter of one number": Odd(layers.Scaled),
    "tied weights of two layers": Odd(layers.Tied),
    "a weight used twice": Odd(layers.TiedAcross),
    "a layer called twice": Odd(layers.Shared),
    "parameters that are never used": Odd(layers.Unused),
    "layers in a plain list, which torch does not know": Odd(layers.Loops),
    "weight norm (old)": Odd(layers.weight_norm_old),
    "weight norm (parametrization)": Odd(parametrized(new.weight_norm, "neck.0", "body.0")),
    "spectral norm (old), train mode": Odd(parametrized(spectral_norm, "neck.0")),
    "spectral norm (old), eval mode": Odd(parametrized(spectral_norm, "neck.0"), "eval"),
    "spectral norm (parametrization), train mode": Odd(parametrized(new.spectral_norm, "neck.0", "body.0")),
    "spectral norm (parametrization), eval mode": Odd(parametrized(new.spectral_norm, "neck.0"), "eval"),
    "orthogonal parametrization": Odd(parametrized(new.orthogonal, "neck.0")),
    "a parametrization of one's own": Odd(parametrized(layers.positive, "neck.0")),
    "lazy layers that were never called": refused(layers.Lazy, "call the model on a batch first", called),
    "weights on the meta device": refused(wrapped.on_meta, "load the weights first", lambda _: Net()),
    "channels_last": Odd(wrapped.channels_last),
    "head in float64": own_types(lambda: layers.Mixed(torch.float64), FP32),
    "head in bfloat16": own_types(lambda: layers.Mixed(torch.bfloat16), BF16),
    "first parameter in bfloat16": own_types(layers.MixedFirst, FP32),
    "autocast to bfloat16 inside": own_types(forwards.Autocast, BF16),
    # Layers.
    "batch norm frozen in a model in train mode": Odd(layers.frozen_batch_norm),
    "batch norm with a forward of its own": Odd(layers.own_batch_norm),
    "batch norm with a hook": Odd(layers.hooked_batch_norm),
    "batch norm with a parametrization": Odd(layers.parametrized_batch_norm),
    "batch norm without statistics, eval mode": Odd(layers.no_statistics, "eval"),
    "batch norm under two names": Odd(layers.SharedNorm),
    "batch norm in a ModuleDict": Odd(layers.Nested),
    "SyncBatchNorm, eval mode": Odd(layers.sync_batch_norm, "eval"),
    "SyncBatchNorm, train mode": Odd(layers.sync_batch_norm, reference=Net),
    "group norm": Odd(layers.group_norm),
    "in-place layer": Odd(layers.in_place),
    "dropout, eval mode": Odd(layers.Dropout, "eval"),
    "dropout, train mode": refused(layers.Dropout, "draws random numbers.*mode='eval'", nn.Module.eval),
    "embedding of integers": Odd(layers.Positions),
    "attention": Odd(layers.Attention),
    "TransformerEncoderLayer, eval mode": Odd(layers.Encoder, "eval"),
    "TransformerEncoderLayer, train mode": Odd(layers.Encoder),
    "LSTM": Odd(layers.Recurrent),
    "hard swish and hard sigmoid": Odd(layers.Hard),
    # Forward and output.
    "two heads": Odd(forwards.TwoHeads),
    "one logit": Odd(layers.OneLogit),
    "one logit without its axis": refused(forwards.Flat, NO_LOGITS, picked(lambda out: out[:, None])),
    "output with .logits": refused(forwards.HuggingFace, NO_LOGITS, picked(lambda out: out.logits)),
    "output as dict": refused(forwards.Dict, NO_LOGITS, picked(lambda out: out["logits"])),
    "output as tuple": refused(forwards.Tuple, NO_LOGITS, picked(lambda out: out[0])),
    "kept activations": Odd(forwards.Keeps),
    "activation checkpointing (reentrant)": refused(forwards.Reentrant, "switch checkpointing off", plainly),
    "activation checkpointing (not reentrant)": refused(forwards.NonReentrant, "switch checkpointing off", plainly),
    "buffers that the forward moves": Odd(forwards.Counts),
    "an attribute that the forward moves": Odd(forwards.Remembers),
    "a class attribute that the forward moves": refused(forwards.RemembersOutside, "outside of the model", plainly),
    "a cache of what is made of a weight": Odd(forwards.Caches),
    "in-place functions": Odd(forwards.InPlaceFunctions),
    "writes into the images": Odd(forwards.WritesIntoTheImages),
    "Function that says it is once differentiable": Odd(forwards.OnceDifferentiable),
    "Function that does not say so": Odd(forwards.SilentlyOnce),
    "detach before the head": refused(forwards.Detached, CUT_OFF, plainly),
    "no_grad before the head": refused(forwards.NoGrad, CUT_OFF, plainly),
    "argmax before the head": refused(forwards.Argmax, CUT_OFF, plainly),
    "inference_mode before the head": refused(forwards.Inference, "check that its own training step runs", plainly),
    "detach of one of two branches": Odd(forwards.PartlyDetached),
    "numpy inside": Odd(forwards.Numpy),
    "branch on a value": Odd(forwards.Branches),
    "fixed batch size": Odd(forwards.FixedBatch),
    # Wrappers, compilers, hooks.
    "DistributedDataParallel": Odd(wrapped.distributed),
    "DataParallel": Odd(lambda: nn.DataParallel(Net())),
    "DataParallel of a compiled model": Odd(lambda: nn.DataParallel(wrapped.compiled())),
    "torch.compile": Odd(wrapped.compiled),
    "torch.compile of a layer": Odd(wrapped.compiled_inside),
    "model.compile()": Odd(wrapped.compiled_in_place),
    "LightningModule": Odd(lambda: wrapped.Lit(Net())),
    "LightningModule of a compiled model": Odd(lambda: wrapped.Lit(wrapped.compiled())),
    "LightningModule without a forward": refused(wrapped.LitWithoutForward, "such as its net", lambda lit: lit.net),
    "Opacus GradSampleModule": Odd(wrapped.opacus),
    "Opacus GradSampleModule after a step": Odd(wrapped.opacus_after_a_step),
    "Opacus GradSampleHooks": Odd(wrapped.opacus_hooks),
    "averaged weights (SWA, EMA)": Odd(wrapped.averaged),
    "torch.jit.script": refused(wrapped.scripted, "give the Python model", lambda _: Net()),
    "torch.jit.trace": refused(wrapped.traced, "give the Python model", lambda _: Net()),
    "torch.export": refused(wrapped.exported, "give the Python model", lambda _: Net()),
    "torch.fx": Odd(wrapped.symbolically_traced),
    "forward and backward hooks": Odd(wrapped.hooked),
    "hooks on gradients": refused(wrapped.clipped_by_hooks, "remove it", plainly),
    "a forward replaced on the object": refused(wrapped.replaced_forward, "write a class with that forward", plainly),
    "a class in place of a model": refused(lambda: Net, "give an object", lambda kind: kind()),
}
