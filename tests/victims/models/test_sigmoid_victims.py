"""CI-Net's victims against torchvision's network and the layers of the authors' code, counted by hand."""

import torch
import torchvision
from torch import nn

from victims.models.sigmoid_resnet18_imagenet import SigmoidResNet18ImageNet
from victims.models.sigmoid_vgg11 import SigmoidVGG11
from victims.modules import build


def test_resnet18_for_imagenet_is_torchvisions_with_sigmoids():
    ours = build(SigmoidResNet18ImageNet, image_shape=(3, 64, 64), num_classes=1000, seed=0).eval()
    theirs = build(torchvision.models.resnet18, weights=None, num_classes=1000, seed=0).eval()
    assert all(torch.equal(p, q) for p, q in zip(ours.parameters(), theirs.parameters(), strict=True))
    assert not any(isinstance(m, nn.ReLU) for m in ours.modules())
    for module in theirs.modules():
        if isinstance(module, nn.ReLU):
            module.register_forward_hook(lambda _m, given, _out: given[0].sigmoid())
            module.inplace = False
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours(x), theirs(x))
    assert len([m for m in ours.modules() if isinstance(m, nn.Sigmoid)]) == 9


def test_vgg11_is_that_of_the_code():
    model = build(SigmoidVGG11, image_shape=(3, 32, 32), num_classes=10, seed=0)
    convolutions = [m for m in model.features if isinstance(m, nn.Conv2d)]
    assert [m.out_channels for m in convolutions] == [32, 128, 256, 256, 512, 512, 512, 512]
    assert {(m.kernel_size, m.stride, m.padding) for m in convolutions} == {((2, 2), (1, 1), (1, 1))}
    pools = [m for m in model.features if isinstance(m, nn.MaxPool2d)]
    assert [(m.kernel_size, m.stride) for m in pools] == 5 * [(2, 1)]
    kinds = {nn.Conv2d: "c", nn.Sigmoid: "s", nn.MaxPool2d: "p"}
    assert "".join(kinds[type(m)] for m in model.features) == 2 * "csp" + 3 * "cscsp"
    assert model.classifier.in_features == 627_200
    assert model(torch.rand(1, 3, 32, 32)).shape == (1, 10)


def test_vgg11_takes_other_channels_and_sizes():
    model = build(SigmoidVGG11, image_shape=(1, 8, 12), num_classes=7, seed=0)
    assert model(torch.rand(2, 1, 8, 12)).shape == (2, 7)
