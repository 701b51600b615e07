"""GGL's label rule: Li et al., *Auditing Privacy Defenses in Federated Learning via Generative Gradient Leakage*, 2022.

Its authors' code takes the smallest row sums of the classifier's weight gradient: iDLG's rule for several images.
"""

from torch import Tensor

from attacks.labels.base import classifier, lowest, method
from victims.observation import Observation


@method("distinct labels", "non-negative features", "signs")
def row_sums(observation: Observation) -> Tensor:
    """The B classes whose rows of the weight gradient have the smallest sums.

    A sum over features averages noise, so under additive noise it tells more than ZLR's minimum. If there are more
    images than classes, all classes are taken, then again from the smallest sum (assumed).
    """
    return lowest(classifier(observation).dW.sum(1), observation.batch_size)
