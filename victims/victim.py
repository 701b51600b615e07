"""The victim: the model f_theta that server and client share."""

from collections.abc import Callable, Mapping
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.func import functional_call, replace_all_batch_norm_modules_
from torch.nn.functional import cross_entropy

from victims.errors import InputError

Gradient = dict[str, Tensor]
"""One tensor per parameter name."""


class Victim:
    """A model with its weights, its mode and its public preprocessing.

    The model is copied and only ever called through `functional_call`, on copies of its buffers. In train mode
    its batch-norm layers normalise by the batch and keep no running statistics. So no forward moves anything.

    Attributes:
        parameters: every parameter by name, detached.
        mean, std: (C, 1, 1); images in [0, 1] are normalised by them before they enter the model.
    """

    def __init__(
        self, model: nn.Module, *, mean: tuple[float, ...], std: tuple[float, ...], training: bool = False
    ) -> None:
        self.model = deepcopy(model).train(training).requires_grad_(False)
        if training:
            replace_all_batch_norm_modules_(self.model)
        self.training = training
        if not self.parameters:
            raise InputError(f"{type(model).__name__} has no parameters, so there is no update to attack.")
        dtype = next(self.model.parameters()).dtype
        self.mean = torch.tensor(mean, dtype=dtype)[:, None, None]
        self.std = torch.tensor(std, dtype=dtype)[:, None, None]

    @property
    def parameters(self) -> Gradient:
        return {name: parameter.detach() for name, parameter in self.model.named_parameters()}

    def to(self, device: torch.device | str) -> "Victim":
        self.model.to(device)
        self.mean, self.std = self.mean.to(device), self.std.to(device)
        return self

    def normalise(self, pixels: Tensor) -> Tensor:
        """Images in [0, 1] -> the victim's input space; any leading dimensions."""
        return (pixels - self.mean) / self.std

    def denormalise(self, images: Tensor) -> Tensor:
        """The victim's input space -> [0, 1] where the images are real ones; not clamped."""
        return images * self.std + self.mean

    def loss(self, parameters: Mapping[str, Tensor], images: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy of normalised images (B, C, H, W) and labels (B,)."""
        buffers = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        return cross_entropy(functional_call(self.model, (dict(parameters), buffers), (images,)), labels)


def gradient(victim: Victim, images: Tensor, labels: Tensor, *, create_graph: bool = False) -> Gradient:
    """d loss / d theta on normalised images (B, C, H, W), by plain autograd: works for every victim."""
    theta = {name: p.requires_grad_() for name, p in victim.parameters.items()}
    loss = victim.loss(theta, images, labels)
    grads = torch.autograd.grad(loss, list(theta.values()), create_graph=create_graph, materialize_grads=True)
    return dict(zip(theta, grads, strict=True))


def build(
    make: Callable[..., nn.Module], *, image_shape: tuple[int, int, int], num_classes: int, seed: int
) -> nn.Module:
    """A model with weights drawn from `seed`, whatever was drawn before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make(image_shape=image_shape, num_classes=num_classes)
