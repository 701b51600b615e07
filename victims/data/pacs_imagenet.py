"""PACS with labels of ImageNet: data outside the distribution of a generator of ImageNet, as GIFD uses it."""

from collections.abc import Mapping

from victims.data.imagenet import ImageNet
from victims.data.pacs import PACS

# GIFD assumes that both distributions "have the same label space" (its supplement, H), and its code gives such images
# to victims of a thousand classes, but neither says which class is which. So these labels are assumed: one kind of dog,
# elephant and guitar stands for all, and sorrel is the only horse of ImageNet. It has no giraffe, house or person.
# Other labels for them would measure wrong labels instead of the change of style, so they are left out.
WNIDS = {"dog": "n02099601", "elephant": "n02504458", "guitar": "n02676566", "horse": "n02389026"}


class PACSImageNet(PACS):
    """PACS with labels of ImageNet: dogs, elephants, guitars and horses.

    Their classes are golden retriever, African elephant, acoustic guitar and sorrel.
    """

    name = "pacs_imagenet"
    classes = ImageNet.classes
    folders: Mapping[str, int] = {name: ImageNet.classes.index(wnid) for name, wnid in WNIDS.items()}
