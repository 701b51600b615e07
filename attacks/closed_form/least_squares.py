"""Least-squares solutions of least norm in float64, with rank and residual: by factorization and by iteration."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg.lapack import dtrcon
from scipy.sparse.linalg import LinearOperator, lsmr
from torch import Tensor

EPS = torch.finfo(torch.float64).eps


@dataclass(frozen=True)
class Solution:
    """The least-squares solution x (n,) of least norm, the matrix's rank and |A x - b|."""

    x: Tensor
    rank: int
    residual: float


def triangularized(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, float]:
    """Q^T a and Q^T b of a = Q R without the rows that are zero in R, and the norm of b in these rows.

    Args:
        a: (m, n); returned unchanged if m <= n.
        b: (m, c).
    """
    m, n = a.shape
    if m <= n:
        return a, b, 0.0
    r = torch.linalg.qr(torch.cat([a, b], 1), mode="r").R
    return r[:n, :n], r[:n, n:], float(r[n:, n:].norm())


def least_squares(a: Tensor, b: Tensor) -> Solution:
    """min |a x - b| over a (m, n) and b (m,); of all minimizers the one of least norm."""
    tolerance = max(a.shape) * EPS  # singular values below it, relative to the largest, count as zero
    tall = len(a) > a.shape[1]
    a, b, lost = triangularized(a, b[:, None])
    if tall and dtrcon(a.numpy())[0] > tolerance:
        return Solution(torch.linalg.solve_triangular(a, b, upper=True)[:, 0], len(a), lost)
    solved = torch.linalg.lstsq(a, b, rcond=tolerance, driver="gelsd")  # not gelsy: wrong rank in torch 2.11
    x = solved.solution
    return Solution(x[:, 0], int(solved.rank), math.hypot(float((a @ x - b).norm()), lost))


def iterated_least_squares(
    forward: Callable[[Tensor], Tensor], adjoint: Callable[[Tensor], Tensor], b: Tensor, unknowns: int
) -> Solution:
    """As `least_squares`, by LSMR on products with A and its transpose; the rank is only an upper bound.

    Args:
        forward: x (unknowns,) -> A x (m,).
        adjoint: y (m,) -> A^T y (unknowns,).
        b: (m,).
    """

    def on_arrays(product: Callable[[Tensor], Tensor]) -> Callable[[np.ndarray], np.ndarray]:
        return lambda array: product(torch.from_numpy(array)).numpy()

    size = (len(b), unknowns)
    operator = LinearOperator(size, matvec=on_arrays(forward), rmatvec=on_arrays(adjoint), dtype=np.float64)
    x, _, _, residual, *_ = lsmr(operator, b.numpy(), atol=EPS, btol=EPS, conlim=0, maxiter=10 * unknowns)
    return Solution(torch.from_numpy(x), min(size), residual)
