"""From the file of a picture to its RGB bytes: decoded as a viewer shows it, or refused with the choice to make."""

from pathlib import Path
from typing import NoReturn

import numpy as np
from PIL import Image
from PIL.ExifTags import Base

from victims.errors import InputError

DEEP = 65535  # white in 16 bits
LEAST = 4096  # 16-bit pictures that stay below hold 12 bits or fewer: nothing says which of their values is white
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes a picture upright, by its EXIF orientation."""


def decode(path: Path) -> Image.Image:
    """The picture, upright and in RGB; what is transparent is white.

    Raises:
        InputError: it cannot be read, has several frames, or has numbers that do not say what is white.
    """
    path = path.resolve() if path.is_symlink() else path  # messages name the file to replace
    try:
        with Image.open(path) as image:
            frames = getattr(image, "n_frames", 1)
            if frames > 1 and image.format != "MPO":  # a photograph of a phone, with previews or depth behind it
                raise InputError(f"{path} has {frames} frames; save the one to use as a picture of its own.")
            image.load()
            return rgb(upright(image), path, image.format)
    except InputError:
        raise
    except Exception:  # Pillow's decoders raise many kinds of errors on a broken file, not only OSError
        raise InputError(f"{path} is no image that can be read; replace it.") from None


def upright(image: Image.Image) -> Image.Image:
    """The loaded picture, turned as its EXIF says.

    Pillow's `exif_transpose` also writes the rest of EXIF anew, and fails where an entry of it is malformed.
    """
    turn = TURNS.get(image.getexif().get(Base.Orientation, 1))
    return image if turn is None else image.transpose(turn)


def rgb(image: Image.Image, path: Path, format: str | None) -> Image.Image:
    """A decoded picture of any mode in RGB.

    Raises:
        InputError: as `decode` does.
    """
    if image.mode.startswith("I;16") or (image.mode == "I" and format in ("PNG", "PPM")):
        values = np.asarray(image).astype(np.float64)
        if 0 < values.max() < LEAST:
            refuse(path, f"16-bit numbers up to {values.max():.0f} of {DEEP}")
        return gray(values / DEEP)
    if image.mode == "I":
        refuse(path, "whole numbers of 32 bits")
    if image.mode == "F":
        values = np.asarray(image).astype(np.float64)
        if not (values.min() >= 0 and values.max() <= 1):  # also where some are NaN
            refuse(path, f"numbers from {values.min():g} to {values.max():g}")
        return gray(values)
    if {"A", "a"} & set(image.getbands()) or "transparency" in image.info:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image.convert("RGB")


def gray(values: np.ndarray) -> Image.Image:
    """A picture of numbers in [0, 1], (H, W)."""
    return Image.fromarray((values * 255).round().astype(np.uint8)).convert("RGB")


def refuse(path: Path, what: str) -> NoReturn:
    raise InputError(f"{path} has {what}, and nothing says which is white; save it in 8 bits, scaled as you see fit.")
