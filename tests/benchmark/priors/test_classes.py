import warnings

import pytest

from benchmark.priors.classes import tell_other_classes
from priors.dcgan import DCGAN
from victims.modules import build


@pytest.mark.parametrize(
    ("data", "trained_on", "told"),
    [
        ("photos", "cifar10 train, 32 px", True),
        ("cifar10", "ImageNet, 128 px", True),
        ("cifar10", "cifar10 train, 32 px", False),
        ("pacs_imagenet", "ImageNet (128 px BigGAN-deep, truncation 1)", False),
        ("folder:mine", "cifar10 train, 32 px", False),  # the names are known only from its files
        ("photos", "my_weights", False),
        ("photos", "", False),
    ],
)
def test_a_prior_of_other_classes_is_told(data, trained_on, told):
    prior = build(DCGAN, seed=0, classes=10)
    prior.trained_on = trained_on
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        tell_other_classes(prior, data)
    assert [str(each.message).count("class 0 is") for each in found] == [1] * told
