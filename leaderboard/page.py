"""Results -> one page that opens from disk: no network, no server, everything inside."""

import base64
import hashlib
import io
import json
from pathlib import Path
from typing import Any

from leaderboard.run_folder import write_atomically

PARTS = Path(__file__).parent / "page"
SIDE = 64  # pixels: larger pictures are shown smaller
PER_ENTRY, IN_ALL = 24, 2000  # pictures of reconstructions: bound the page at about 20 MB


def write_page(results: dict[str, Any], out: Path) -> Path:
    """`leaderboard.html` in `out`: the same results give the same bytes."""
    path = out / "leaderboard.html"
    write_atomically(path, page(results))
    return path


def page(results: dict[str, Any]) -> str:
    """The page, with the pictures that `results` names, as far as they can be read."""
    # Within JSON a "<" can only stand in a string: escaped, no row can end the script that holds it.
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
    """`results` with keys in place of the pictures' paths, and `pictures`: their data URIs by key.

    The first images of every entry have theirs; one that cannot be read is reported in a warning.
    """
    limit = max(1, min(PER_ENTRY, IN_ALL // max(1, len(results["entries"]))))
    pictures: dict[str, str] = {}
    warnings = list(results["warnings"])

    def key(path: str | None) -> str | None:
        if path is None:
            return None
        try:
            uri = _thumbnail(Path(path))
        except (OSError, ValueError, SyntaxError):  # what Pillow raises at a torn PNG
            warnings.append(
                f"{Path(path).parent.parent.name}/{Path(path).parent.name}/{Path(path).name} is no picture."
            )
            return None
        name = hashlib.sha256(uri.encode()).hexdigest()[:12]
        pictures[name] = uri  # the truth of an image is the same in every run
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
    from PIL import Image  # here, for a board without pictures needs none

    with Image.open(path) as image:
        small = image.convert("RGB")
        small.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    small.save(file, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _part(name: str) -> str:
    return (PARTS / name).read_text(encoding="utf-8").rstrip("\n")
