"""The scores of labels, as `metrics` has those of images."""

from collections import Counter

from torch import Tensor


def label_accuracies(found: Tensor, truth: Tensor, *, parity: bool = False) -> dict[str, float]:
    """How well the labels that an attack used agree with the batch's, as multisets; 1 is best.

    - `counts`: sum_i min(n_i, found n_i) / B, with n_i images of class i. The published accuracies of ZLR in the IGIMS
      paper (6/16, 10/32, 17/64 ...) are this one. iLRG's authors call it IRec.
    - `existence`: the share of the classes in the batch that were found at least once. Classes found that are not in
      the batch cost nothing here; in `counts` each image of such a class costs 1 / B.

    Args:
        found: classes (B,), or probabilities (B, N), of which the likeliest class counts.
        truth: classes (B,).
        parity: the victim has one logit, which tells odd classes from even ones; so do the scores then.
    """
    found = found.argmax(-1) if found.ndim > 1 else found
    n_found, n = (Counter((y % 2 if parity else y).tolist()) for y in (found, truth))
    return {"counts": (n_found & n).total() / n.total(), "existence": len(n_found.keys() & n.keys()) / len(n)}
