"""The victim: the model f_theta that server and client share."""

from collections.abc import Iterable, Mapping
from copy import copy, deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from victims.batch_norm import BatchNorm, batch_norms, use_batch_statistics
from victims.elementary import use_elementary_layers
from victims.losses.base import Loss, classification_loss
from victims.losses.cross_entropy import CrossEntropy
from victims.modules import main_type, passing, set_mode, tensor_name, trained_parameters
from victims.preprocessing import Preprocessing
from victims.wrappers import attributes_kept, copied, unwrapped

Gradient = dict[str, Tensor]
"""One tensor per parameter name, of the parameters that the client trains."""

Statistics = dict[str, Tensor]
"""Per batch-norm layer (2, C): the mean of what enters it, and the variance."""


class LossTerm(nn.Module):
    """A layer whose `penalty`, a buffer that it sets in every forward, is added to the client's loss."""

    penalty: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("penalty", torch.zeros(()), persistent=False)

    def __getstate__(self) -> dict[str, Any]:
        """For a copy: torch cannot copy a tensor that has a history."""
        return {**self.__dict__, "_buffers": {**self._buffers, "penalty": self.penalty.detach()}}


class Victim:
    """A model with its weights, its mode, its loss and its public preprocessing.

    The model is copied, out of its wrappers, and only called through `functional_call`, on copies of its buffers. Its
    batch-norm layers that are in train mode normalize by the batch and keep no running statistics. So a forward pass
    changes nothing.

    Attributes:
        trained: names of the parameters that the client trains and shares: those that require gradients in the model.
        parameters: the trained ones by name, detached. The others are frozen: they stay as they are, and leave nothing.
        criterion: the client's loss on logits and labels.
        preprocessing: what the client does to images in [0, 1] before they enter the model.
        mean, std: (C, 1, 1), of the space of *normalized* images, in which attacks search. It does not depend on the
            preprocessing, so that an attack does the same whatever units the model takes.
        penalties: names of the buffers that layers add to the loss.
        running: the model's own running batch-norm statistics; empty if it keeps none.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        training: bool | None = False,
        loss: Loss | None = None,
        preprocessing: Preprocessing | None = None,
        as_given: bool = False,
    ) -> None:
        """
        Args:
            mean, std: of normalized images.
            preprocessing: the client's; by default the same mean and std.
            training: the mode, set as the model's own `train` sets it, which may keep layers frozen; None leaves every
                layer in its own.
            loss: the client's; by default cross-entropy.
            as_given: whether all layers stay as they are, also those that cannot be differentiated twice.

        Raises:
            InputError: the model trains no parameter, or cannot be copied, see `check_model`.
        """
        self.model = unwrapped(model)
        set_mode(self.model, training)
        if not as_given:
            use_elementary_layers(self.model)
        self.running: Statistics = {
            name: torch.stack([layer.running_mean, layer.running_var])
            for name, layer in batch_norms(self.model).items()
            if layer.running_mean is not None and layer.running_var is not None
        }
        if not as_given:
            use_batch_statistics(self.model)
        self.penalties = penalties(self.model)
        self.trained = frozenset(trained_parameters(self.model))
        self.model.requires_grad_(False)
        self.criterion = copied(loss or CrossEntropy()).requires_grad_(False)
        dtype = main_type(self.model)
        space = Preprocessing(mean, std)
        self.preprocessing = preprocessing or space
        self.mean, self.std = space.tensors(dtype)
        same = (self.preprocessing.mean, self.preprocessing.std) == (mean, std)
        self._own = None if same else self.preprocessing.tensors(dtype)
        self._idle: frozenset[str] | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> "Victim":
        made = copy(self)
        made.model, made.criterion = copied(self.model, memo), copied(self.criterion, memo)
        made.mean, made.std, made._own, made.running = deepcopy((self.mean, self.std, self._own, self.running), memo)
        return made

    @property
    def parameters(self) -> Gradient:
        return {name: p.detach() for name, p in self.model.named_parameters() if name in self.trained}

    def parameter_counts(self) -> tuple[int, int]:
        """How many numbers are shared, and how many the model has in all."""
        shared = sum(p.numel() for p in self.parameters.values())
        return shared, sum(p.numel() for p in self.model.parameters())

    @property
    def moving(self) -> Statistics:
        """Those of the running statistics that a step of training moves: of the layers that normalize by the batch."""
        layers = batch_norms(self.model)
        return {name: s for name, s in self.running.items() if isinstance(layers[name], BatchNorm)}

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "Victim":
        self.model.to(device, dtype)
        self.criterion.to(device, dtype)
        self.mean, self.std = self.mean.to(device, dtype), self.std.to(device, dtype)
        self._own = self._own and (self._own[0].to(device, dtype), self._own[1].to(device, dtype))
        self.running = {name: statistics.to(device, dtype) for name, statistics in self.running.items()}
        return self

    def normalize(self, pixels: Tensor | float) -> Tensor:
        """Images in [0, 1] -> the space of `mean` and `std`; any leading dimensions."""
        return (pixels - self.mean) / self.std

    def denormalize(self, images: Tensor) -> Tensor:
        """Normalized images -> pixels, in [0, 1] for real images; not clamped."""
        return images * self.std + self.mean

    def enter(self, images: Tensor) -> Tensor:
        """Normalized images as they enter the model, by the client's own preprocessing."""
        if self._own is None:
            return images
        mean, std = self._own
        return (self.denormalize(images) - mean) / std

    def leave(self, inputs: Tensor) -> Tensor:
        """What enters the model -> normalized images, the inverse of `enter`."""
        if self._own is None:
            return inputs
        mean, std = self._own
        return self.normalize(inputs * std + mean)

    def logits(self, parameters: Mapping[str, Tensor], images: Tensor) -> Tensor:
        """Logits of normalized images (B, C, H, W). What is among `parameters` replaces the model's own."""
        tensors, entering = self._tensors(parameters), self.enter(images).clone()
        with attributes_kept(self.model):
            return functional_call(self.model, tensors, (entering,)) if tensors else self.model(entering)

    def loss(self, parameters: Mapping[str, Tensor], images: Tensor, labels: Tensor) -> Tensor:
        """The client's loss on normalized images (B, C, H, W), see `client_loss`; parameters as `logits` takes them."""
        entering = self.enter(images).clone()  # a model may write into them
        with attributes_kept(self.model):
            return client_loss(self.model, self.criterion, self.penalties, self._tensors(parameters), entering, labels)

    def idle(self, images: Tensor, labels: Tensor) -> frozenset[str]:
        """The names of the trained parameters that are not in the loss, found in the first call.

        Args:
            images: (B, C, H, W), normalized.
            labels: (B,) classes, or (B, K) probabilities.
        """
        if self._idle is None:
            theta = {name: p.requires_grad_() for name, p in self.parameters.items()}
            with torch.enable_grad():
                loss = self.loss(theta, images.detach(), labels)
            found = torch.autograd.grad(loss, list(theta.values()), allow_unused=True)
            self._idle = frozenset(name for name, g in zip(theta, found, strict=True) if g is None)
        return self._idle

    def _tensors(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {**{name: buffer.clone() for name, buffer in self.model.named_buffers()}, **parameters}

    def batch_norm_inputs(self, images: Tensor) -> dict[str, Tensor]:
        """The inputs of every batch-norm layer, (B, C, ...) each, for normalized images (B, C, H, W)."""
        return self.entering(batch_norms(self.model), self.parameters, images)

    def entering(
        self, layers: Mapping[str, nn.Module], parameters: Mapping[str, Tensor], images: Tensor
    ) -> dict[str, Tensor]:
        """The inputs of layers of the model, (B, ...) each, for normalized images (B, C, H, W).

        A layer that is not called has no entry. If a layer is called several times, its last input counts.
        """
        with passing(layers) as seen:
            self.logits(parameters, images)
        return {name: calls[-1][0] for name, calls in seen.items() if calls}


def converted(victim: Victim, device: torch.device | str, dtype: torch.dtype | None = None) -> Victim:
    """A copy on another device or of another type, made without a copy of the weights as they are.

    Weights that are there, and of that type, are shared.
    """
    weights = [p for p in victim.model.parameters() if type(p) is nn.Parameter and p.is_floating_point()]
    memo: dict[int, Any] = {id(p): nn.Parameter(p.to(device, dtype), requires_grad=False) for p in weights}
    return deepcopy(victim, memo).to(device, dtype)


def batch_statistics(victim: Victim, images: Tensor, correction: int = 0) -> Statistics:
    """Mean and variance over batch and positions of the input of every batch-norm layer.

    Args:
        correction: 1 for the unbiased variance, as in torch's running statistics.
    """
    inputs = {name: x.transpose(0, 1).flatten(1) for name, x in victim.batch_norm_inputs(images).items()}
    return {name: torch.stack([x.mean(1), x.var(1, correction=correction)]) for name, x in inputs.items()}


def penalties(model: nn.Module) -> list[str]:
    """The names of the buffers that a model's layers add to the client's loss."""
    return [tensor_name(name, "penalty") for name, module in model.named_modules() if isinstance(module, LossTerm)]


def client_loss(
    model: nn.Module,
    criterion: Loss,
    penalties: Iterable[str],
    tensors: dict[str, Tensor],
    images: Tensor,
    labels: Tensor,
) -> Tensor:
    """The loss of a model's logits, plus the penalties of its layers.

    Args:
        penalties: the model's.
        tensors: all parameters and buffers by name; buffers that the model sets are set here, not in the model.
        images: (B, C, H, W), as they enter the model.
        labels: (B,) classes, or (B, K) probabilities.
    """
    loss = classification_loss(criterion, functional_call(model, tensors, (images,)), labels)
    return sum((tensors[name] for name in penalties), loss)


def gradient(victim: Victim, images: Tensor, labels: Tensor, *, create_graph: bool = False) -> Gradient:
    """d loss / d theta on normalized images (B, C, H, W), by plain autograd: works for every victim."""
    return gradient_at(victim, victim.parameters, images, labels, create_graph=create_graph)


def gradient_at(
    victim: Victim, theta: Gradient, images: Tensor, labels: Tensor, *, create_graph: bool = False
) -> Gradient:
    """d loss / d theta on normalized images (B, C, H, W), by plain autograd: works for every victim.

    Args:
        theta: the weights. With `create_graph` they may be functions of the images, and the result is differentiable
            through them.
    """
    theta = {name: p.view_as(p).requires_grad_() for name, p in theta.items()}  # the caller's stay as they are
    loss = victim.loss(theta, images, labels)
    grads = torch.autograd.grad(loss, list(theta.values()), create_graph=create_graph, materialize_grads=True)
    return dict(zip(theta, grads, strict=True))


def norm(update: Gradient) -> float:
    """The l2 norm over all parameters; float64 holds that of any float32 update."""
    of_each = (torch.linalg.vector_norm(g.detach(), dtype=torch.float64) for g in update.values())
    return sum(float(each) ** 2 for each in of_each) ** 0.5
