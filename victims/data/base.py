"""What every image data set provides."""

import contextlib
import hashlib
import warnings
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from victims.contract import Broken, line_of
from victims.errors import InputError, Notice
from victims.preprocessing import Preprocessing

ITEMS = "an item of a data set is (image (C, H, W) in [0, 1], label)"
SPLIT = "a data set has classes, mean, std, ids and labels"


class ImageData(Dataset[tuple[Tensor, int]], ABC):
    """Labeled images of one split: item i is (image (C, H, W) in [0, 1], label).

    A subclass is built as `Data(split=..., size=...)`, with `data_dir=...` and `resize=...` where its constructor
    takes them, and sets the attributes below. One argument before these is what follows its name on the command line
    (`name:argument`). Its images are whole multiples of 1/255.

    Attributes:
        name: of the data set on the command line; its lists of tasks use it.
        split: the one that was opened.
        classes: name of every class; a label is an index into it.
        mean, std: per channel, of the images in [0, 1]; public constants. Attacks search in images that are
            normalized by them, and clients whose model has no preprocessing of its own use them too.
        ids: a stable name for every image of the split, the same in every run and on every machine.
        labels: (N,) integer labels.
        faces: whether every image is one aligned face, as in FFHQ: people can be recognized.
    """

    splits: Sequence[str] = ("train", "tune", "test")
    name: str = ""
    split: str = ""
    classes: Sequence[str]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    ids: list[str]
    labels: Tensor
    faces: bool = False
    _unread: frozenset[int] = frozenset()  # those of which a Notice of `augmented` said so; it decides about no draw

    def __len__(self) -> int:
        return len(self.ids)

    @abstractmethod
    def __getitem__(self, index: int) -> tuple[Tensor, int]: ...

    @staticmethod
    def key(image_id: str) -> str:
        """The part of an id that hashes and lists of tasks use: it is known without the files."""
        return image_id

    def readable(self, indices: Iterable[int]) -> list[int]:
        """Those of `indices` whose image can be read; one Notice names the others."""
        return [index for index, _ in self.each(indices)]

    def each(self, indices: Iterable[int]) -> Iterator[tuple[int, Tensor]]:
        """Those of `indices` whose image can be read, with their images; one Notice names the others at the end."""
        errors = {}
        for index in indices:
            try:
                image, _ = self[index]
            except InputError as error:
                errors[index] = error
            else:
                yield index, image
        if errors:
            first, *more = errors
            also = f" The same is true of {some(self.ids[index] for index in more)}." if more else ""
            warnings.warn(f"left out: {errors[first]}{also}", Notice, stacklevel=2)

    def sample(self, count: int) -> list[int]:
        """Those that can be read of evenly spaced images, `count` to almost twice as many, or all if they are fewer."""
        return self.readable(range(0, len(self), max(1, len(self) // count)))

    def digest(self) -> str:
        """The beginning of the SHA-256 of its classes, of all ids and labels, and of the images of `sample(1024)`."""
        images = [image_digest(*self[index]) for index in self.sample(1024)]
        return digest(repr((list(self.classes), self.ids, self.labels.tolist(), images)))[:16]

    def split_digest(self) -> str:
        """A digest of all images of the split, which changes where one is added, removed or replaced; quick to compute.

        Here it is `digest`; a subclass that knows its images better need not decode them.
        """
        return self.digest()

    def stamp(self) -> str:
        """Changes where the file of any image is written again, and from machine to machine; quick to compute.

        Here it is empty; a subclass that reads its images from files says when they were written.
        """
        return ""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the first image that can be read.

        Raises:
            InputError: none can.
        """
        for index in range(len(self)):
            with contextlib.suppress(InputError):
                channels, height, width = self[index][0].shape
                return channels, height, width
        raise InputError(f"{self.name or type(self).__name__} has no {self.split} image that can be read.")

    @property
    def preprocessing(self) -> Preprocessing:
        return Preprocessing(tuple(self.mean), tuple(self.std), f"those of the data set {self.name}")

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The images (B, C, H, W) in [0, 1] and labels (B,) of `indices`.

        Raises:
            Broken: an item is no such image with a label.
        """
        items = [self[i] for i in indices]
        for item in items:
            check_item(self, item, items[0])
        images, labels = zip(*items, strict=True)
        return torch.stack(images), torch.tensor(labels)

    def augmented(self, count: int, generator: torch.Generator, without: Collection[int] = ()) -> tuple[Tensor, Tensor]:
        """For training: images (count, C, H, W) in [0, 1] drawn at random, half of them mirrored, and their labels.

        Others are drawn in place of those that cannot be read, of each of which one Notice says so.

        Args:
            without: images that are held out.

        Raises:
            InputError: no image is left.
        """
        left_out, found = set(without), None
        drawn = torch.randint(len(self), (count,), generator=generator)
        while found is None:
            while left_out and bool((held := torch.tensor([int(i) in left_out for i in drawn])).any()):
                drawn = torch.where(held, torch.randint(len(self), (count,), generator=generator), drawn)
            try:
                found = self.batch(drawn.tolist())
            except InputError:
                these = set(drawn.tolist())
                new = these - self._unread
                self._unread |= new.difference(self.readable(sorted(new)))
                unread = these & self._unread
                if not unread or len(left_out | unread) == len(self):  # another reason, or none is left to draw
                    raise
                left_out |= unread
        images, labels = found
        mirror = torch.rand(count, generator=generator) < 0.5
        return torch.where(mirror[:, None, None, None], images.flip(-1), images), labels


def check_item(data: ImageData, item: Any, first: Any) -> None:
    """
    Args:
        first: another item of the same batch.

    Raises:
        Broken: it is not (image (C, H, W) in [0, 1], label), or of another shape than the first.
    """
    place = line_of(type(data).__getitem__, type(data))
    if not isinstance(item, tuple) or len(item) != 2 or not isinstance(item[0], Tensor):
        raise Broken(ITEMS, f"{type(data).__name__}[i] is a {type(item).__name__}; give (image, label)", place)
    image, label = item
    if image.ndim != 3 or not image.is_floating_point() or image.shape != first[0].shape:
        wrong = f"an image is {image.dtype} {tuple(image.shape)}, the first is {tuple(first[0].shape)}"
        raise Broken(ITEMS, f"{wrong}; give floats (C, H, W), the same for all", place)
    low, high = (float(bound) for bound in image.aminmax())
    if not (low >= 0 and high <= 1):
        raise Broken(ITEMS, f"an image goes from {low:.3g} to {high:.3g}; give it in [0, 1], not normalized", place)
    if not is_class(label, len(data.classes)):
        raise Broken(ITEMS, f"a label is {label}; give a number of the {len(data.classes)} classes, from 0", place)


def is_class(label: Any, classes: int) -> bool:
    """Whether it is a whole number from 0 and below `classes`, of whatever type."""
    try:
        return not isinstance(label, bool) and int(label) == label and bool(0 <= label < classes)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # no number, or several
        return False


def check_split(data: ImageData, size: int) -> None:
    """Of a data set of the user's own, by its attributes and its first image that can be read.

    Raises:
        Broken: it lacks what every data set has, or its images are not of this size.
    """
    name, place = type(data).__name__, line_of(type(data).__init__, type(data))
    for attribute in ("classes", "mean", "std", "ids", "labels"):
        if not hasattr(data, attribute):
            raise Broken(SPLIT, f"{name} has no {attribute}; set self.{attribute}", place)
    labels = data.labels
    if not isinstance(labels, Tensor) or labels.shape != (len(data.ids),) or labels.is_floating_point():
        found = f"{labels.dtype} {tuple(labels.shape)}" if isinstance(labels, Tensor) else type(labels).__name__
        raise Broken(SPLIT, f"labels are {found}; give a tensor of {len(data.ids)} integers, one for each id", place)
    for index in range(len(data)):
        try:
            item = data[index]
        except InputError:  # it cannot be read
            continue
        check_item(data, item, item)
        channels, *sides = item[0].shape
        if len(data.mean) != channels or len(data.std) != channels:
            raise Broken(SPLIT, f"mean and std have {len(data.mean)} numbers for {channels} channels", place)
        if sides != [size, size]:
            wrong = f"an image is {tuple(item[0].shape)}, and {name} was opened with size={size}"
            raise Broken(ITEMS, f"{wrong}; give (C, {size}, {size})", line_of(type(data).__getitem__, type(data)))
        return


def some(items: Iterable[str]) -> str:
    """`a, b, c and 9 more`."""
    named = list(items)
    return ", ".join(named[:3]) + (f" and {len(named) - 3} more" if len(named) > 3 else "")


def digest(text: str) -> str:
    """SHA-256 in hexadecimal digits. It orders and draws images independently of which others are present."""
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


def image_digest(image: Tensor, label: int) -> str:
    """The beginning of the SHA-256 of an image (C, H, W) in [0, 1], as bytes, with its label."""
    pixels = (image * 255).round().byte().contiguous()
    return digest(f"{label} {tuple(pixels.shape)} {hashlib.sha256(pixels.numpy().data).hexdigest()}")[:16]


def split_of(key: str, splits: Sequence[str]) -> str:
    """The split that an image of a folder belongs to, by the hash of its key alone.

    Args:
        splits: those that the folder is split into. `tune` is an eighth of it. If there are all three, `test` is a
            quarter; else the other split is the rest.
    """
    if len(splits) == 1:
        return splits[0]
    eighth = int(digest(key)[-1], 16) % 8
    if eighth == 0:
        return "tune"
    return "test" if "train" not in splits or ("test" in splits and eighth <= 2) else "train"
