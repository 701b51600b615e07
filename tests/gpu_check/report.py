"""What the parts of a check have found: lines of JSON in a file, which are there as soon as they are known."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Finding:
    """
    Attributes:
        what: was looked at.
        found: in words and numbers.
        held: whether it is as it should be; None where nothing is expected, or nothing could be looked at.
        ended: False where the time was over before it was known.
    """

    what: str
    found: str
    held: bool | None = None
    ended: bool = True

    def write(self, file: Path) -> None:
        with file.open("a") as lines:
            lines.write(json.dumps(asdict(self)) + "\n")


def read(file: Path) -> list[Finding]:
    """Whole lines alone: the process may have been ended in the middle of one."""
    lines = file.read_text().split("\n")[:-1] if file.exists() else []
    return [Finding(**json.loads(line)) for line in lines]
