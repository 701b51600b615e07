"""What a run is made of: its options, and the objects they name."""

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from attacks.base import Attack
from attacks.engine.author import built
from benchmark.method_options import Method, default_prior, of_preset, of_texts, on_top, options_of
from benchmark.priors.classes import tell_other_classes
from benchmark.registry import find
from benchmark.setting import Setting
from benchmark.tracks import track as tracks
from benchmark.tracks.track import DEFAULT
from benchmark.tracks.tuned import is_tuned, tuned_options
from leaderboard.options import abouts
from leaderboard.rows import PROTOCOL, FlatRow
from leaderboard.run_folder import RunFolder
from priors import by_name as priors_by_name
from priors.base import Prior
from priors.inverters import Inverter
from victims.errors import InputError, Notice
from victims.names import separated

LONGEST_NAME = 220  # bytes of a run folder's name, without its seed and digest; file systems take 255


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
        common = {
            "restarts": self.restarts,
            "steps": self.steps,
            "chunk": self.chunk,
            "seed": self.seed,
            "match": self.match,
            "compile": self.compile,
            "compile_s": self.compile_s,
            "label_method": None if self.labels in ("given", "none") else self.labels,
        }
        options = self.method_options(method) | {name: value for name, value in common.items() if value is not None}
        if "prior" in method.needs:
            prior = self.make_prior()
            tell_other_classes(prior, self.data)
            options["prior"] = prior.to(getattr(torch, self.precision))
        if self.refine != "none":
            options["refine"] = self.make_denoiser().to(getattr(torch, self.precision))
        return built(method, options, [*common])

    def method_options(self, method: type[Method]) -> dict[str, Any]:
        """The method's preset, and the single options on top."""
        return on_top(self.preset_options(method), of_texts(method, self.attack, self.set))

    def preset_options(self, method: type[Method]) -> dict[str, Any]:
        return of_preset(method, self.attack, self.preset, self.track or DEFAULT)

    def tuned_options(self) -> dict[str, Any]:
        """What was tuned for the method, where its preset is that; else nothing."""
        return tuned_options(self.track or DEFAULT, self.attack) if self.preset == "tuned" else {}

    def changes(self, method: type[Method]) -> dict[str, Any]:
        """What was tuned, and of `set`, as it was written, what differs from the preset: what a row says of it."""
        own = options_of(method)
        before = {name: option.default for name, option in own.items()} | self.preset_options(method)
        written = dict(text.split("=", 1) for text in self.set)
        single = of_texts(method, self.attack, self.set)
        changed = [name for name, value in single.items() if value != before[name]]
        return {n: v for n, v in self.tuned_options().items() if n in own} | {name: written[name] for name in changed}


def dump(config: Config, resolved: Mapping[str, Any]) -> str:
    """The resolved options as YAML that `--config` reads back."""
    plain = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(config).items()}
    comment = "".join(f"# {name}: {json.dumps(value)}\n" for name, value in resolved.items())
    return comment + yaml.safe_dump(plain, sort_keys=False)
