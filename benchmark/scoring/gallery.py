"""The images of the attacked split, among which IIP looks: read once for all processes, never held whole in memory."""

import hashlib
import io
import json
import os
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from benchmark.launch.lock import Busy, alone
from leaderboard.files import of_this_process, write_atomically
from victims.data.base import ImageData, digest, image_digest, some
from victims.errors import InputError, Notice

FOLDER = ".galleries"  # below the folder of results; it may be removed at any time
SMALL = 512  # images, which every process reads by itself and keeps
PIXELS, CONTENT = "pixels", "content.json"
LOOK = 0.1  # seconds between two looks


@dataclass(frozen=True)
class Stored:
    """Images (N, C, H, W) of bytes, one after another in an open file: one that is removed stays readable."""

    file: IO[bytes]
    shape: Sequence[int]  # of one image

    def split(self, count: int) -> Iterator[Tensor]:
        """Blocks of `count` images, as `Tensor.split` has them."""
        self.file.seek(0)
        while block := self.file.read(count * prod(self.shape)):
            yield torch.frombuffer(bytearray(block), dtype=torch.uint8).view(-1, *self.shape)

    def at(self, place: int) -> bytes:
        """One of the images."""
        self.file.seek(place * prod(self.shape))
        return self.file.read(prod(self.shape))


@dataclass(frozen=True)
class Split:
    """The readable images of a split: nothing is lost in bytes, as images are whole multiples of 1/255.

    Attributes:
        folder: that of the file; None where there is none.
    """

    ids: Sequence[str]
    images: Stored
    folder: Path | None = None

    def places(self, ids: Sequence[str], images: Tensor) -> Tensor:
        """Where images (B, C, H, W) are among them: (B,) long.

        Raises:
            InputError: one is not, for its file was changed meanwhile. The gallery is removed, and made again by the
                next start.
        """
        for name, image in zip(ids, images, strict=True):
            if name not in self.ids or self.images.at(self.ids.index(name)) != pixels_of(image):
                if self.folder:
                    (self.folder / CONTENT).unlink(missing_ok=True)
                raise InputError(
                    f"the image {name} is not the one among which IIP looks: it was changed while the split was read "
                    "or attacked; start the same command again."
                )
        return torch.tensor([self.ids.index(name) for name in ids])


def read_split(data: ImageData, out: Path, data_digest: str) -> Split:
    """The images of a split, from a file in `out` that the first process writes; of a small one without a file.

    Notices name the images that cannot be read, and pictures that are there under several names.

    Args:
        data_digest: of the classes and the split, as a row has it.
    """
    folder = None
    if len(data) <= SMALL:
        file: IO[bytes] = io.BytesIO()
        content = write(data, file)
    else:
        # With some images: their size and channels, and what own code does to them, are not in the digest.
        folder = out / FOLDER / digest(repr((data_digest, data.stamp(), list(samples(data)))))[:16]
        content, file = shared(data, folder)
    if several := content["copies"]:
        count = "a picture is" if len(several) == 1 else f"{len(several)} pictures are"
        warnings.warn(
            f"in {data.name} {count} there under several names, such as {some(several[0])}: IIP takes one for "
            "the other, and intervals take them for different images.",
            Notice,
            stacklevel=2,
        )
    return Split(content["ids"], Stored(file, content["shape"]), folder)


def samples(data: ImageData) -> Iterator[str]:
    """Digests of about eight evenly spaced images, without those that cannot be read."""
    for index in range(0, len(data), max(1, len(data) // 8)):
        with suppress(InputError):
            yield image_digest(*data[index])


def shared(data: ImageData, folder: Path) -> tuple[dict[str, Any], IO[bytes]]:
    """Content and pixels in a folder; one process writes them, and the others wait."""
    while (found := opened(folder)) is None:
        try:
            with alone(folder):
                if opened(folder) is None:
                    # Its own, for on a disk without locks several processes may write at the same time.
                    partial = folder / f"{PIXELS}.partial-{of_this_process()}"
                    try:
                        with partial.open("wb") as file:
                            content = write(data, file)
                        partial.replace(folder / PIXELS)
                    finally:
                        partial.unlink(missing_ok=True)
                    write_atomically(folder / CONTENT, json.dumps(content))  # last: it says that all is there
                    return content, (folder / PIXELS).open("rb")
        except Busy:
            time.sleep(LOOK)
    there = set(found[0]["ids"])
    data.readable(index for index, name in enumerate(data.ids) if name not in there)  # a Notice says which are not
    return found


def opened(folder: Path) -> tuple[dict[str, Any], IO[bytes]] | None:
    """None where they are not there, or not whole."""
    with suppress(FileNotFoundError, ValueError):
        content, file = json.loads((folder / CONTENT).read_text()), (folder / PIXELS).open("rb")
        if os.fstat(file.fileno()).st_size == len(content["ids"]) * prod(content["shape"]):
            return content, file
        file.close()
    return None


def write(data: ImageData, file: IO[bytes]) -> dict[str, Any]:
    """Write all readable images into a file; returns their ids, the shape of one, and the ids of equal ones."""
    ids: list[str] = []
    named = defaultdict(list)
    for index, image in data.each(range(len(data))):
        pixels = pixels_of(image)
        file.write(pixels)
        ids.append(data.ids[index])
        named[hashlib.sha256(pixels).digest()].append(data.ids[index])
    copies = [names for names in named.values() if len(names) > 1]
    return {"ids": ids, "shape": data.image_shape, "copies": copies}


def pixels_of(image: Tensor) -> bytes:
    return (image * 255).round().byte().numpy(force=True).tobytes()
