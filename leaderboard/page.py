"""Results -> one HTML file that needs neither network nor server: everything is inside."""

import base64
import hashlib
import io
import json
from pathlib import Path
from typing import Any

from leaderboard.run_folder import write_atomically

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

    Only the first images of every entry get a picture. A picture that cannot be read is reported in a warning.
    """
    limit = max(1, min(PER_ENTRY, IN_ALL // max(1, len(results["entries"]))))
    pictures: dict[str, str] = {}
    warnings = list(results["warnings"])

    def key(path: str | None) -> str | None:
        if path is None:
            return None
        try:
            uri = _thumbnail(Path(path))
        except (OSError, ValueError, SyntaxError):  # Pillow raises them for a torn PNG
            warnings.append(
                f"{Path(path).parent.parent.name}/{Path(path).parent.name}/{Path(path).name} is not a picture."
            )
            return None
        name = hashlib.sha256(uri.encode()).hexdigest()[:12]
        pictures[name] = uri  # one key for equal pictures: the truth is the same in every run
        return name

    entries = []
    for entry in results["entries"]:
        rows = [
            {**row, **{kind: key(row[kind]) if place < limit else None for kind in ("reconstruction", "truth")}}
            for place, row in enumerate(entry["rows"])
        ]
        entries.append({**entry, "rows": rows})
    return {**results, "entries": entries, "warnings": warnings, "pictures": pictures}


def _thumbnail(path: Path) -> str:
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
    file = io.BytesIO()
    small.save(file, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _part(name: str) -> str:
    return (PARTS / name).read_text(encoding="utf-8").rstrip("\n")
