"""What a run is made of: its options, and the objects they name."""

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from inspect import Parameter
from pathlib import Path
from typing import Any, ClassVar, Protocol, get_type_hints

import torch
import yaml

from attacks.base import Attack, Common
from attacks.engine.author import built
from attacks.engine.preset import Preset
from benchmark.names import known
from benchmark.registry import (
    find,
    parameters_of,
    parse,
)
from benchmark.setting import Setting
from benchmark.tracks import track as tracks
from benchmark.tracks.track import DEFAULT
from benchmark.tracks.tuned import command as tuning
from benchmark.tracks.tuned import is_tuned, tuned_options
from leaderboard.options import abouts
from leaderboard.rows import PROTOCOL, FlatRow
from leaderboard.run_folder import RunFolder
from priors import by_name as priors_by_name
from priors.base import Generator, Prior
from priors.inverters import Inverter
from victims.errors import InputError, Notice
from victims.names import nearest, separated

SHARED = {
    name: Parameter(name, Parameter.KEYWORD_ONLY, annotation=get_type_hints(Common)[name])
    for name in ("restarts", "steps")
}
"""What is tuned of the options that every attack takes."""
LONGEST_NAME = 220  # bytes of a run folder's name, without its seed and digest; file systems take 255


class Method(Protocol):
    """A class with options of its own and named sets of them: an attack, or GIML."""

    presets: ClassVar[Mapping[str, Preset]]


@dataclass(frozen=True, kw_only=True)
class Config(Setting):
    """The options of a run, and the attack that they name, with its prior and its preset.

    Raises:
        InputError: as `Setting` does, or there is no such attack or track.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prior == "default":
            method: type[Attack] = find("attack", self.attack)
            if "prior" in method.needs:
                of_track = tracks.read(self.track).priors if self.track else {}
                prior = of_track.get(method.takes.kind) or default_prior(method, self.preset)
                object.__setattr__(self, "prior", prior)
        if self.preset == "auto":
            tuned = is_tuned(tracks.read(self.track or DEFAULT), self.attack)
            object.__setattr__(self, "preset", "tuned" if tuned else "default")

    @property
    def track_taken(self) -> str:
        """The track whose setting or whose tuned options it takes; empty for none."""
        return self.track or (DEFAULT if self.preset == "tuned" else "")

    def identity(self) -> dict[str, Any]:
        """The options that a row depends on."""
        options = {name: value for name, value in asdict(self).items() if abouts()[name].changes_rows}
        if self.preset == "tuned":
            options["tuned"] = self.tuned_options()
        name = self.track_taken
        if name and (version := tracks.read(name).version) > 1:  # of the first, folders have always been named so
            options["track_version"] = version
        backbones = ",".join(sorted({*separated(self.lpips)}))
        return {**options, "lpips": backbones, "victim_weights": self.weights_label(), "protocol": PROTOCOL}

    def folder(self, networks: Sequence[str]) -> Path:
        """Where the results go: the same folder for the same options and the same available networks of metrics."""
        identity = json.dumps([self.identity(), sorted(networks)], sort_keys=True)
        digest = hashlib.sha256(identity.encode()).hexdigest()[:8]
        of_victim = [Path(self.data).name, self.victim, f"b{self.batch}", self.defense]
        parts = [self.attack, self.preset, *of_victim, self.control]
        name = "-".join(parts).replace("/", "_").replace(":", "_").encode(errors="replace")[:LONGEST_NAME]
        return self.out / f"{name.decode(errors='ignore')}-s{self.seed}-{digest}"

    def own_rows(self, folder: RunFolder) -> list[FlatRow]:
        """The rows of the run's tasks, without those that a longer run left behind them."""
        return folder.read_rows()[0][: self.tasks * self.batch]

    def make_prior(self) -> Prior:
        """The prior; a Notice says where an inverter has learned another defense than this one."""
        prior = priors_by_name.find(self.prior, self.weights_dir, size=self.size, seed=self.seed)
        if isinstance(prior, Inverter) and (learned := prior.setting["defense"]) != self.defense:
            text = (
                f"the inverter was trained under the defense {learned}, and the updates are sent under {self.defense}."
            )
            warnings.warn(text, Notice, stacklevel=2)
        return prior

    def tell_other_classes(self, prior: Prior) -> None:
        """A Notice where a conditional generator has learned classes of other names than those of the data set.

        To it a label means another class then. Names are known of the suite's data sets that have them without files.
        """
        if not (isinstance(prior, Generator) and prior.classes):
            return
        learned = prior.trained_on.partition(" ")[0].strip(",").lower()
        theirs, ours = (classes_of(name) for name in (learned, self.data.partition(":")[0]))
        if theirs and ours and theirs != ours:
            text = (
                f"the prior was trained on the classes of {learned}, and those of {self.data} are others: class 0 is "
                f"{theirs[0]} to the prior and {ours[0]} here; choose another --prior or --data."
            )
            warnings.warn(text, Notice, stacklevel=3)

    def make_denoiser(self) -> Prior:
        """The denoiser of the last stage, `refine`."""
        return priors_by_name.find(self.refine, self.weights_dir, size=self.size, seed=self.seed)

    def make_attack(self) -> Attack:
        """The method with its preset, the single options on top, and what every attack takes.

        Raises:
            InputError: an option cannot be used, or batches may have labels that the method does not take.
        """
        method: type[Attack] = find("attack", self.attack)
        if self.batch > 1 and self.batches == "random" and method.made_for.get("batches") == "distinct":
            raise InputError(f"{self.attack} works on batches of distinct labels; run with --batches distinct.")
        common: dict[str, Any] = {
            "restarts": self.restarts,
            "steps": self.steps,
            "chunk": self.chunk,
            "seed": self.seed,
        }
        common |= {"match": self.match, "compile": self.compile, "compile_s": self.compile_s}
        options = self.method_options(method)
        if self.labels not in ("given", "none"):
            common["label_method"] = self.labels
        options |= {name: value for name, value in common.items() if value is not None}
        if "prior" in method.needs:
            prior = self.make_prior()
            self.tell_other_classes(prior)
            options["prior"] = prior.to(getattr(torch, self.precision))
        if self.refine != "none":
            options["refine"] = self.make_denoiser().to(getattr(torch, self.precision))
        return built(method, options, [*common])

    def method_options(self, method: type[Method]) -> dict[str, Any]:
        """The method's preset, and the single options on top."""
        return on_top(self.preset_options(method), self.single_options(method))

    def tuned_options(self) -> dict[str, Any]:
        """What was tuned for the method on the track."""
        return tuned_options(self.track or DEFAULT, self.attack)

    def changes(self, method: type[Method]) -> dict[str, Any]:
        """What was tuned, and of `set`, as it was written, what differs from the preset: what a row says of it."""
        own = options_of(method)
        before = {name: option.default for name, option in own.items()} | self.preset_options(method)
        written = dict(text.split("=", 1) for text in self.set)
        tuned = self.tuned_options() if self.preset == "tuned" else {}
        changed = [name for name, value in self.single_options(method).items() if value != before[name]]
        return {n: v for n, v in tuned.items() if n in own} | {name: written[name] for name in changed}

    def preset_options(self, method: type[Method]) -> dict[str, Any]:
        if self.preset == "tuned":
            tuned, own = self.tuned_options(), options_of(method) | SHARED
            again = f"run {tuning(self.track or DEFAULT, self.attack)}"
            for name, value in tuned.items():
                if name not in own:
                    raise InputError(f"{self.attack} was tuned with '{name}', which is no option of it now; {again}")
                try:
                    same = parse(own[name], tracks.text(value), self.attack) == value
                except InputError:
                    same = False
                if not same:
                    wrong = f"{self.attack} was tuned with {name} {value!r}, which is no value of this option now"
                    raise InputError(f"{wrong}; {again}")
            return tuned
        presets = {"default": {}, **method.presets}
        if self.preset not in presets:
            raise InputError(f"{self.attack} has no preset '{self.preset}'; it has {', '.join([*presets, 'tuned'])}.")
        return dict(presets[self.preset])

    def single_options(self, method: type[Method]) -> dict[str, Any]:
        """`set` as typed constructor options."""
        known = options_of(method)
        chosen = {}
        for text in self.set:
            name, equals, value = text.partition("=")
            if not equals:
                raise InputError(f"'{text}' is no KEY=VALUE; write for example {next(iter(known))}=1.")
            if name not in known:
                near = nearest(name, known)
                raise InputError(f"{self.attack} has no option '{name}'; {near}it takes {', '.join(known)}.")
            chosen[name] = parse(known[name], value, f"{self.attack} option")
        return chosen


def default_prior(method: type[Attack], preset: str) -> str:
    """
    Raises:
        InputError: the preset is of a prior that is not shipped.
    """
    if preset in method.presets and (command := method.presets[preset].trained_by):
        raise InputError(
            f"{method.name}'s preset {preset} is of a prior that is not shipped; train it ({command}) and give it with "
            "--prior, or leave --preset out."
        )
    return method.default_prior


def classes_of(name: str) -> tuple[str, ...]:
    """The names of the classes of a data set of this suite; none where there is no such data set, or its files say."""
    return tuple(getattr(find("data", name), "classes", ())) if name in known("data") else ()


def dump(config: Config, resolved: Mapping[str, Any]) -> str:
    """The resolved options as YAML that `--config` reads back."""
    plain = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(config).items()}
    comment = "".join(f"# {name}: {json.dumps(value)}\n" for name, value in resolved.items())
    return comment + yaml.safe_dump(plain, sort_keys=False)


def on_top(preset: Mapping[str, Any], single: dict[str, Any]) -> dict[str, Any]:
    """Options of a preset with single ones on top; steps of a stage replace tuned steps in total."""
    replaced = {"steps"} if any(name.startswith("steps") for name in single) else set()
    return {name: value for name, value in preset.items() if name not in replaced} | single


def options_of(method: type[Method]) -> dict[str, Parameter]:
    """The method's own constructor options, without those that every attack takes.

    A constructor with `**options: Any` passes them on: then those of the next base are options too.
    """
    found: dict[str, Parameter] = {}
    for base in method.__mro__:
        if "__init__" in vars(base):
            own = parameters_of(base)
            found = {name: p for name, p in own.items() if p.kind is p.KEYWORD_ONLY} | found
            if not any(p.kind is p.VAR_KEYWORD and p.annotation is Any for p in own.values()):
                break
    return {name: p for name, p in found.items() if name not in Common.__annotations__}
