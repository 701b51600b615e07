"""`python -m benchmark record`: the scored run of a method on a track, kept with the project."""

import contextlib
import io
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from attacks.base import Attack
from benchmark.code_version import require_committed
from benchmark.config import Config
from benchmark.launch.matrix import exit_code, folder_of, rows_of, run_cells
from benchmark.names import known
from benchmark.registry import find
from benchmark.run import run
from benchmark.run_options import with_options
from benchmark.tracks.entry import (
    entry,
    first_observation,
    from_one_start,
    kinds,
    methods,
    of_each,
    say_left_out,
    setting_of,
    within_budget,
)
from benchmark.tracks.missing import require
from benchmark.tracks.record_labels import record_labels
from benchmark.tracks.track import DEFAULT, Track, read, text
from benchmark.tracks.tuned import is_tuned
from leaderboard import record as kept
from leaderboard.options import Options
from leaderboard.strip import SHOWN, strip
from victims.errors import InputError, without_options
from victims.observation import Observation

IDLE = "ig"
"""The attack that is named where none is run."""


@with_options(also=("data_dir", "weights_dir", "compile", "devices"))
def record(*, track: str = DEFAULT, attack: str, out: Path = Options.out, **options: Any) -> int:
    """Run methods on a track with the options that were tuned there, and keep their rows with the project.

    What has nothing to tune takes as many steps as the budget allows, and a closed form is run as it is. A run that was
    stopped goes on.

    Args:
        track: a name from `make list`; there are tracks of label methods too, where nothing is tuned.
        attack: the method, or several with commas between them; `all` is every method that the track takes and that was
            tuned on it or has no options to tune.
        out: folder of results, where the runs are.
        options: of a run, see `Options`.

    Returns:
        the exit code: 0; 2 where a method was refused; 1 where one failed otherwise.

    Raises:
        InputError: the code has changes; the track is none of the project's; images, weights or a GPU are missing; or a
            method that was named has not been tuned on it.
    """
    require_committed()
    if track in known("label track"):
        record_labels(track, attack, **options)
        return 0
    found = read(track)
    if not found.recordable:
        raise InputError(
            f"{track} is none of the project's tracks, which the record is of; put it into benchmark/tracks."
        )
    require(found, kinds(attack), options)
    kept.write_refused(found.path.stem, refused(found, attack, options))
    configs, left_out = of_each(attack, lambda method: scored(found, method, {**options, "out": out / "record"}))
    if configs:
        keep_control(found, {**options, "out": out / "record"})
    given = {"track": track, "out": out / "record", **options}
    failed = run_cells({name: arguments(config, given) for name, config in configs.items()})
    for name, config in configs.items():
        if name not in failed:
            try:
                print(f"record   {keep(found, config)}")
            except InputError as error:  # the runs of the others are kept
                print(f"benchmark: {error}", file=sys.stderr)
                failed[name] = "refused"
    say_left_out(left_out)
    return exit_code(failed, len(configs))


def refused(track: Track, named: str, options: Mapping[str, Any]) -> dict[str, str]:
    """Why methods of the project cannot be used on a track; empty for one that can.

    Args:
        named: attacks with commas between them, or `all`.
        options: of the run.
    """
    why = {method: "" for method in methods(named) if method in known("attack")}
    observation = first_observation(setting_of(track, options))
    for method in (method for method in why if not is_tuned(track, method)):
        try:
            from_one_start(track, method, options, observation)
        except InputError as error:
            why[method] = without_options(str(error))
    return why


def keep_control(track: Track, options: Mapping[str, Any]) -> None:
    """Write the rows of the mean training image into the record, unless it has them."""
    there = kept.read_control(track.path.stem)
    if not there or there.stale(track.version):
        config = entry(track, IDLE, {}, **{**options, "control": kept.CONTROL, "wandb": "off", "devices": 1})
        with contextlib.redirect_stdout(io.StringIO()):
            rows = config.own_rows(run(config))
        print(f"record   {kept.write_rows(kept.RECORD / track.path.stem, kept.CONTROL, rows)}")


def scored(
    track: Track,
    method: str,
    options: Mapping[str, Any],
    observe: Callable[[Config], Observation] = first_observation,
) -> Config:
    """The run of a method that is kept: as it was tuned, or with the steps that the budget allows.

    Args:
        observe: an observation of the run, by which its steps are chosen where they were not tuned.

    Raises:
        InputError: it has not been tuned on this version of the track, or cannot be run within the budget.
    """
    attack: type[Attack] = find("attack", method)
    if attack.space:
        config = entry(track, method, {}, preset="tuned", **options)
        config.method_options(attack)
        return config
    config = entry(track, method, {}, **options)
    return within_budget(config, track, observe(config))


def arguments(config: Config, given: Mapping[str, Any]) -> list[str]:
    """The command line of a run, for `python -m benchmark`."""
    values = {"attack": config.attack, "preset": config.preset, "steps": config.steps, **given}
    return ["run", *(f"--{name}={text(value)}" for name, value in values.items() if value is not None)]


def keep(track: Track, config: Config) -> Path:
    """Write the rows of a run that has ended, and a picture of its first images, into the record.

    Raises:
        InputError: the rows are not those of the track: a step costs more than when its options were tuned.
    """
    folder, rows = folder_of(config), rows_of(config)
    assert folder is not None, "it has run"
    if away := [row for row in rows if row["track"] != track.name]:
        raise InputError(
            f"{config.attack} took {away[0]['gradient_evaluations']} victim gradients of a task, and {track.name} "
            f"allows {track.evaluations}; nothing was kept; tune it again, with make tune."
        )
    files = [(folder.truth(row["image"]), folder.reconstruction(row["task"], row["image"])) for row in rows[:SHOWN]]
    pictures = [(Image.open(truth).convert("RGB"), Image.open(ours).convert("RGB")) for truth, ours in files]
    return kept.write(track.path.stem, config.attack, rows, strip(pictures))
