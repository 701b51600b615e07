"""iDLG's label rule: Zhao, Mopuri, Bilen, *iDLG: Improved Deep Leakage from Gradients*, 2020, section 3.1."""

from torch import Tensor

from attacks.labels.base import method
from victims.errors import InputError
from victims.observation import Observation
from victims.victim import Gradient


@method("one image", "non-negative features")
def idlg(observation: Observation) -> Tensor:
    """The label of a single image: the row of the classifier's weight gradient with the least sum, (1,) long."""
    return idlg_label(observation.update, observation.victim.classifier())


def idlg_label(update: Gradient, classifier: str) -> Tensor:
    """The row of the classifier's weight gradient with the least sum, (1,) long.

    Row i is (p_i - [i is the label]) h for features h, and only the label's factor is negative. So the rule is
    exact where the features sum to more than zero, as behind a sigmoid or ReLU; then no other row sums to less
    than zero, and it is the paper's sign rule, which does not say what to do where a defence leaves no such row.

    Args:
        update: the client's, not stacked: (*shape) per parameter.
        classifier: the name of the weight (num_classes, features).

    Raises:
        InputError: one logit stands for several classes, so that no row is a class.
    """
    rows = update[classifier].flatten(1).sum(1)
    if len(rows) == 1:
        raise InputError("iDLG reads the label from one row per class, and this victim has one logit; choose another.")
    return rows.argmin()[None]
