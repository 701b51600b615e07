"""The first linear layer z = W x + c of a victim that sees its images x as they are: its gradient is made of them.

dL/dW = sum_i dL/dz_i x_i^T and dL/dc = sum_i dL/dz_i, over the images i of the batch.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from victims.errors import InputError
from victims.modules import tensor_name
from victims.observation import Observation
from victims.victim import Victim


@dataclass(frozen=True)
class FirstLinear:
    """The layer, in float64 on the CPU.

    Attributes:
        name: the module's.
        W, c: (m, n) and (m,).
        scale, offset: (n,), of the pixels that enter the model on their way to the layer; 1 and 0 if it only flattens.
    """

    name: str
    W: Tensor
    c: Tensor
    scale: Tensor
    offset: Tensor

    def gradients(self, observation: Observation) -> tuple[Tensor, Tensor]:
        """dL/dW (m, n) and dL/dc (m,) of the update, in units of a gradient."""
        sent = observation.gradient()
        return in_double(sent[tensor_name(self.name, "weight")]), in_double(sent[tensor_name(self.name, "bias")])

    def images(self, x: Tensor, observation: Observation) -> Tensor:
        """Inputs of the layer (B, n) -> normalized images (B, C, H, W)."""
        victim = observation.victim
        entering = ((x - self.offset) / self.scale).reshape(len(x), *observation.image_shape)
        return victim.leave(entering.to(victim.mean))


def first_linear(victim: Victim, image_shape: tuple[int, int, int], who: str) -> FirstLinear:
    """The first layer with parameters, if it is linear and images reach it through nothing but reshaping.

    A constant shift and scale of pixels on the way is allowed, for a model may normalize by itself. What reaches the
    layer is observed in a forward pass.

    Args:
        who: the attack that asks.

    Raises:
        InputError: names the first layer, and says what is wrong with it.
    """
    probe = torch.stack([torch.zeros(image_shape), torch.ones(image_shape), noise(image_shape)]).to(victim.mean)
    calls = called(victim, probe)
    if not calls:
        raise InputError(f"{who}: {type(victim.model).__name__} calls no layer; choose a --victim such as fcn:400.")
    name, x = calls[0]
    layer = victim.model.get_submodule(name)

    def refusal(why: str) -> InputError:
        return InputError(
            f"{who} needs a victim whose first layer is linear and sees the images as they are, and here layer "
            f"{name or 'model'} {why}; choose another, such as --victim fcn:400, or cocktail_party_fi, which reads "
            "features."
        )

    if not isinstance(layer, nn.Linear):
        raise refusal(f"is a {type(layer).__name__}")
    if layer.bias is None:
        raise refusal("has no bias, whose gradient tells the scale of images")
    if not {tensor_name(name, "weight"), tensor_name(name, "bias")} <= victim.trained:
        raise refusal("is frozen, or its weight is computed from others")
    if [later for later, _ in calls].count(name) > 1:
        raise refusal("is passed more than once")
    entering = victim.enter(probe).flatten(1)
    if x.shape != entering.shape:
        raise refusal("does not see each image as one vector of its pixels")
    scale, offset = torch.ones_like(x[0]), torch.zeros_like(x[0])
    if not torch.equal(x, entering):
        scale = (x[1] - x[0]) / (entering[1] - entering[0])
        offset = x[0] - scale * entering[0]
    # Twice the same image, for what a layer before does may depend on the rest of the batch, and be nothing without it.
    (_, alone), *_ = called(victim, probe[2:].repeat(2, 1, 1, 1))
    if not torch.allclose(scale * entering[2] + offset, alone[0], rtol=1e-4, atol=1e-4) or (scale == 0).any():
        raise refusal("sees more than a shift and a scale of every pixel")
    return FirstLinear(name, *map(in_double, (layer.weight, layer.bias, scale, offset)))


def first_linear_of_features(victim: Victim, image_shape: tuple[int, int, int], who: str) -> FirstLinear:
    """The first linear layer that sees one vector of every image, whatever the layers before it make of images.

    Its scale and offset are 1 and 0: it is not asked for images.

    Raises:
        InputError: there is none whose weight and bias are shared.
    """
    calls = called(victim, noise((2, *image_shape)).to(victim.mean))
    names = [name for name, _ in calls]
    for name, x in calls:
        layer = victim.model.get_submodule(name)
        shared = {tensor_name(name, "weight"), tensor_name(name, "bias")} <= victim.trained
        if isinstance(layer, nn.Linear) and shared and x.ndim == 2 and len(x) == 2 and names.count(name) == 1:
            one, zero = torch.ones_like(x[0]), torch.zeros_like(x[0])
            return FirstLinear(name, *map(in_double, (layer.weight, layer.bias, one, zero)))
    raise InputError(
        f"{who} needs a linear layer that sees one vector of every image, with a weight and a bias that the client "
        f"shares, and {type(victim.model).__name__} has none; choose another --victim, such as convnet."
    )


@torch.no_grad()
def called(victim: Victim, images: Tensor) -> list[tuple[str, Tensor]]:
    """The layers with parameters of their own in the order in which a forward pass calls them, and their inputs."""
    calls: list[tuple[str, Tensor]] = []
    hooks = [
        module.register_forward_hook(
            lambda _, given, left, name=name: calls.append((name, given[0] if given else left))
        )
        for name, module in victim.model.named_modules()
        if list(module.parameters(recurse=False))
    ]
    try:
        victim.logits(victim.parameters, images)
    finally:
        for hook in hooks:
            hook.remove()
    return calls


def noise(shape: tuple[int, ...]) -> Tensor:
    """Standard normal numbers, always the same."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def in_double(tensor: Tensor) -> Tensor:
    """In float64 on the CPU."""
    return tensor.detach().cpu().double()


def labels_of(layer: FirstLinear, observation: Observation, images: Tensor, dz: Tensor) -> Tensor:
    """The class of every image whose d loss / d z at this image is nearest in direction to what was recovered: (B,).

    For every class this takes a forward pass of the images, and a backward pass to the layer; no budget counts them.

    Args:
        images: (B, C, H, W), normalized.
        dz: (B, m), the recovered d loss / d z_i; the scale of each is free.
    """
    near = []
    for label in range(observation.num_classes):
        labels = torch.full((len(images),), label, device=images.device)
        near.append(cosine_similarity(output_gradient(layer, observation.victim, images, labels), dz))
    return torch.stack(near).nan_to_num(-1.0).argmax(0).to(images.device)


def output_gradient(layer: FirstLinear, victim: Victim, images: Tensor, labels: Tensor) -> Tensor:
    """d loss / d z of the layer's output z (B, m), at normalized images (B, C, H, W) and classes (B,)."""
    outputs: list[Tensor] = []

    def keep(_: nn.Module, given: tuple[Tensor, ...], z: Tensor) -> Tensor:
        outputs.append(z.detach().requires_grad_())
        return outputs[0].clone()  # what follows may work in place

    hook = victim.model.get_submodule(layer.name).register_forward_hook(keep)
    try:
        with torch.enable_grad():
            loss = victim.loss(victim.parameters, images, labels)
    finally:
        hook.remove()
    return in_double(torch.autograd.grad(loss, outputs[0])[0])
