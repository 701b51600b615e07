"""ResNet-18 with group norm (Wu & He, *Group Normalization*, ECCV 2018), for 32 and 64 px images."""

from functools import partial

from torch import nn

from victims.models.resnet18 import ResNet18

GROUPS = 32  # in each layer: the default of the paper (section 3.1)


class ResNet18GN(ResNet18):
    """ResNet-18 with a 3x3 stem for small images and group norm in place of batch norm, in 32 groups.

    Images do not depend on each other, so that train and eval mode are the same. Federated learning prefers it where
    clients have different classes (Hsieh et al., ICML 2020). With the stem of ImageNet, timm has `timm:resnet50_gn`.
    """

    norm = staticmethod(partial(nn.GroupNorm, GROUPS))
