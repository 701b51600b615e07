"""The factors dZ (m, b) and X (b, n) of dL/dW = dZ X, where every column of dZ has many zeros (SPEAR, NeurIPS 2024).

A thin singular value decomposition gives dL/dW = L R, so that dZ = L Q diag(d) for some Q (b, b). If b - 1 rows are
drawn that are zero in column i of dZ, then the columns of Q are found one by one: q_i is orthogonal to these rows of L.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import sqrt

import torch
from torch import Tensor

CHUNK = 4096  # draws at once
ROUNDINGS = 32  # of the largest singular value, which sums of rounded products may leave in others
SURE = 8  # standard deviations of the noise, within which a number may be zero
SOME = 64  # rows, at most, that are looked at first
SILENT = 1 / 16  # least share of zeros in a column that is looked for


@dataclass(frozen=True)
class LowRank:
    """dL/dW = L R + noise.

    Attributes:
        L, R: (m, r) with orthonormal columns, and (r, n) with orthogonal rows.
        s: (r,) singular values, the largest first.
        noise: the standard deviation of an entry, measured by the first singular value that is left out; at least that
            of what rounds L.
        exact: nothing is left out but rounding.
    """

    L: Tensor
    R: Tensor
    s: Tensor
    noise: float
    exact: bool

    def zero(self, q: Tensor) -> Tensor:
        """(..., 1): below this an entry of L q may be zero, for q (..., r) of length 1."""
        return SURE * self.noise * (q / self.s).norm(dim=-1, keepdim=True)

    @cached_property
    def hopeless(self) -> bool:
        """No entry of L q can be told from zero, of which the root mean square is m^(-1/2)."""
        return not len(self.s) or SURE * self.noise / float(self.s[-1]) > len(self.L) ** -0.5


def low_rank(g: Tensor, b: int, eps: float, rounding: float = 0.0) -> LowRank:
    """The best approximation of rank b, or of less if there is less above the rounding.

    Args:
        g: (m, n), finite, with b below m and n.
        eps: that of the type in which g was computed.
        rounding: what else the entries may have of it.
    """
    L, s, V = torch.linalg.svd(g, full_matrices=False)
    spread = sqrt(g.shape[0]) + sqrt(g.shape[1])  # the norm of a matrix of independent entries of variance 1
    most = ROUNDINGS * eps * float(s[0]) + rounding * spread
    r = min(b, int((s > most).sum()))
    noise = max(float(s[r]) / spread, torch.finfo(g.dtype).eps * float(s[0]))
    return LowRank(L[:, :r], s[:r, None] * V[:r], s[:r], noise, float(s[r]) <= most)


def bases(low: LowRank, draws: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Better and better Q (r, r), of columns of length 1 that make L Q sparse; at the end the best one again.

    Args:
        draws: of rows, at most.
    """
    r = len(low.s)
    live = (low.L.norm(dim=1) > low.zero(torch.eye(r).to(low.L)).max()).nonzero()[:, 0]
    found: dict[bytes, Tensor] = {}  # columns by their zeros
    best: list[bytes] = []
    for _ in range(0, draws if len(live) >= r else 0, CHUNK):
        rows = live[torch.randint(len(live), (CHUNK, r - 1), generator=generator)]
        for q in sparse(low, orthogonal(low.L[rows]), live):
            zeros, q = refined(low, q)
            found[zeros.numpy().tobytes()] = q
        before, best = best, sparsest(low, found)
        if best != before and len(best) == r:
            yield torch.stack([found[zeros] for zeros in best], 1)
    chosen = [found[zeros] for zeros in best]
    known = torch.stack(chosen, 1) if chosen else low.L.new_zeros(r, 0)
    yield torch.cat([known, torch.linalg.qr(known, mode="complete").Q[:, len(best) :]], 1)


def orthogonal(rows: Tensor) -> Tensor:
    """A vector of length 1 that is orthogonal to all rows, (k, r - 1, r) -> (k, r); nan where rows are dependent."""
    q = torch.linalg.solve_ex(rows[..., :-1], -rows[..., -1:]).result[..., 0]
    q = torch.cat([q, q.new_ones(len(q), 1)], 1)
    return q / q.norm(dim=1, keepdim=True)


def sparse(low: LowRank, q: Tensor, live: Tensor) -> Iterator[Tensor]:
    """Of the candidates q (k, r) those for which L q has the most zeros, each independent of those before.

    Images alike share most of their zeros, and so do all combinations of their columns: there are many such candidates.

    Args:
        live: the rows of L that are not zero.
    """
    some = live[:: -(-len(live) // SOME)]
    q = q[zeros_in(low, q, some) >= SILENT * len(some)]  # most have few zeros, which few rows show
    zeros, rest = zeros_in(low, q, live), q
    enough = len(low.s) - 1 + SILENT * len(live)  # all have the zeros that were drawn
    while len(zeros) and zeros.max() >= enough:
        k = int(zeros.argmax())
        yield q[k]
        u = rest[k] / rest[k].norm()
        rest = rest - (rest @ u)[:, None] * u
        new = rest.norm(dim=1) > (float(low.zero(q[k])) * len(low.L) ** 0.5) ** 0.5
        q, zeros, rest = q[new], zeros[new], rest[new]


def zeros_in(low: LowRank, q: Tensor, rows: Tensor) -> Tensor:
    """How many entries of L q in these rows may be zero: (k, r) -> (k,).

    Few rows leave q inexact, so a zero may be larger here: halfway, in orders of magnitude, to an average entry.
    """
    zero = (low.zero(q) * len(low.L) ** -0.5).sqrt()
    return ((q @ low.L[rows].T).abs() < zero).sum(1)


def refined(low: LowRank, q: Tensor) -> tuple[Tensor, Tensor]:
    """The zeros of L q (m,), and the q that makes these the smallest: what counts as zero shrinks towards the noise."""
    zero = len(low.L) ** -0.5
    for _ in range(8):
        zero = (float(low.zero(q)) * zero) ** 0.5
        zeros = (low.L @ q).abs() < zero
        if zeros.sum() < len(q):
            break
        q = torch.linalg.svd(low.L[zeros], full_matrices=False).Vh[-1]
    return (low.L @ q).abs() < low.zero(q), q


def sparsest(low: LowRank, found: dict[bytes, Tensor]) -> list[bytes]:
    """The columns with the most zeros that are linearly independent, by their zeros; at most r."""
    chosen: list[bytes] = []
    basis = low.L.new_zeros(len(low.s), 0)
    for zeros in sorted(found, key=lambda zeros: (-sum(zeros), zeros)):
        q = found[zeros]
        rest = q - basis @ (basis.T @ q)
        if float(rest.norm()) > float(low.zero(q)) * sqrt(len(low.L)):
            chosen.append(zeros)
            basis = torch.cat([basis, (rest / rest.norm())[:, None]], 1)
        if len(chosen) == len(low.s):
            break
    return chosen
