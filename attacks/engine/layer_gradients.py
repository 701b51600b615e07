"""The gradient of one layer's parameters as factors, and its inner products with a received one."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from attacks.engine.constant_layers import ConstantBatchNorm, ConstantConvolution, Convolution, How
from attacks.engine.inner_products import is_broadcast
from attacks.engine.packed import kept
from attacks.engine.weight_gradients import GramNorm, Patches, WeightGradient
from victims.victim import Gradient

SMALL = 1 << 17  # entries of an instance's patches; measured: below, one product for all beats a convolution for each

Pairs = dict[str, tuple[Tensor, Tensor]]
"""Of parameters by name: their gradients and the received ones, or their <g, g*> and |g|^2."""


@dataclass(frozen=True)
class LayerGradient:
    """The gradient of one layer's parameters, as factors.

    Attributes:
        layer: the module.
        a: its input, (R, B, ...).
        d: the loss's gradient in its output, (R, B, ...).
    """

    layer: Any
    a: Tensor
    d: Tensor

    def gradient(self) -> Gradient:
        """(R, *shape) of every parameter, by its name in the layer."""
        raise NotImplementedError

    def pairs(self, target: Gradient) -> Pairs:
        """Gradients that have to be formed, with the received ones."""
        return {name: (g, target[name]) for name, g in self.gradient().items()}

    def products(self, target: Gradient) -> Pairs:
        """<g, g*> and |g|^2 of the others, (R,) each."""
        return {}


def gram_is_cheaper(weight: Tensor, positions: int) -> bool:
    """Whether both Gram matrices cost less than the gradient of a weight that is used at so many positions."""
    rows, columns = weight.flatten(1).shape
    return positions * (columns + rows) < columns * rows


class WeightLayerGradient(LayerGradient):
    """Of a layer that multiplies its input by a weight (O, ...) and may add a bias."""

    def patches(self) -> Tensor:
        """The inputs of the weight as a matrix (O, K), at all N positions of all images: (R, N, K)."""
        raise NotImplementedError

    def gradients(self) -> Tensor:
        """d at all positions of all images: (R, N, O)."""
        raise NotImplementedError

    def applied(self, weight: Tensor) -> Tensor:
        """The layer with another weight on the input of every instance; shaped as d."""
        raise NotImplementedError

    @property
    def positions(self) -> int:
        """N, over the images of an instance."""
        return self.d[0, :, 0].numel()

    def formed(self) -> tuple[Tensor, Tensor | None]:
        """The gradients of the weight, (R, O, K), and of the bias, (R, O)."""
        return self.gradients().mT @ self.patches(), self.of_bias()

    def of_bias(self) -> Tensor | None:
        return None if self.layer.bias is None else self.gradients().sum(1)

    def matrix(self, weight: Tensor) -> Tensor:
        """A received gradient (R, O, ...) with its entries in the order of `patches`: (R, O, K)."""
        raise NotImplementedError

    def gradient(self) -> Gradient:
        weight, bias = self.formed()
        return {"weight": weight} | ({} if bias is None else {"bias": bias})

    def by_gram(self, target: Gradient) -> bool:
        return gram_is_cheaper(self.layer.weight, self.positions) and is_broadcast(target["weight"])

    def pairs(self, target: Gradient) -> Pairs:
        weight, bias = (None, self.of_bias()) if self.by_gram(target) else self.formed()
        pairs = {} if weight is None else {"weight": (weight, self.matrix(target["weight"]))}
        return pairs if bias is None else pairs | {"bias": (bias, target["bias"])}

    def products(self, target: Gradient) -> Pairs:
        if not self.by_gram(target):
            return {}
        received = target["weight"]
        alone = kept(received, "alone", lambda: received[0].data)  # no view
        along = (self.d * self.applied(alone)).sum(tuple(range(1, self.d.ndim)))
        return {"weight": (along, GramNorm.apply(self.patches(), self.gradients()))}


class ConvolutionGradient(WeightLayerGradient):
    @property
    def how(self) -> How:
        return self.layer.stride, self.layer.padding, self.layer.dilation

    def patches(self) -> Tensor:
        stride, padding, dilation = self.how
        patches = Patches.apply(self.a.flatten(0, 1), self.layer.kernel_size, dilation, padding, stride)
        return patches.unflatten(0, self.a.shape[:2]).flatten(1, 3)

    def gradients(self) -> Tensor:
        return self.d.permute(0, 1, 3, 4, 2).flatten(1, 3)

    def matrix(self, weight: Tensor) -> Tensor:
        one = weight[:1] if is_broadcast(weight) else weight
        return kept(weight, "matrix", lambda: one.movedim(2, 4).flatten(2).clone()).expand(len(weight), -1, -1)

    def gradient(self) -> Gradient:
        channels, *kernel = self.layer.weight.shape[1:]
        gradient = super().gradient()
        return gradient | {"weight": gradient["weight"].unflatten(2, (*kernel, channels)).permute(0, 1, 4, 2, 3)}

    def applied(self, weight: Tensor) -> Tensor:
        return Convolution.apply(self.a.flatten(0, 1), weight, None, self.how).unflatten(0, self.a.shape[:2])

    def formed(self) -> tuple[Tensor, Tensor | None]:
        small = self.layer.weight[0].numel() * self.positions < SMALL
        if len(self.a) > 1 and (small or self.a.is_cuda):  # on a GPU the loop below waits for its launches
            return super().formed()
        each = [WeightGradient.apply(a, d, self.layer) for a, d in zip(self.a, self.d, strict=True)]
        weight, bias = ([g for g in found if g is not None] for found in zip(*each, strict=True))
        return stacked([g.flatten(1) for g in weight]), stacked(bias) if bias else None


def stacked(tensors: list[Tensor]) -> Tensor:
    return torch.stack(tensors) if len(tensors) > 1 else tensors[0][None]  # without a copy


class LinearGradient(WeightLayerGradient):
    def patches(self) -> Tensor:
        return self.a.flatten(1, -2)

    def gradients(self) -> Tensor:
        return self.d.flatten(1, -2)

    @property
    def positions(self) -> int:
        """Images, or all tokens of all images."""
        return self.d[0, ..., 0].numel()

    def matrix(self, weight: Tensor) -> Tensor:
        return weight

    def applied(self, weight: Tensor) -> Tensor:
        return linear(self.a, weight)


class BatchNormGradient(LayerGradient):
    """Of a batch norm that normalizes by its running statistics."""

    def gradient(self) -> Gradient:
        layer = self.layer
        inverse = (layer.running_var + layer.eps).rsqrt()
        normed = torch.addcmul((-layer.running_mean * inverse)[:, None, None], self.a, inverse[:, None, None])
        positions = (1, 3, 4)
        return {"weight": (self.d * normed).sum(positions), "bias": self.d.sum(positions)}


KINDS: dict[type[nn.Module], type[LayerGradient]] = {
    ConstantConvolution: ConvolutionGradient,
    nn.Linear: LinearGradient,
    ConstantBatchNorm: BatchNormGradient,
}
