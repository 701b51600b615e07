"""The scores of labels; those of images are in `metrics`."""

from collections import Counter

from torch import Tensor


def label_accuracies(found: Tensor, truth: Tensor, *, parity: bool = False) -> dict[str, float]:
    """How well the labels that an attack used agree with those of the batch, as multisets; 1 is best.

    - `counts`: sum_i min(n_i, found n_i) / B, with n_i images of class i. The published accuracies of ZLR in the IGIMS
      paper (6/16, 10/32, 17/64 ...) are this one. iLRG's authors call it IRec.
    - `existence`: the share of the classes in the batch that were found at least once. A found class that is not in
      the batch costs nothing here; in `counts` each image of such a class costs 1 / B.

    Args:
        found: classes (B,), or probabilities (B, N), of which the most probable class counts.
        truth: classes (B,).
        parity: compare only whether classes are odd or even, for a victim with one logit.
    """
    found = found.argmax(-1) if found.ndim > 1 else found
    n_found, n = (Counter((y % 2 if parity else y).tolist()) for y in (found, truth))
    return {"counts": (n_found & n).total() / n.total(), "existence": len(n_found.keys() & n.keys()) / len(n)}
