"""Which layers classify: observed in a forward pass, whatever the order in which they were registered."""

from collections.abc import Container

import torch
from torch import Tensor, nn
from torch.func import functional_call

from victims.errors import InputError
from victims.modules import main_type, passing
from victims.rounds import Rounds
from victims.wrappers import attributes_kept, copied

DRAWN = 16  # logits of an image, of which some are below zero: there alone an activation such as ReLU shows


@torch.no_grad()
def classifiers(model: nn.Module, image_shape: tuple[int, int, int]) -> dict[str, float]:
    """The linear layers whose outputs make the logits, (B, K), and the share of each: 1, or 1 / n in a mean of n heads.

    The layers are told apart by drawn weights, so that it does not matter how they were initialized. Of several rounds'
    models the last one's are meant. The model is not changed.

    Args:
        image_shape: (C, H, W) of its images.

    Raises:
        InputError: no linear layer gives the logits.
    """
    model = copied(model)  # its own `eval` may write into weights, as where LoRA merges them
    layers = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    draws, device = torch.Generator().manual_seed(0), next(model.parameters()).device
    images = torch.rand(2, *image_shape, generator=draws).to(device, main_type(model))  # some take no others
    runs: list[tuple[Tensor, dict[str, Tensor]]] = []
    while sum(out.shape[-1] for out, _ in runs) < DRAWN:
        drawn = drawn_weights(model, layers, draws)
        with passing(layers) as seen:
            out = in_eval_mode(model, drawn, images)
        out = out[:, -1] if isinstance(model, Rounds) else out
        runs.append((out, {n: calls[-1][1] for n, calls in seen.items() if calls and calls[-1][1].shape == out.shape}))
    logits = torch.cat([out for out, _ in runs])
    always = [name for name in runs[0][1] if all(name in outs for _, outs in runs)]
    found = {name: torch.cat([outs[name] for _, outs in runs]) for name in always}
    for name, out in found.items():
        if alike(out, logits):
            return {name: 1.0}
    heads = {name: out for name, out in found.items() if not alike(out, torch.zeros_like(out))}
    for share in (1 / max(1, len(heads)), 1.0):
        if heads and alike(share * torch.stack(list(heads.values())).sum(0), logits):
            return dict.fromkeys(heads, share)
    last = last_called(model, drawn, images)
    if not layers:
        raise InputError(
            f"{type(model).__name__} has no linear layer, which the classifier should be; its logits come after {last}."
        )
    raise InputError(
        f"the logits of {type(model).__name__} are the output of none of its {len(layers)} linear layers, nor the mean "
        f"or sum of several; they come after {last}; choose another --victim."
    )


def drawn_weights(model: nn.Module, layers: Container[str], draws: torch.Generator) -> dict[str, Tensor]:
    """The model's buffers, and for the parameters of these layers random numbers."""
    drawn = {name: buffer.clone() for name, buffer in model.named_buffers()}
    for name, p in model.named_parameters():
        if name.rpartition(".")[0] in layers:
            scale = p[0].numel() ** -0.5 if p.ndim > 1 else 1.0
            drawn[name] = (scale * torch.randn(p.shape, generator=draws)).to(p)
    return drawn


def in_eval_mode(model: nn.Module, tensors: dict[str, Tensor], images: Tensor) -> Tensor:
    """What a model gives in eval mode for images (B, C, H, W)."""
    model.eval()  # a model's own may return nothing
    with attributes_kept(model), torch.random.fork_rng(devices=[]):
        return functional_call(model, tensors, (images,))


def last_called(model: nn.Module, tensors: dict[str, Tensor], images: Tensor) -> str:
    """What a forward calls last of the layers without parts of their own: its name and class."""
    called: list[str] = []
    hooks = [
        module.register_forward_hook(lambda layer, *_, name=name: called.append(f"'{name}' ({type(layer).__name__})"))
        for name, module in model.named_modules()
        if not any(module.children())
    ]
    try:
        in_eval_mode(model, tensors, images)
    finally:
        for hook in hooks:
            hook.remove()
    return called[-1] if called else "no layer"


def alike(out: Tensor, logits: Tensor) -> bool:
    """Whether both are the same up to what softmax ignores, a shift of all classes."""
    one, other = (x - x.mean(-1, keepdim=True) if x.shape[-1] > 1 else x for x in (out, logits))
    return bool(torch.allclose(one, other, rtol=1e-3, atol=1e-5))
