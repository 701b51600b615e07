"""PACS with labels of ImageNet's: data outside the distribution of a generator of ImageNet, as GIFD uses it."""

from collections.abc import Mapping

from victims.data.imagenet import ImageNet
from victims.data.pacs import PACS

# GIFD takes it that both distributions "have the same label space" (its supplement, H) and its code gives such images
# to victims of a thousand classes, but neither says which class is which. So this is `assumed`: a kind of dog, elephant
# and guitar for all of them, and the class of ImageNet that is a horse. It has no giraffe, house or person: calling
# them something else would measure wrong labels, not the change of style, and they are left out.
WNIDS = {"dog": "n02099601", "elephant": "n02504458", "guitar": "n02676566", "horse": "n02389026"}


class PACSImageNet(PACS):
    """Dogs, elephants, guitars and horses, labeled golden retriever, African elephant, acoustic guitar and sorrel."""

    name = "pacs_imagenet"
    classes = ImageNet.classes
    folders: Mapping[str, int] = {name: ImageNet.classes.index(wnid) for name, wnid in WNIDS.items()}
