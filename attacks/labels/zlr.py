"""ZLR, GradInversion's label restoration: Yin et al., *See through Gradients*, CVPR 2021, section 3.2."""

from torch import Tensor

from attacks.labels.base import classifier, lowest, method
from victims.observation import Observation


@method("distinct labels", "non-negative features", "signs")
def zlr(observation: Observation) -> Tensor:
    """The B classes whose rows of the weight gradient have the smallest minimum over the features.

    Entry (i, f) is the mean over images of (p_i - [i is the label]) a_f, and only the label's factor is negative. Every
    class is found at most once. If there are more images than classes, all classes are taken, then again from the
    smallest minimum (assumed; the IGIMS paper compares ALR with ZLR in this case too, and does not say how).
    """
    return lowest(classifier(observation).dW.amin(1), observation.batch_size)
