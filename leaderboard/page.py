"""Results -> one HTML file that needs neither network nor server: everything is inside."""

import base64
import hashlib
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leaderboard.files import write_atomically
from leaderboard.strip import SHOWN, strip

if TYPE_CHECKING:
    from PIL import Image

PARTS = Path(__file__).parent / "page"
SIDE = 64  # pixels: larger pictures are scaled down
LARGEST = 2**24  # pixels: the suite writes none that are larger
PER_ENTRY, IN_ALL = 24, 2000  # pictures of reconstructions: bound the page at about 20 MB


def write_page(results: dict[str, Any], out: Path) -> Path:
    """Write `leaderboard.html` into `out`; the same results give the same bytes."""
    path = out / "leaderboard.html"
    write_atomically(path, page(results))
    return path


def page(results: dict[str, Any]) -> str:
    """The page, with all pictures of `results` that can be read."""
    # In JSON a "<" occurs only in strings. Escaped, it cannot end the script element that holds the JSON.
    data = json.dumps(with_pictures(results), allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    text = (PARTS / "template.html").read_text(encoding="utf-8")
    for mark, part in (
        ("/* page.css */", _part("page.css")),
        ("/* page.js */", _part("page.js")),
        ("/* data */", data),
    ):
        text = text.replace(mark, part)
    return text


def with_pictures(results: dict[str, Any]) -> dict[str, Any]:
    """`results` with keys in place of the paths of pictures, and `pictures`: their data URIs by key.

    Only the first images of every entry get a picture, and of these the first ones stand on its `strip`. A picture that
    cannot be read is reported in a warning.
    """
    limit = max(1, min(PER_ENTRY, IN_ALL // max(1, len(results["entries"]))))
    pictures: dict[str, str] = {}
    warnings = list(results["warnings"])

    def read(path: str | None) -> "Image.Image | None":
        try:
            return _small(Path(path)) if path else None
        except (OSError, ValueError, SyntaxError):  # Pillow raises them for a torn PNG
            where = "/".join(Path(path or "").parts[-3:])
            warnings.append(f"{where} is not a picture.")
            return None

    def key(image: "Image.Image | None") -> str | None:
        if image is None:
            return None
        uri = _uri("png", _png(image))
        name = hashlib.sha256(uri.encode()).hexdigest()[:12]
        pictures[name] = uri  # one key for equal pictures: the truth is the same in every run
        return name

    entries = []
    for entry in results["entries"]:
        read_ones = [{kind: read(row[kind]) for kind in ("truth", "reconstruction")} for row in entry["rows"][:limit]]
        pairs = [(each["truth"], each["reconstruction"]) for each in read_ones[:SHOWN] if each["reconstruction"]]
        kept = Path(entry["strip"]).read_bytes() if entry["strip"] else b""
        sheet = strip(pairs) if pairs else kept
        keys = [{kind: key(image) for kind, image in each.items()} for each in read_ones]
        keys += [{"truth": None, "reconstruction": None}] * (len(entry["rows"]) - limit)
        rows = [{**row, **each} for row, each in zip(entry["rows"], keys, strict=True)]
        entries.append({**entry, "rows": rows, "strip": _uri("webp", sheet) if sheet else None})
    return {**results, "entries": entries, "warnings": warnings, "pictures": pictures}


def _small(path: Path) -> "Image.Image":
    """At most `SIDE` pixels wide and high, in color.

    Raises:
        OSError, ValueError, SyntaxError: it is not a picture, or too large a one.
    """
    from PIL import Image  # here, because a board without pictures does not need it

    try:
        opened = Image.open(path, formats=["PNG"])
    except Image.DecompressionBombError as error:
        raise ValueError(str(error)) from None
    with opened as image:
        if image.width * image.height > LARGEST:
            raise ValueError("too large a picture")
        small = image.convert("RGB")
        small.thumbnail((SIDE, SIDE))
    return small


def _png(image: "Image.Image") -> bytes:
    file = io.BytesIO()
    image.save(file, format="PNG", optimize=True)
    return file.getvalue()


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _part(name: str) -> str:
    return (PARTS / name).read_text(encoding="utf-8").rstrip("\n")
