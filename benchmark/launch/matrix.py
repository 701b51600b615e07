"""`python -m benchmark run` with several attacks or defenses: every pair of them, a run each."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from benchmark.config import Config
from benchmark.launch.stop import PARENT, Stopped
from benchmark.launch.strategy import is_first
from benchmark.registry import find
from benchmark.scoring.networks import available_to
from leaderboard.board import entries
from leaderboard.matrix import matrices, write
from leaderboard.run_folder import RunFolder, latest
from leaderboard.table import as_text

Cell = tuple[list[str], Config]
"""A command line and what it means."""


def run_matrix(cells: Sequence[Cell]) -> int:
    """Run the cells one after another, and print the board of all that have a result.

    Each is a process of its own, for Lightning starts the command line again in every process of a run.

    Args:
        cells: command line and what it means. Without a defense there is nothing to adapt to, so of cells that then
            mean the same the first is run.

    Returns:
        the exit code: 0; 2 where a cell was refused; 1 where one failed otherwise.

    Raises:
        InputError: there is no such attack, defense or file of weights; nothing has been run then.
    """
    named = {}
    for arguments, config in distinct(cells):
        attacker = "" if config.make_defense() is None else ", adaptive" if config.adapt else ", non-adaptive"
        named[f"{config.attack}, {config.defense}{attacker}"] = (arguments, config)
    failed = run_cells({name: arguments for name, (arguments, _) in named.items()})
    if is_first():  # torchrun starts every process of a matrix
        report([config for name, (_, config) in named.items() if name not in failed])
    return exit_code(failed, len(named))


def distinct(cells: Sequence[Cell]) -> list[Cell]:
    """The cells that mean something else than those before them: without a defense there is nothing to adapt to.

    Raises:
        InputError: there is no such attack, defense or file of weights.
    """
    kept: dict[str, Cell] = {}
    for arguments, config in cells:
        find("attack", config.attack)
        identity = config.identity() | ({} if config.make_defense() else {"adapt": None})
        kept.setdefault(repr(identity), (arguments, config))
    return list(kept.values())


def run_cells(cells: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Run command lines of `python -m benchmark` by name, one after another, each in a process of its own.

    Returns:
        why there is no result, by the name of every cell that has none.

    Raises:
        Stopped: after Ctrl-C or SIGTERM, with the cell where it stopped; no cell is left running.
    """
    failed: dict[str, str] = {}
    os.environ[PARENT] = str(os.getpid())  # a cell ends with this process, also where this one is killed
    try:
        for place, (name, arguments) in enumerate(cells.items(), start=1):
            print(f"\ncell {place} of {len(cells)}: {name}", flush=True)
            code = subprocess.run([sys.executable, "-m", "benchmark", *arguments], check=False).returncode
            if code:
                failed[name] = "refused" if code == 2 else f"exit code {code}"
    except (KeyboardInterrupt, Stopped) as stop:
        number = stop.number if isinstance(stop, Stopped) else signal.SIGINT
        raise Stopped(number, f"at {name}; the same command goes on there") from None
    finally:
        os.environ.pop(PARENT, None)
    return failed


def exit_code(failed: Mapping[str, str], cells: int) -> int:
    """0; 2 where a cell was refused, 1 where one failed otherwise, after one line that names them."""
    if failed:
        list_of_them = "; ".join(f"{name} ({why})" for name, why in failed.items())
        print(f"benchmark: no result from {len(failed)} of {cells} cells: {list_of_them}.", file=sys.stderr)
    return 2 if "refused" in failed.values() else 1 if failed else 0


def folder_of(config: Config) -> RunFolder | None:
    """The folder of a run that was just started and has ended."""
    return latest(config.folder(available_to(config.lpips, config.data, config.weights_dir)))


def rows_of(config: Config) -> list[dict[str, Any]]:
    """The rows of its own tasks."""
    folder = folder_of(config)
    return config.own_rows(folder) if folder else []


def report(finished: Sequence[Config]) -> None:
    """Print the board of finished runs, and their matrix, which is also written into the folder of results."""
    rows = [row for config in finished for row in rows_of(config)]
    if not rows:
        return
    found = matrices(rows)
    print(as_text(entries(rows)), *(table.text() for matrix in found for table in matrix.tables()), sep="\n")
    for path in write(found, finished[0].out):
        print(f"matrix   {path}")
