"""iLRG: Ma et al., *Instance-wise Batch Label Restoration via Gradients in Federated Learning*, ICLR 2023."""

import torch
from torch import Tensor

from attacks.labels.base import classifier, method, nearest_counts
from victims.observation import Observation


@method("bias", "scale", "softmax")
def ilrg(observation: Observation) -> Tensor:
    """Label counts by least squares, with the probabilities of each class read from its row of the gradient.

    Row i divided by its bias gradient, dW_i / db_i, is approximately the mean feature of class i, because the images of
    class i have the largest weight in both; p_i are the probabilities there. Then sum_j n_j p_ji - n_i = B db_i for
    every class i, and sum_j n_j = B. Under label smoothing (1 - eps) n_i + eps B / N stands for the single n_i.

    Assumed: a class whose bias gradient is zero has the feature 0. The authors report every count rounded, or 0 where
    it is below 0 or above B. Beside these they return counts whose sum is repaired, by 1 where rounding changed most;
    if it is below B, the slice in their code selects other classes. Here they always add up to B, see `nearest_counts`.
    """
    layer, B = classifier(observation), observation.batch_size
    db = layer.db
    assert db is not None  # "bias" is among the needs
    a = (layer.dW / db[:, None]).nan_to_num(0.0, 0.0, 0.0)
    p = layer.probabilities(a)  # (N, N): of the images of class j in row j
    eps = observation.victim.criterion.smoothing or 0.0
    system = torch.cat([p.T - (1 - eps) * torch.eye(len(p)).to(p), torch.ones_like(p[:1])])
    values = torch.cat([B * (db + eps / len(p)), db.new_tensor([B])])
    return nearest_counts(torch.linalg.pinv(system) @ values, B)
