"""`python -m benchmark.tasks.manifests.make` writes the lists again, by the rule and the official lists."""

import textwrap
from collections.abc import Mapping, Sequence

from benchmark.tasks.manifests import manifest
from victims.data.base import digest, split_of
from victims.data.ffhq import TRAIN
from victims.data.photos import Photos

LENGTH = 1000
HEAD = """\
# The first {count} of the {total} images of {name}'s split `{split}` in the order of the tasks: the order of the
# hexadecimal SHA-256 of each word below. If one folder is split into `tune` and another split, `tune` has the images
# whose last digit is 0 or 8. Made by `python -m benchmark.tasks.manifests.make`.
"""
FREE_FIRST = """\
# The {count} images of the copies that are free to download come first, in that order too, so that who has such a copy
# and who has all images attack the same tasks.
"""
Keys = Mapping[tuple[str, ...], Sequence[str]]

CIFAR: Keys = {
    ("train", "tune"): [f"train-{place:05d}" for place in range(50_000)],
    ("test",): [f"test-{place:05d}" for place in range(10_000)],
}
OFFICIAL: Mapping[str, Keys] = {
    "photos": {(split,): Photos(split=split).ids for split in ("tune", "test")},
    "cifar10": CIFAR,
    "cifar100": CIFAR,
    "tiny_imagenet": {("tune", "test"): [f"val_{place}" for place in range(10_000)]},
    "imagenet": {("tune", "test"): [f"ILSVRC2012_val_{place:08d}" for place in range(1, 50_001)]},
    "ffhq": {
        ("train", "tune"): [f"{number:05d}" for number in range(TRAIN)],
        ("test",): [f"{number:05d}" for number in range(TRAIN, 70_000)],
    },
}
"""By data set, and by the splits that share the images: the keys of all images."""

TRAIN_COPIES = (range(4_000), *(range(start, start + 1_017) for start in (10_000, 20_000, 30_000, 40_000)))
FACES = (1, 2, 5, 6, 9, 15, 61, 84, 354, 424, 69_367, 69_887)
FREE: Mapping[str, set[str]] = {
    "cifar10": {f"test-{place:05d}" for place in range(800)}
    | {f"train-{place:05d}" for places in TRAIN_COPIES for place in places},
    "ffhq": {f"{number:05d}" for number in FACES},
}
"""The images that the record was made of: of CIFAR-10 those in the GitHub repositories karpathy/convnetjs and
zhi-fangZhang/idpl_gen, of FFHQ those in the repositories of DPS, DAPS, DiffPIR and dmps."""


def text(name: str, split: str) -> str:
    """A split's list: a comment on its origin, then the keys of its first images, free ones before others."""
    ((splits, keys),) = ((splits, keys) for splits, keys in OFFICIAL[name].items() if split in splits)
    own, free = [key for key in keys if split_of(key, splits) == split], FREE.get(name, set())
    ordered = sorted(own, key=lambda key: (key not in free, digest(key)))
    first = ordered[:LENGTH]
    head = HEAD.format(count=len(first), total=len(ordered), name=name, split=split)
    head += FREE_FIRST.format(count=len(free.intersection(first))) if free else ""
    return head + textwrap.fill(" ".join(first), width=118, break_on_hyphens=False) + "\n"


if __name__ == "__main__":
    for name in OFFICIAL:
        for split in ("tune", "test"):
            manifest(name, split).write_text(text(name, split))
