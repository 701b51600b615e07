"""ALR, adaptive label recovery: Fang, Wang, Li, *Iterative and mixed-spaces image gradient inversion attack in
federated learning* (IGIMS), 2024, equations 9 to 11.
"""

from torch import Tensor

from attacks.labels.base import classifier, counted, dummy_features, method, nearest_counts
from victims.observation import Observation


@method("bias", "scale", "softmax")
def alr(observation: Observation) -> Tensor:
    """Label counts from the bias gradient and the mean softmax, which is estimated on dummy images.

    n_i = sum_k p_ik - B db_i holds exactly; under label smoothing this is the sum of the smoothed targets. In an
    untrained net features hardly depend on the image, so the mean feature of dummy images replaces the mean feature of
    the batch, and the softmax there replaces the mean of p.

    Assumed, because the paper does not say: which dummy images and how many (see `dummy_features`), the victim in the
    client's mode, and how counts become whole numbers (see `nearest_counts`).
    """
    layer, B = classifier(observation), observation.batch_size
    assert layer.db is not None  # "bias" is among the needs
    p = layer.probabilities(dummy_features(observation).mean(0))
    return nearest_counts(counted(B * (p - layer.db), observation), B)
