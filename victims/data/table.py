"""Tables and lists that users give, in the forms in which spreadsheets and other systems save them."""

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from victims.errors import InputError

SEPARATORS = ",;\t"
NONE = "\x1f"  # for a list of names, which hold any of these
HINT = "sep="  # the first line of Excel's own, before the heading


def read_table(path: Path, columns: Iterable[str]) -> list[dict[str, str]]:
    """The lines of a table with a heading, by the names of its columns in lower case; a line may lack the last ones.

    Values stand between commas, semicolons or tabs, with or without quotes and blanks around them.

    Args:
        columns: that it must have.

    Raises:
        InputError: it cannot be read, lacks a column, or has no line.
    """
    needed = ",".join(columns)
    for separator in SEPARATORS:
        try:
            lines = read_lines(path, separator)
        except (OSError, UnicodeError, csv.Error):
            what = "cannot be read as a table"
            raise InputError(f"{path} {what}; give a CSV in UTF-8 with the columns {needed}.") from None
        if lines and lines[0][0].startswith(HINT):
            del lines[0]
        if len(lines) > 1 and set(columns) <= set(heading := [name.lower() for name in lines[0]]):
            return [dict(zip(heading, line, strict=False)) for line in lines[1:]]
    raise InputError(f"{path} needs a first line {needed}, and a line for every picture.")


def read_names(path: Path) -> list[str]:
    """The lines of a file, each a name, with or without quotes.

    Raises:
        OSError, UnicodeError, csv.Error: it is no text.
    """
    return [line[0] for line in read_lines(path, NONE)]


def read_lines(path: Path, separator: str) -> list[list[str]]:
    """The cells of every line that has any, without blanks around them, whatever ends a line.

    Raises:
        OSError, UnicodeError, csv.Error: it is no text in UTF-8 or UTF-16.
    """
    raw = path.read_bytes()
    text = raw.decode("utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    found = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
    lines = ([cell.strip() for cell in line] for line in found)
    return [line for line in lines if any(line)]
