"""`python -m leaderboard OUT`: the board of all runs in the folder OUT."""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from leaderboard.board import EntryWithRows, comparable, entries_with_rows, identity, metrics
from leaderboard.differences import difference
from leaderboard.files import write_atomically
from leaderboard.gather import gather
from leaderboard.matrix import matrices, write
from leaderboard.page import write_page
from leaderboard.record import beside
from leaderboard.reported import reported
from leaderboard.results import results
from leaderboard.table import Table, as_csv, as_markdown, as_text, difference_table
from leaderboard.wandb_board import download, require, upload
from victims.errors import InputError


class Parser(argparse.ArgumentParser):
    """What cannot be parsed is one line, as in all other commands."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see --help.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print and write the board; returns the exit code."""
    parser = Parser(prog="leaderboard", description="The board of all runs in a folder.", allow_abbrev=False)
    parser.add_argument("out", type=Path, help="folder of runs, or the folder of one run")
    parser.add_argument(
        "--against", metavar="ATTACK", help="also show the paired differences between every attack and this one"
    )
    parser.add_argument("--metric", default="psnr", help="metric in the table of attacks by defenses")
    parser.add_argument(
        "--from-wandb", metavar="ENTITY/PROJECT", help="first download the runs of this W&B project into OUT"
    )
    parser.add_argument("--to-wandb", metavar="ENTITY/PROJECT", help="log the board to this W&B project")
    parser.add_argument(
        "--group",
        help="W&B group: of the runs to download, a track or a setting in words (default: all); of the logged board "
        "(default: the name of OUT)",
    )
    try:
        options = parser.parse_args(arguments)
        if options.group is not None and options.from_wandb is None and options.to_wandb is None:
            raise InputError("--group is of W&B; give --from-wandb or --to-wandb too, or leave it out.")
        if options.to_wandb is not None:
            require(options.to_wandb)  # before the board is made
        if options.from_wandb is not None:
            download(options.from_wandb, options.group, options.out)
        report(options.out, options.against, options.metric)
        if options.to_wandb is not None:
            upload(options.to_wandb, options.group, options.out)
    except InputError as error:
        print(f"leaderboard: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("leaderboard: stopped; the same command begins anew.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # nobody reads on, as behind `| head`; the files are written
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        where, why = error.filename2 or error.filename or "the board", error.strerror or error
        print(f"leaderboard: cannot write {where} ({why}); move it away, or give another OUT.", file=sys.stderr)
        return 2
    return 0


def report(out: Path, against: str | None, metric: str) -> None:
    """Print the board, and write it into `out` as a page, Markdown and CSV, with a matrix where defenses differ.

    Beside the runs in `out` stands what the record has of their settings: not of attacks that were run here.
    """
    rows, folders, warnings = gather(out)
    own = {tuple(identity(row).values()) for row in rows if row["control"] != "mean_image"}
    for row, place in list(beside(rows)):
        if tuple(identity(row).values()) not in own:
            rows.append(row)
            folders.append(place)
    for warning in warnings:
        print(f"leaderboard: {warning}", file=sys.stderr)
    with_rows = entries_with_rows(rows)
    board = [entry for entry, _ in with_rows]
    if metric not in metrics(board):
        raise InputError(f"--metric {metric}: no row has it. There are: {', '.join(metrics(board))}.")
    tables = difference_tables(with_rows, against) if against is not None else []
    found = matrices(rows, metric)
    crossed = [table for matrix in found for table in matrix.tables()]
    markdown, sheet = out / "leaderboard.md", out / "leaderboard.csv"
    write_atomically(markdown, "\n".join([as_markdown(board), *(table.markdown() for table in tables)]))
    write_atomically(sheet, as_csv(board))
    shown = results(rows, folders, reported(), against=against, metric=metric)
    for warning in shown["warnings"]:  # of curves
        print(f"leaderboard: {warning}", file=sys.stderr)
    shown["warnings"] = [warning.replace(f"{out}/", "") for warning in (*warnings, *shown["warnings"])]
    files = [*write(found, out), markdown, sheet, write_page(shown, out)]
    # Last, for a reader such as `head` may leave.
    print(as_text(board), *(table.text() for table in (*crossed, *tables)), *files, sep="\n", flush=True)


def difference_tables(board: Sequence[EntryWithRows], against: str) -> list[Table]:
    """One table for every setting in which the attack `against` was run."""
    attacks = [pair for pair in board if pair[0].control == "none"]
    bases = [pair for pair in attacks if pair[0].attack == against]
    if not bases:
        there = ", ".join(sorted({entry.attack for entry, _ in attacks})) or "none"
        raise InputError(f"--against {against}: no such attack in this folder. There are: {there}.")
    tables = []
    for base in bases:
        others = [pair for pair in attacks if pair is not base and comparable(pair[0], base[0])]
        if others:
            scores = [
                (pair[0], {name: difference(pair, base, name) for name in metrics([base[0], pair[0]])})
                for pair in others
            ]
            tables.append(difference_table(base[0], scores, [entry for entry, _ in board]))
    if not tables:
        print(f"leaderboard: no other attack was run in a setting of {against}.", file=sys.stderr)
    return tables


if __name__ == "__main__":
    sys.exit(main())
