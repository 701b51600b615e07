"""Tracks: fixed settings with a fixed budget and one tuning rule, on which attacks are compared.

A track is a YAML file in `tracks/`, which begins with a comment on what it shows:

- version: goes up where results can change; a record of an older version is stale.
- tasks: private batches that are attacked, of the split `test`.
- evaluations: the most victim gradients that an attack may compute for a batch, over all restarts and stages.
- tune: `trials` of every attack, each the mean score of `tasks` batches of the split `tune`; `seed` of the sampler.
- priors: what `default` means, by the kind of prior that an attack takes. Attacks that take another kind are left out.
- options: of the run: setting (without `split`) and knowledge, the same for all attacks.
- tier: `gpu` where it is too much for a CPU; may be left out.
"""

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from benchmark.names import known, require
from leaderboard.options import abouts
from victims.errors import InputError

TRACKS = Path(__file__).parent
DEFAULT = "photos-default"
"""The track whose setting is that of a run without options."""

Tier = Literal["cpu", "gpu"]
"""What a method needs to be tuned and recorded on a track within hours."""

KINDS = ("generator", "denoiser", "inverter")
"""The kinds of prior; a track names one of each."""

MOST = 10**9
"""The largest count that a track may have, such as of victim gradients: more take years."""

METRIC = "psnr"
"""What is tuned: the mean over images, by the truth of the split `tune`, which is never scored."""


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """The same for every attack of a track.

    Attributes:
        trials: settings that are tried; the first is the method's default.
        tasks: batches of the split `tune`, of which each takes the mean.
        seed: of the sampler.
    """

    trials: int
    tasks: int
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Track:
    """See the module; `name` as it was given, and the file."""

    name: str
    path: Path
    version: int
    tasks: int
    evaluations: int
    tune: Tuning
    priors: Mapping[str, str]
    options: Mapping[str, Any]
    tier: Tier = "cpu"

    def arguments(self) -> list[str]:
        """The options as the command line of a run takes them, before those of the user."""
        values = {"tasks": self.tasks, **self.options}
        return [f"--{name}={text(value)}" for name, value in values.items()]

    def tuned(self, method: str) -> Path:
        """Where the options that were tuned for a method lie."""
        return self.path.parent / "tuned" / self.path.stem / f"{method}.yaml"

    @property
    def recordable(self) -> bool:
        """Whether it is of the project, which the record is of; another one may have the file name of such a track."""
        return self.path.resolve().parent == TRACKS.resolve()

    @property
    def rule(self) -> dict[str, int]:
        """By which every method is tuned. What was tuned by another one is not compared."""
        return {"version": self.version, "evaluations": self.evaluations, **asdict(self.tune)}


def text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


@cache
def read(name: str) -> Track:
    """The track of a name, or of a `.yaml` file of the user.

    Raises:
        InputError: there is no such track, or the file is none.
    """
    if name in known("label track"):
        raise InputError(f"{name} is a track of label methods, which only make track and make record take.")
    path = Path(name) if name.endswith(".yaml") else TRACKS / f"{name}.yaml"
    if not name.endswith(".yaml"):
        require("track", name)
    try:
        plan = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise InputError(
            f"there is no file {path}; give a name from make list, or a file that ends in .yaml."
        ) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path} is no YAML that can be read ({' '.join(str(error).split())}); fix it.") from None
    allowed = {field.name: field.default is MISSING for field in fields(Track) if field.name not in ("name", "path")}
    needed = {field for field, required in allowed.items() if required}
    if not isinstance(plan, dict) or not needed <= plan.keys() <= allowed.keys():
        raise InputError(f"{path} is no track; it has exactly {', '.join(sorted(needed))}, and tier where it is gpu.")
    if (tier := plan.get("tier", Track.tier)) not in get_args(Tier):
        raise InputError(f"{path}: tier is {tier!r}; give {' or '.join(get_args(Tier))}.")
    for part in ("tune", "priors", "options"):
        if not isinstance(plan[part], dict):
            raise InputError(f"{path}: {part} is {plan[part]!r}; give values by name, or {{}} for none.")
    for kind, prior in plan["priors"].items():
        if kind not in KINDS or not isinstance(prior, str) or not prior:
            raise InputError(f"{path}: priors has {kind}: {prior!r}; give a name to {' or '.join(KINDS)}.")
    decided = {option for option, about in abouts().items() if about.role in ("setting", "knowledge")} - {"split"}
    if wrong := [option for option in plan["options"] if option not in decided]:
        left_out = "is no option of the setting, without split, or of the attacker's knowledge"
        raise InputError(f"{path}: '{wrong[0]}' {left_out}; remove it.")
    tune = {"seed": 0, **plan.pop("tune")}
    if tune.keys() != {field.name for field in fields(Tuning)}:
        raise InputError(f"{path}: tune has trials, tasks and seed, not {', '.join(map(str, tune))}; fix it.")
    least = {name: (plan[name], 1) for name in ("version", "tasks", "evaluations")}
    least |= {f"tune: {name}": (value, 0 if name == "seed" else 1) for name, value in tune.items()}
    for option, (count, fewest) in least.items():
        if type(count) is not int or not fewest <= count <= MOST:  # true is none
            raise InputError(f"{path}: {option} is {count!r}; give a whole number from {fewest} to {MOST}.")
    return Track(name=name, path=path, tune=Tuning(**tune), **plan)
