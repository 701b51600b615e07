"""iDLG's label rule: Zhao, Mopuri, Bilen, *iDLG: Improved Deep Leakage from Gradients*, 2020, section 3.1."""

from torch import Tensor

from attacks.labels.base import classifier, method
from victims.observation import Observation


@method("one image", "non-negative features", "signs")
def idlg(observation: Observation) -> Tensor:
    """The label of a single image: the row of the classifier's weight gradient with the smallest sum, (1,) long.

    Row i is (p_i - [i is the label]) h for features h, and only the label's factor is negative. So the rule is exact
    where the features sum to more than zero, as after a sigmoid or ReLU. Then no other row has a negative sum, and the
    rule equals the paper's sign rule, which does not say what to do if a defense leaves no negative row.
    """
    return classifier(observation).dW.sum(1).argmin()[None]
