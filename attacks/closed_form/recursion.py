"""The mathematics of R-GAP (Zhu & Blaschko, ICLR 2021): from a layer's output and gradients to its input.

All of it is in float64 on the CPU: errors grow from layer to layer, and every digit helps.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg.lapack import dtrcon
from scipy.optimize import brentq
from scipy.sparse.linalg import LinearOperator, lsmr
from scipy.special import expit, lambertw
from torch import Tensor, nn
from torch.nn.functional import conv2d, unfold
from torch.nn.grad import conv2d_input, conv2d_weight

from attacks.closed_form.chain import Link

DENSE_LIMIT = 2 * 2**30  # bytes of a system's matrix; a larger one is solved by iteration
EPS = torch.finfo(torch.float64).eps
TURN = float(1 + lambertw(math.exp(-1)).real)  # where -m / (1 + e^m) is least: (m - 1) e^m = 1


@dataclass(frozen=True)
class LayerReport:
    """What the linear system of one layer could and did determine.

    Attributes:
        layer: the module's name.
        unknowns: numbers in the layer's input.
        gradient_equations, weight_equations: that were used.
        rank: of all equations together; below `unknowns` they leave the input open.
        rank_is_bound: nothing was factorized, and `rank` is only what it cannot exceed.
        residual: |A x - b| / |b|.
        input: the rebuilt input.
    """

    layer: str
    unknowns: int
    gradient_equations: int
    weight_equations: int
    rank: int
    rank_is_bound: bool
    residual: float
    input: Tensor


@dataclass(frozen=True)
class Solution:
    """The least-squares solution x (n,) of least norm, the matrix's rank and |A x - b|."""

    x: Tensor
    rank: int
    residual: float


# The last layer.


def margins(product: float) -> list[float]:
    """Every m = y u that solves <g, w> = -m / (1 + e^m), the smallest first.

    Above zero there is one, left of zero. Below zero there are two, left and right of the function's minimum: two
    images, multiples of each other, with the very same gradient. An update that is rounded may lie just
    below the minimum; the minimum itself is taken then.
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


# One layer down.


def rebuild_input(link: Link, z: Tensor, k: Tensor, g: Tensor, balanced: bool = False) -> LayerReport:
    """The input of a linear layer or a convolution.

    Args:
        z: the layer's output, `link.output_shape`.
        k: d loss / d output, the same shape.
        g: d loss / d weight.
        balanced: a convolution's gradient equations are scaled to the size of its weight equations.
    """
    unknowns, bound = link.input_shape.numel(), False
    if isinstance(link.module, nn.Linear):
        # g = k x^T. The paper's code averages g_i / k_i over the rows i: the same x where the gradient is exact, but
        # rows with a small k_i would bring in their rounding at its full size.
        b, weight_equations = g, 0
        x = g.T @ k / k.square().sum()
        solution = Solution(x, unknowns, float((g - k.outer(x)).norm()))
    else:
        if balanced:
            k, g = balance(link.module, k, g)
        b, weight_equations = torch.cat([g.flatten(), z.flatten()]), z.numel()
        rows = min(g[:, 0].numel(), link.input_shape[1:].numel()) * link.input_shape[0] + z.numel()
        bound = rows * unknowns * z.element_size() > DENSE_LIMIT
        solution = (solve_by_iteration if bound else solve_dense)(link, z, k, g)
    return LayerReport(
        layer=link.name,
        unknowns=unknowns,
        gradient_equations=g.numel(),
        weight_equations=weight_equations,
        rank=solution.rank,
        rank_is_bound=bound,
        residual=solution.residual / float(b.norm()),
        input=solution.x.reshape(link.input_shape),
    )


def balance(layer: nn.Conv2d, k: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """k and g scaled so that the gradient equations K x = g have the size of the weight equations."""
    size = layer.weight.detach().flatten(1).norm(dim=1).mean() / k.flatten(1).norm(dim=1).mean()
    return k * size, g * size


def left_side(layer: nn.Conv2d, x: Tensor, k: Tensor) -> Tensor:
    """A x without the matrix A, gradient equations first: (weights + outputs,); differentiable in x (C, H, W)."""
    how = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation}
    weight = layer.weight.detach()
    dg, dz = conv2d_weight(x[None], weight.shape, k[None], **how), conv2d(x[None], weight, **how)
    return torch.cat([dg.flatten(), dz.flatten()])


def taps(layer: nn.Conv2d, input_shape: torch.Size) -> Tensor:
    """Which pixel, counted from 1, each entry of the kernel meets at each position: (kernel, positions); 0: padding."""
    height, width = input_shape[-2:]
    pixels = torch.arange(1.0, height * width + 1, dtype=torch.float64).reshape(1, 1, height, width)
    return unfold(pixels, layer.kernel_size, layer.dilation, layer.padding, layer.stride)[0].long()


def gradient_matrix(layer: nn.Conv2d, k: Tensor, input_shape: torch.Size) -> Tensor:
    """K with d loss / d weight = K x for each input channel x alike: (C_out * kernel, H * W), from k (C_out, ...).

    The paper keeps the padding as unknowns, with one row for each that says it is zero; here column 0 collects
    what would multiply them, and is dropped.
    """
    index, k = taps(layer, input_shape), k.flatten(1)
    matrix = k.new_zeros(len(k), len(index), input_shape[1:].numel() + 1)
    matrix.scatter_add_(2, index.expand(len(k), -1, -1), k[:, None].expand(-1, len(index), -1))
    return matrix.flatten(0, 1)[:, 1:]


def weight_matrix(layer: nn.Conv2d, input_shape: torch.Size) -> Tensor:
    """W with conv(x) = W x: (C_out * positions, C_in * H * W)."""
    index, weight = taps(layer, input_shape).T, layer.weight.detach().flatten(2)
    (c_out, c_in, _), positions = weight.shape, len(index)
    matrix = weight.new_zeros(c_out, positions, c_in, input_shape[1:].numel() + 1)
    matrix.scatter_add_(3, index[:, None].expand(c_out, -1, c_in, -1), weight[:, None].expand(-1, positions, -1, -1))
    return matrix[..., 1:].flatten(2).flatten(0, 1)


def solve_dense(link: Link, z: Tensor, k: Tensor, g: Tensor) -> Solution:
    """All gradient and weight constraints of a convolution, by factorization.

    The gradient constraints are the same K for every input channel, so K is reduced to a triangle before it is
    repeated: orthogonal steps, which leave solution, rank and residual as they are.
    """
    rows = g.flatten(2).transpose(1, 2).flatten(0, 1)  # one column for each input channel
    small, targets, lost = reduce(gradient_matrix(link.module, k, link.input_shape), rows)
    a = torch.cat([torch.block_diag(*[small] * link.input_shape[0]), weight_matrix(link.module, link.input_shape)])
    solution = least_squares(a, torch.cat([targets.T.flatten(), z.flatten()]))
    return Solution(solution.x, solution.rank, math.hypot(solution.residual, lost))


def reduce(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, float]:
    """Q^T a and Q^T b of a = Q R without the rows that are zero in R, and the norm of what b has in these.

    Args:
        a: (m, n); returned as it is where m <= n.
        b: (m, c).
    """
    m, n = a.shape
    if m <= n:
        return a, b, 0.0
    r = torch.linalg.qr(torch.cat([a, b], 1), mode="r").R
    return r[:n, :n], r[:n, n:], float(r[n:, n:].norm())


def least_squares(a: Tensor, b: Tensor) -> Solution:
    """min |a x - b| over a (m, n) and b (m,), and of all x that reach it the one of least norm."""
    tolerance = max(a.shape) * EPS  # of singular values that count as zero, relative to the largest
    tall = len(a) > a.shape[1]
    a, b, lost = reduce(a, b[:, None])
    if tall and dtrcon(a.numpy())[0] > tolerance:
        return Solution(torch.linalg.solve_triangular(a, b, upper=True)[:, 0], len(a), lost)
    solved = torch.linalg.lstsq(a, b, rcond=tolerance, driver="gelsy")
    x = solved.solution
    return Solution(x[:, 0], int(solved.rank), math.hypot(float((a @ x - b).norm()), lost))


def solve_by_iteration(link: Link, z: Tensor, k: Tensor, g: Tensor) -> Solution:
    """The same system without its matrix: its products are a convolution's own."""
    layer = link.module
    how = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation}
    shape, weight = (1, *link.input_shape), layer.weight.detach()

    def forward(x: np.ndarray) -> np.ndarray:
        return left_side(layer, torch.from_numpy(x).reshape(link.input_shape), k).numpy()

    def adjoint(b: np.ndarray) -> np.ndarray:
        dg, dz = torch.from_numpy(b).split([g.numel(), z.numel()])
        dg, dz = dg.reshape(g.shape), dz.reshape(1, *k.shape)
        x = conv2d_input(shape, dg, k[None], **how) + conv2d_input(shape, weight, dz, **how)
        return x.flatten().numpy()

    b = torch.cat([g.flatten(), z.flatten()]).numpy()
    size = (len(b), link.input_shape.numel())
    operator = LinearOperator(size, matvec=forward, rmatvec=adjoint, dtype=b.dtype)
    x, _, _, residual, *_ = lsmr(operator, b, atol=EPS, btol=EPS, conlim=0, maxiter=10 * size[1])
    return Solution(torch.from_numpy(x), min(size), residual)
