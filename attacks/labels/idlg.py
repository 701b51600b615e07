"""iDLG's label rule: Zhao, Mopuri, Bilen, *iDLG: Improved Deep Leakage from Gradients*, 2020, section 3.1."""

from torch import Tensor

from attacks.labels.base import classifier, method
from victims.observation import Observation


@method("one image", "non-negative features")
def idlg(observation: Observation) -> Tensor:
    """The label of a single image: the row of the classifier's weight gradient with the least sum, (1,) long.

    Row i is (p_i - [i is the label]) h for features h, and only the label's factor is negative. So the rule is
    exact where the features sum to more than zero, as behind a sigmoid or ReLU; then no other row sums to less
    than zero, and it is the paper's sign rule, which does not say what to do where a defense leaves no such row.
    """
    return classifier(observation).dW.sum(1).argmin()[None]
