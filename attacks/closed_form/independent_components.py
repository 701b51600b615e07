"""Batches as mixtures: what a linear layer's gradient says of its inputs, and independent component analysis.

dL/dW = V X: each of its m rows is a mixture of the B inputs x_i (n,). So B combinations of the rows give the inputs
back, and those are looked for whose results are the least like mixtures.
"""

import math
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import softplus

from victims.errors import Notice

OF_A_NORMAL = 0.3745672074  # E[log cosh v] of standard normal v
RANK = 1e-6  # singular values below it, relative to the largest, are rounding: updates are mostly float32


def whitening(G: Tensor, B: int) -> Tensor:
    """K (B, m), so that the rows of K G have covariance 1 over their n entries, from mixtures G (m, n) in float64.

    They are the B principal components of the centered rows, each with a positive largest entry, so that rounding
    cannot turn it around. Where G has a smaller rank, the rows of K that are left are zero.
    """
    L, S, R = torch.linalg.svd((G - G.mean(1, keepdim=True)).nan_to_num(), full_matrices=False)
    L, S, R = L[:, :B], S[:B], R[:B]
    signs = R.gather(1, R.abs().argmax(1, keepdim=True)).sign()
    found = RANK * S[0] < S
    return torch.where(found, math.sqrt(G.shape[1]) / S, 0)[:, None] * signs * L.T


def unit_rows(U: Tensor) -> Tensor:
    return U / U.norm(dim=-1, keepdim=True)


def negentropy(s: Tensor) -> Tensor:
    """(E[log cosh s] - E[log cosh v])^2, v standard normal, E over entries of rows of variance 1: (..., n) -> (...).

    Hyvärinen & Oja, *Independent component analysis: algorithms and applications*, 2000, eqs. 25 and 26. It is zero for
    normal numbers, which mixtures resemble.
    """
    centered = (s - s.mean(-1, keepdim=True)).abs()
    log_cosh = centered + softplus(-2 * centered) - math.log(2)
    return (log_cosh.mean(-1) - OF_A_NORMAL).square()


def decorrelation(U: Tensor, T: float) -> Tensor:
    """Sum over pairs i != j of exp(T |<u_i, u_j>|) - 1, divided by B^2, of unit rows: (R, B, B) -> (R,)."""
    pairs = (T * (U @ U.mT).abs()).exp() - 1
    return (pairs.sum((1, 2)) - pairs.diagonal(dim1=1, dim2=2).sum(1)) / U.shape[1] ** 2


def warn_of_rank(K: Sequence[Tensor], layer: str) -> None:
    """A Notice where a gradient is of fewer mixtures than there are images.

    Args:
        K: of `whitening`, (B, m) each.
        layer: whose gradient it is.
    """
    B, rank = len(K[0]), min(int(k.any(1).sum()) for k in K)
    if 0 < rank < B:
        warnings.warn(
            f"the gradient of the layer {layer} has rank {rank}, and the batch has {B} images: {B - rank} of them "
            "cannot be separated.",
            Notice,
            stacklevel=2,
        )
