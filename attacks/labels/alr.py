"""ALR, adaptive label recovery: Fang, Wang, Li, *Iterative and mixed-spaces image gradient inversion attack in
federated learning* (IGIMS), 2024, equations 9 to 11.
"""

from torch import Tensor

from attacks.labels.base import classifier, dummy_features, method, nearest_counts
from victims.observation import Observation


@method("bias", "scale")
def alr(observation: Observation) -> Tensor:
    """n_i = sum_k p_ik - B db_i, exactly; the mean of p is estimated on dummy images.

    In an untrained net features hardly depend on the image, so the mean feature of dummy images stands for that of the
    batch, and the softmax there for the mean of p.

    Assumed, for the paper does not say: which dummy images and how many (see `dummy_features`), the victim in the mode
    that the client has it in, and how counts become whole (see `nearest_counts`).
    """
    layer, B = classifier(observation), observation.batch_size
    p = layer.probabilities(dummy_features(observation).mean(0))
    return nearest_counts(B * (p - layer.db), B)
