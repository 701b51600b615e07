"""`python -m benchmark sealed`: an attack on new tasks that nobody knows, in a process that gets their updates alone.

`run` does all. Three pieces with files between them may run on different machines:

    draw      a secret -> observations.pt, and secret.json, which stays with the judge
    attack    observations.pt -> reconstructions.pt
    judge     all three -> scores

An attack that looks for the truth finds none there, for its process never held an image and can open no file that has
one, see `benchmark.sealed.limits`. The judge computes the costs again in another such process, by the method's own
distance; victim gradients are what the attack claims.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmark.device import reproducible
from benchmark.launch.lock import writable
from benchmark.names import known, require
from benchmark.run_options import with_options
from benchmark.sealed.attack import DAY, confined
from benchmark.sealed.confined import OBSERVATIONS, RECONSTRUCTIONS
from benchmark.sealed.draw import Draw, Drawn, draw, new_secret
from benchmark.sealed.judge import against_claims, against_control, against_record, judged, of_rows, results
from benchmark.sealed.observations import line, load
from benchmark.sources import file_name, of_bytes, unimported
from benchmark.tracks.track import DEFAULT, METRIC, Track, read
from leaderboard import record
from leaderboard.files import write_atomically
from leaderboard.options import Options
from leaderboard.rows import FlatRow
from leaderboard.sentences import decibels
from victims.errors import InputError

SAMPLE = 8
SLOWER, LEAST = 20, 600.0
"""How many times the seconds of its record an attack may take here, and what it may take in any case."""
SECRET, FOLDER = "secret.json", "sealed"
WHERE = ("data_dir", "weights_dir", "out")


@with_options(also=WHERE)
def draw_files(
    folder: Path, *, track: str = DEFAULT, sample: int = SAMPLE, new_weights: bool = True, **where: Any
) -> None:
    """Draw new tasks of a track: observations.pt for the attacker, secret.json for the judge.

    Args:
        folder: gets the files.
        track: a name from `make list`, or a YAML file.
        sample: how many tasks.
        new_weights: whether those of the victim are drawn too; a trained inverter knows only the track's own.
    """
    reproducible()
    what = Draw(found(track), sample, new_secret(), new_weights)
    require_apart(what.track, where)
    draw(what, where, writable(folder, "folder") / OBSERVATIONS)
    (folder / RECONSTRUCTIONS).unlink(missing_ok=True)  # of an earlier draw
    write_atomically(folder / SECRET, json.dumps({**vars(what), "track": what.track.name, "of": seen_in(folder)}))
    print(f"for the attacker  {folder / OBSERVATIONS}\nfor the judge     {folder / SECRET}")


def attack_files(folder: Path, *, attack: str, weights_dir: Path = Options.weights_dir) -> None:
    """Attack the tasks of observations.pt, in a process that reaches nothing else: writes reconstructions.pt.

    Args:
        folder: has the file, and gets the other.
        attack: the method.
    """
    require_attack(attack)
    seen = load(folder / OBSERVATIONS)
    if not isinstance(seen, dict) or not {"track", "tasks"} <= seen.keys():
        raise InputError(f"{folder / OBSERVATIONS} is not what sealed draw writes; draw again.")
    limit = time_limit(read(seen["track"]), attack, len(seen["tasks"]))
    left = confined(folder / OBSERVATIONS, attack, weights_dir, limit=limit)
    torch.save(left | {"of": origin(folder, attack)}, folder / RECONSTRUCTIONS)
    print(f"for the judge     {folder / RECONSTRUCTIONS}")


@with_options(also=WHERE)
def judge_files(folder: Path, *, attack: str, **where: Any) -> int:
    """Score reconstructions.pt against the tasks of secret.json.

    Args:
        folder: has all three files.
        attack: the method that made the reconstructions.

    Raises:
        InputError: a file is missing or damaged, or the reconstructions or observations are of another method or draw.
    """
    reproducible()
    require_attack(attack)
    try:
        kept = json.loads((folder / SECRET).read_text())
        there, observed = found(kept["track"]), kept.pop("of")
        what = Draw(**{**kept, "track": there})
    except InputError:
        raise
    except (OSError, ValueError, TypeError, KeyError):
        raise InputError(f"{folder / SECRET} is not what sealed draw writes; draw and attack again.") from None
    content = load(folder / RECONSTRUCTIONS)
    load(folder / OBSERVATIONS)  # is refused here where it is missing
    if observed != seen_in(folder):
        raise InputError(f"{folder / OBSERVATIONS} is not of the draw in {folder / SECRET}; put those of one together.")
    if not isinstance(content, dict) or content.get("of") != origin(folder, attack):
        raise InputError(
            f"{folder / RECONSTRUCTIONS} is not of {attack} on {folder / OBSERVATIONS}; "
            f"run sealed attack {folder} --attack={attack} again."
        )
    writable(where["out"] / FOLDER)
    return judge(what, draw(what, where), folder / OBSERVATIONS, attack, content, where)


def origin(folder: Path, attack: str) -> dict[str, str]:
    """What reconstructions are of: a mistake between folders must not accuse a method."""
    return {"attack": attack, "observations": seen_in(folder)}


def seen_in(folder: Path) -> str:
    """A digest of observations.pt."""
    return of_bytes((folder / OBSERVATIONS).read_bytes())


def require_apart(track: Track, where: Mapping[str, Any]) -> None:
    """
    Raises:
        InputError: images lie below the folder of weights, which an attack reads.
    """
    weights, (_, _, folder) = where["weights_dir"].resolve(), str(track.options.get("data", "")).partition("folder:")
    for images in (where["data_dir"], where["out"], *([Path(folder)] if folder else [])):
        if images.resolve().is_relative_to(weights):
            raise InputError(
                f"{images} lies in the folder of weights, {where['weights_dir']}, which an attack may read; keep "
                "images outside of it."
            )


@with_options(also=WHERE)
def run(
    *, track: str = DEFAULT, attack: str, sample: int = SAMPLE, secret: str = "", new_weights: bool = True, **where: Any
) -> int:
    """Draw new tasks of a track, attack them in a process that gets only their updates, and judge what it found.

    The method is not imported here, where it could change the judge.

    Args:
        track: a name from `make list`, or a YAML file.
        attack: the method.
        sample: how many tasks; below 5 there is no verdict.
        secret: of a draw that is repeated; by default a new one.
        new_weights: whether those of the victim are drawn too; a trained inverter knows only the track's own.

    Returns:
        the exit code, see `judge`.
    """
    reproducible()
    require_attack(attack)
    what = Draw(found(track), sample, secret or new_secret(), new_weights)
    require_apart(what.track, where)
    writable(where["out"] / FOLDER)  # before hours of work
    with TemporaryDirectory() as name:
        observations = Path(name) / OBSERVATIONS
        drawn = draw(what, where, observations)
        limit = time_limit(what.track, attack, len(drawn.tasks))
        left = confined(observations, attack, where["weights_dir"], limit=limit)
        return judge(what, drawn, observations, attack, left, where)


def require_attack(method: str) -> None:
    """Refuse early what cannot be imported, without importing it.

    Raises:
        InputError: there is no such attack, or no such module.
    """
    require("attack", method)
    package = method.partition(".")[0]
    if "." in method and not (package and find_spec(package)):
        raise InputError(f"there is no module {package!r} of {method}; give a folder that has it in PYTHONPATH.")


def time_limit(track: Track, method: str, tasks: int) -> float:
    """In seconds, for so many tasks: what the record took, with room for another machine; a day where there is none."""
    seconds = [row["seconds"] for row in recorded(track, method)]
    return max(LEAST, SLOWER * tasks * fmean(seconds)) if seconds else DAY


def found(track: str) -> Track:
    """The track of a name or file, which other folders understand too."""
    there = read(track)
    return replace(there, name=str(there.path.resolve())) if track.endswith(".yaml") else there


def judge(
    what: Draw, drawn: Drawn, observations: Path, method: str, content: Mapping[str, Any], where: Mapping[str, Any]
) -> int:
    """Print and keep the scores.

    Args:
        content: what the attack wrote.

    Returns:
        0; 1 where the record does not hold, a claimed cost is wrong or cannot be computed, or the budget is exceeded.
    """
    tasks = results(content, len(drawn.tasks))
    rows = judged(drawn, tasks)
    status = {row["task"]: row["status"] for row in rows}
    failed = {task: why for task, why in status.items() if why != "ok"}
    sound = [{"error": failed[task]} if task in failed else of for task, of in zip(status, tasks, strict=True)]
    limit = time_limit(what.track, method, len(tasks))
    try:
        again = confined(observations, method, where["weights_dir"], sound, limit)
        lied, costs = against_claims(rows, results(again, len(tasks)))
    except InputError as error:
        lied, costs = True, f"not computed again: {line(error)}"
    kept = recorded(what.track, method)
    spent = max((row["claimed_evaluations"] or 0 for row in rows), default=0)
    contradicted, verdict = against_record(rows, kept, what.track.version)
    drawn_weights = what.new_weights and drawn.config.weights_file() is None
    weights = "new weights of the victim" if drawn_weights else "the track's own weights of the victim"
    lines = {
        "sealed": f"{method} on {what.track.name}: {len(tasks)} new tasks, {weights}",
        METRIC: f"{decibels(of_rows(rows, METRIC))}, {against_control(rows)}",
        "control": f"{decibels(of_rows(rows, 'control'))}, the mean image",
        "record": f"{decibels(of_rows(kept, METRIC))}, {verdict}" if kept else verdict,
        "cost": costs,
        "budget": f"{spent} victim gradients of a task, as the attack claims; {what.track.evaluations} are allowed",
        "seconds": f"{line(content.get('seconds'))} in all",
        "failed": "; ".join(f"{task}: {why}" for task, why in failed.items()) or "no task",
        "images": f"{drawn.recorded} of {len(rows)} are in tasks of the record too" if drawn.recorded else "all new",
        "limits": line(content.get("limits")),
        "method": ", ".join(f"{name} {digest}" for name, digest in digests(method).items()),
        "secret": f"{what.secret} repeats the draw",
    }
    print("\n".join(f"{name:8} {line}" for name, line in lines.items()))
    folder = where["out"] / FOLDER / f"{what.track.path.stem}-{method}-{what.secret[:8]}"
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "scores.json", json.dumps({"result": lines, "rows": rows}, indent=1))
    print(f"scores   {folder / 'scores.json'}")
    return 1 if contradicted or lied or spent > what.track.evaluations else 0


def recorded(track: Track, method: str) -> list[FlatRow]:
    """The rows of the record; none of a track elsewhere, which may have the file name of one of the project."""
    return [row for old in record.read(track.path.stem, method) for row in old.rows if track.recordable]


def digests(method: str) -> dict[str, str]:
    """Digests of a method's files, found without importing it."""
    there = known("attack")
    written = f"{there[method].module}.{there[method].attribute}" if method in there else method
    return {file_name(name, path): of_bytes(path.read_bytes()) for name, path in unimported(written).items()}
