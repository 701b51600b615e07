"""The contracts of every data set."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from benchmark.check.fails import require
from benchmark.registry import find, open_data
from victims.data.base import ImageData, check_split, image_digest

LOOKED_AT = 16  # images of a split
COMPARED = 256


@dataclass(frozen=True)
class Case:
    """A data set as DATA= takes it.

    Attributes:
        data_dir: as a run takes it.
        size: of its images.
    """

    text: str
    data_dir: Path
    size: int

    @property
    def kind(self) -> type[ImageData]:
        return find("data", self.text.partition(":")[0])

    @cache  # noqa: B019 (a few cases, each once)
    def split(self, name: str) -> ImageData:
        return open_data(self.text, name, self.size, self.data_dir)


def each_split_has_images_with_labels(case: Case) -> None:
    for name in case.kind.splits:
        data = case.split(name)
        check_split(data, case.size)
        require(len(data) > 0, f"the split {name} is empty", case.kind)
        data.batch(data.sample(LOOKED_AT))


def images_are_whole_multiples_of_1_by_255(case: Case) -> None:
    """So that nothing is lost where they are kept as bytes."""
    data = case.split(case.kind.splits[0])
    for index, image in data.each(data.sample(LOOKED_AT)):
        far = float((image * 255 - (image * 255).round()).abs().max())
        require(far < 1e-3, f"image {data.ids[index]} is {far:.2g}/255 off; round them", case.kind.__getitem__)


def labels_are_those_of_the_items(case: Case) -> None:
    data = case.split(case.kind.splits[0])
    for index in data.sample(LOOKED_AT):
        listed, given = int(data.labels[index]), int(data[index][1])
        require(listed == given, f"labels[{index}] is {listed} and the item's is {given}", case.kind.__getitem__)


def an_image_is_the_same_whenever_it_is_read(case: Case) -> None:
    """Also after the split was opened anew."""
    name = case.kind.splits[0]
    data, again = case.split(name), open_data(case.text, name, case.size, case.data_dir)
    require(data.ids == again.ids, "ids differ when the split is opened again", case.kind.__init__, case.kind)
    for index, image in data.each(data.sample(LOOKED_AT)):
        same = torch.equal(image, data[index][0]) and torch.equal(image, again[index][0])
        require(same, f"image {data.ids[index]} is another when it is read again", case.kind.__getitem__)


def ids_are_names_that_no_two_images_share(case: Case) -> None:
    """In one split or in two: else private images would be among those for training and tuning."""
    kind, seen = case.kind, set[str]()
    for name in kind.splits:
        ids = case.split(name).ids
        wrong = next((each for each in ids if not isinstance(each, str)), "")
        require(wrong == "", f"the id {wrong!r} is no text", kind.__init__, kind)
        count = len(set(ids))
        require(
            count == len(ids), f"{len(ids)} images of {name} have {count} ids; give each its own", kind.__init__, kind
        )
        again = sorted(seen.intersection(ids))[:1]
        require(not again, f"the ids {again} of {name} are in another split too", kind.__init__, kind)
        seen.update(ids)


def no_image_is_in_two_splits(case: Case) -> None:
    """By their pixels, of about 256 images of each split; and a split has more than one picture."""
    kind, seen = case.kind, dict[str, str]()
    for name in kind.splits:
        data = case.split(name)
        digests = {
            image_digest(image, 0): f"{data.ids[index]} of {name}" for index, image in data.each(data.sample(COMPARED))
        }
        require(len(digests) > 1 or len(data) == 1, f"all images of {name} are the same", kind.__getitem__, kind)
        for each in digests.keys() & seen.keys():
            require(False, f"the images {seen[each]} and {digests[each]} have the same pixels", kind.__getitem__, kind)
        seen |= digests


CONTRACTS: list[Callable[[Case], None]] = [
    each_split_has_images_with_labels,
    images_are_whole_multiples_of_1_by_255,
    labels_are_those_of_the_items,
    an_image_is_the_same_whenever_it_is_read,
    ids_are_names_that_no_two_images_share,
    no_image_is_in_two_splits,
]
