"""The recursion of R-GAP (Zhu & Blaschko, ICLR 2021, algorithm 1): from a layer's output and gradients to its input.

All of it is computed in float64 on the CPU, because errors grow from layer to layer.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from scipy.optimize import brentq
from scipy.special import expit, lambertw
from torch import Tensor, nn
from torch.nn.functional import conv2d, unfold
from torch.nn.grad import conv2d_input, conv2d_weight

from attacks.closed_form.chain import INVERSES, Layer, back
from attacks.closed_form.least_squares import EPS, Solution, iterated_least_squares, least_squares, triangularized
from attacks.engine.stage import LayerReport
from victims.victim import Gradient

DENSE_LIMIT = 2 * 2**30  # bytes of a system's matrix; a larger one is solved by iteration
TURN = float(1 + lambertw(math.exp(-1)).real)  # where -m / (1 + e^m) is least: (m - 1) e^m = 1

Solve = Callable[[Layer, Tensor, Tensor, Tensor], LayerReport]
"""A layer, its output z, k = d loss / d z and g = d loss / d weight -> its input."""


def recursion(layers: Sequence[Layer], g: Gradient, y: int, m: float, solve: Solve) -> list[LayerReport]:
    """Algorithm 1: the input of every layer with a weight, last layer first.

    Args:
        layers: the victim's, first to last.
        g: d loss / d weight of each.
        y: the label, -1 or 1.
        m: the margin y u, of the logit u.
        solve: finds the input of a layer with a weight.
    """
    z = torch.tensor([y * m], dtype=torch.float64)
    k = torch.tensor([-y * float(expit(-m))], dtype=torch.float64)
    reports: list[LayerReport] = []
    for layer in reversed(layers):
        if type(layer.module) in INVERSES:
            x = INVERSES[type(layer.module)](layer.module, z).reshape(layer.input_shape)
        else:
            reports.append(solve(layer, z, k, g[layer.parameter]))
            x = reports[-1].input
        k = back(layer.module, x, k)
        z = x
    return reports


def margins(product: float) -> list[float]:
    """Every m = y u that solves <g, w> = -m / (1 + e^m) for the last layer, the smallest first.

    Above zero there is one solution, left of zero. Below zero there are two, left and right of the function's minimum:
    two images, multiples of each other, with exactly the same gradient. A rounded update may lie just below the
    minimum; then the minimum is taken.
    """

    def root(low: float, high: float) -> float:
        return brentq(lambda m: -m * expit(-m) - product, low, high, xtol=1e-300, rtol=4 * EPS, maxiter=500)

    if product == 0:
        return [0.0]
    if product > 0:
        return [root(-2 * product - 2, 0)]
    if product <= -TURN * expit(-TURN):
        return [TURN]
    far = 2 * TURN
    while -far * expit(-far) <= product:
        far *= 2
    return [root(0, TURN), root(TURN, far)]


def reconstruct_input(layer: Layer, z: Tensor, k: Tensor, g: Tensor, balanced: bool = False) -> LayerReport:
    """The input of a linear layer or a convolution.

    Args:
        z: the layer's output, `layer.output_shape`.
        k: d loss / d output, the same shape.
        g: d loss / d weight.
        balanced: scale a convolution's gradient equations to the size of its weight equations.
    """
    unknowns, bound = layer.input_shape.numel(), False
    if isinstance(layer.module, nn.Linear):
        # g = k x^T. The paper's code averages g_i / k_i over the rows i, which gives the same x if the gradient is
        # exact, but amplifies the rounding of rows with a small k_i.
        b, weight_equations = g, 0
        x = g.T @ k / k.square().sum()
        solution = Solution(x, unknowns, float((g - k.outer(x)).norm()))
    else:
        if balanced:
            k, g = balance(layer.module, k, g)
        b, weight_equations = torch.cat([g.flatten(), z.flatten()]), z.numel()
        rows = min(g[:, 0].numel(), layer.input_shape[1:].numel()) * layer.input_shape[0] + z.numel()
        bound = rows * unknowns * z.element_size() > DENSE_LIMIT
        solution = (solve_by_iteration if bound else solve_dense)(layer, z, k, g)
    return LayerReport(
        layer=layer.name,
        unknowns=unknowns,
        gradient_equations=g.numel(),
        weight_equations=weight_equations,
        rank=solution.rank,
        rank_is_bound=bound,
        residual=solution.residual / (float(b.norm()) or 1.0),  # a layer can have a gradient of zeros
        input=solution.x.reshape(layer.input_shape),
    )


def balance(module: nn.Conv2d, k: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """k and g, scaled so that the gradient equations K x = g have the size of the weight equations."""
    size = module.weight.detach().flatten(1).norm(dim=1).mean() / k.flatten(1).norm(dim=1).mean()
    return k * size, g * size


# The linear system A x = b of a convolution: gradient equations K x = g, then weight equations W x = z.


def left_side(module: nn.Conv2d, x: Tensor, k: Tensor) -> Tensor:
    """A x without the matrix A: (weights + outputs,); differentiable in x (C, H, W)."""
    weight = module.weight.detach()
    dg, dz = (
        conv2d_weight(x[None], weight.shape, k[None], **geometry(module)),
        conv2d(x[None], weight, **geometry(module)),
    )
    return torch.cat([dg.flatten(), dz.flatten()])


def geometry(module: nn.Conv2d) -> dict[str, Any]:
    return {"stride": module.stride, "padding": module.padding, "dilation": module.dilation}


def taps(module: nn.Conv2d, input_shape: torch.Size) -> Tensor:
    """The pixel, counted from 1, that each kernel entry meets at each position: (kernel, positions); 0 is padding."""
    height, width = input_shape[-2:]
    pixels = torch.arange(1.0, height * width + 1, dtype=torch.float64).reshape(1, 1, height, width)
    return unfold(pixels, module.kernel_size, **geometry(module))[0].long()


def gradient_matrix(module: nn.Conv2d, k: Tensor, input_shape: torch.Size) -> Tensor:
    """K with d loss / d weight = K x, the same for each input channel x: (C_out * kernel, H * W), from k (C_out, ...).

    The paper keeps the padding as unknowns, with one row for each that says it is zero; here column 0 collects their
    coefficients, and is dropped.
    """
    index, k = taps(module, input_shape), k.flatten(1)
    matrix = k.new_zeros(len(k), len(index), input_shape[1:].numel() + 1)
    matrix.scatter_add_(2, index.expand(len(k), -1, -1), k[:, None].expand(-1, len(index), -1))
    return matrix.flatten(0, 1)[:, 1:]


def weight_matrix(module: nn.Conv2d, input_shape: torch.Size) -> Tensor:
    """W with conv(x) = W x: (C_out * positions, C_in * H * W)."""
    index, weight = taps(module, input_shape).T, module.weight.detach().flatten(2)
    (c_out, c_in, _), positions = weight.shape, len(index)
    matrix = weight.new_zeros(c_out, positions, c_in, input_shape[1:].numel() + 1)
    matrix.scatter_add_(3, index[:, None].expand(c_out, -1, c_in, -1), weight[:, None].expand(-1, positions, -1, -1))
    return matrix[..., 1:].flatten(2).flatten(0, 1)


def solve_dense(layer: Layer, z: Tensor, k: Tensor, g: Tensor) -> Solution:
    """The system of a convolution by factorization.

    The gradient equations have the same K for every input channel, so K is reduced to a triangle before it is repeated:
    orthogonal steps, which change neither solution nor rank nor residual.
    """
    rows = g.flatten(2).transpose(1, 2).flatten(0, 1)  # one column for each input channel
    small, targets, lost = triangularized(gradient_matrix(layer.module, k, layer.input_shape), rows)
    a = torch.cat([torch.block_diag(*[small] * layer.input_shape[0]), weight_matrix(layer.module, layer.input_shape)])
    solution = least_squares(a, torch.cat([targets.T.flatten(), z.flatten()]))
    return Solution(solution.x, solution.rank, math.hypot(solution.residual, lost))


def solve_by_iteration(layer: Layer, z: Tensor, k: Tensor, g: Tensor) -> Solution:
    """The same system without its matrix, whose products are convolutions."""
    module, shape, weight = layer.module, (1, *layer.input_shape), layer.module.weight.detach()

    def forward(x: Tensor) -> Tensor:
        return left_side(module, x.reshape(layer.input_shape), k)

    def adjoint(y: Tensor) -> Tensor:
        dg, dz = y.split([g.numel(), z.numel()])
        dg, dz, how = dg.reshape(g.shape), dz.reshape(1, *k.shape), geometry(module)
        return (conv2d_input(shape, dg, k[None], **how) + conv2d_input(shape, weight, dz, **how)).flatten()

    b = torch.cat([g.flatten(), z.flatten()])
    return iterated_least_squares(forward, adjoint, b, layer.input_shape.numel())
