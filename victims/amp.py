"""Mixed precision on the client: the forward pass in half precision, weights and gradients in float32."""

import torch
from torch import Tensor

from victims.choices import Amp
from victims.client import GradientFn
from victims.errors import InputError
from victims.victim import Gradient, Victim

TYPES: dict[Amp, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}
SCALE = 2.0**16  # torch's GradScaler begins with it


def amp_gradient(victim: Victim, amp: Amp) -> GradientFn:
    """How a client computes a gradient under `torch.autocast`.

    With fp16 the loss is scaled, as by torch's GradScaler, and the gradient divided by the scale again. Where it is not
    finite, the scaler skips the step and halves its scale; here the step is repeated, as if it had met that before.

    Raises:
        InputError: the model is not in float32, and autocast would change nothing.
    """
    if victim.mean.dtype != torch.float32:
        kind = str(victim.mean.dtype).removeprefix("torch.")
        raise InputError(f"mixed precision is for models in float32, not {kind}; run with --precision float32.")

    def mixed(theta: Gradient, images: Tensor, labels: Tensor) -> Gradient:
        theta = {name: p.view_as(p).requires_grad_() for name, p in theta.items()}
        with torch.autocast(images.device.type, TYPES[amp]):
            loss = victim.loss(theta, images, labels).float()
        scale = SCALE if amp == "fp16" else 1.0
        while True:
            found = torch.autograd.grad(scale * loss, list(theta.values()), retain_graph=True, materialize_grads=True)
            if scale <= 1 or all(g.isfinite().all() for g in found):
                return {name: g / scale for name, g in zip(theta, found, strict=True)}
            scale /= 2

    return mixed
