"""CIFAR-100 (Krizhevsky, 2009), as its authors' files or in folders.

The files: `<data_dir>/cifar-100-python/`. Folders: `<data_dir>/cifar100/{train,test}/<class>/<number>.png`. Both as in
`victims.data.cifar10`.
"""

from torchvision import datasets

from victims.data.cifar10 import CIFAR10


class CIFAR100(CIFAR10):
    """CIFAR-100: natural images of a hundred (fine) classes, split as CIFAR-10."""

    name = "cifar100"
    classes = (
        "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle", "bowl", "boy",
        "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle", "chair", "chimpanzee", "clock",
        "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur", "dolphin", "elephant", "flatfish",
        "forest", "fox", "girl", "hamster", "house", "kangaroo", "keyboard", "lamp", "lawn_mower", "leopard", "lion",
        "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain", "mouse", "mushroom", "oak_tree", "orange",
        "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree", "plain", "plate", "poppy", "porcupine",
        "possum", "rabbit", "raccoon", "ray", "road", "rocket", "rose", "sea", "seal", "shark", "shrew", "skunk",
        "skyscraper", "snail", "snake", "spider", "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank",
        "telephone", "television", "tiger", "tractor", "train", "trout", "tulip", "turtle", "wardrobe", "whale",
        "willow_tree", "wolf", "woman", "worm",
    )  # fmt: skip
    mean = (0.5071, 0.4867, 0.4412)  # of the official training images, as in GIAS's code
    std = (0.2673, 0.2564, 0.2762)
    published = datasets.CIFAR100
    example = "apple/00001.png"
