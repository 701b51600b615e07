"""LLG*: Wainakh et al., *User-Level Label Leakage from Gradients in Federated Learning*, PoPETs 2022.

The paper has three variants: LLG uses the update alone, LLG* also the model, which it feeds with dummy images, and LLG+
also auxiliary data. The attackers of this suite have the model and no data, so this is LLG*.
"""

import torch
from torch import Tensor

from attacks.labels.base import classifier, dummy_features, method
from victims.observation import Observation


@method("non-negative features", "scale", "signs", "softmax")
def llg(observation: Observation) -> Tensor:
    """Labels one by one: subtract the impact of an image from the row sums of the weight gradient, and repeat.

    The row sum g_i is approximately s_i + n_i m. Dummy batches, with each class once as the label of all images, give
    the impact m < 0, which is the same for all classes, and the offset s_i: what class i gets from images of other
    classes. A class with g_i < 0 is present. Each further image goes to the class with the smallest g - s - n m.

    Assumed: the dummy images (see `dummy_features`; random images are one of the paper's choices). If a defense leaves
    more negative sums than there are images, the smallest are taken.
    """
    layer, B, n = classifier(observation), observation.batch_size, observation.num_classes
    a = dummy_features(observation)
    p, sums = layer.probabilities(a), a.sum(1, keepdim=True)
    m = (1 + 1 / n) * ((p - 1) * sums).mean() / B  # g_i of an image of class i is (p_i - 1) times its features' sum
    s = (p * sums).mean(0)
    g = layer.dW.sum(1)
    labels = [i for i in g.argsort(stable=True).tolist() if g[i] < 0][:B]
    g = g - s
    g[labels] -= m
    while len(labels) < B:
        labels.append(int(g.argmin()))
        g[labels[-1]] -= m
    return torch.tensor(labels, device=g.device)
