"""Pictures of an entry on one sheet: truth above reconstruction."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

SHOWN = 8  # images
QUALITY = 80  # of WebP: 8 images of 64 px take about 15 KB
EMPTY = "gray"


def strip(pairs: "Sequence[tuple[Image.Image | None, Image.Image | None]]") -> bytes:
    """The bytes of a WebP file of truths above reconstructions, squares of one size; the place of None is gray."""
    from PIL import Image  # here, because a board without pictures does not need it

    side = next(picture.width for pair in pairs for picture in pair if picture)
    sheet = Image.new("RGB", (side * len(pairs), 2 * side), EMPTY)
    for column, pair in enumerate(pairs):
        for line, picture in enumerate(pair):
            if picture:
                sheet.paste(picture, (column * side, line * side))
    file = io.BytesIO()
    sheet.save(file, "WEBP", quality=QUALITY)
    return file.getvalue()
