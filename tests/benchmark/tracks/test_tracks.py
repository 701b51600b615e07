"""Tracks: each is a setting that runs, and a run takes it from its name."""

import pytest
import yaml

from benchmark.__main__ import main
from benchmark.command_line import options_of, run_parser
from benchmark.config import Config
from benchmark.names import known
from benchmark.registry import find, registered
from benchmark.tracks import entry as entries
from benchmark.tracks.entry import entry, kinds, of_each, track_of
from benchmark.tracks.track import DEFAULT, KINDS, TRACKS, read
from leaderboard.options import abouts
from leaderboard.run_folder import RunFolder
from priors.base import Denoiser, Generator
from priors.inverters import Inverter
from tests.benchmark.tracks.conftest import GOOD
from victims.errors import InputError

NAMES = sorted(path.stem for path in TRACKS.glob("*.yaml"))


def of(*arguments):
    return Config(**options_of(run_parser("run", ""), arguments))


@pytest.mark.parametrize("name", NAMES)
def test_a_track_is_listed_and_fills_in_a_run(name):
    assert known("track")[name].summary
    track = read(name)
    config = of(f"--track={name}")
    assert config.tasks == track.tasks
    assert {option: getattr(config, option) for option in track.options} == dict(track.options)
    assert {*KINDS} == {Generator.kind, Denoiser.kind, Inverter.kind}
    for kind in track.priors.values():
        assert kind in known("prior")
    assert track.tasks * config.batch >= (24 if config.batch == 1 else 32)
    config.make_client()


def test_the_default_track_is_the_setting_of_a_run_without_options():
    plain, track = Config(), of(f"--track={DEFAULT}")
    roles = ("setting", "knowledge")
    differing = {n for n, a in abouts().items() if a.role in roles and getattr(plain, n) != getattr(track, n)}
    assert not differing


def test_options_beside_a_track_go_before_it_on_either_side():
    assert of("--track=cifar10-b1", "--batch=2").batch == of("--batch=2", "--track=cifar10-b1").batch == 2


def test_the_prior_is_that_of_the_track_and_of_the_kind_that_the_attack_takes():
    assert {of("--track=cifar10-b1", f"--attack={name}").prior for name in ("gias", "gifd")} == {"dcgan-cifar10"}
    assert of("--track=cifar10-b1", "--attack=pnp").prior == "denoiser-photos"
    assert of("--track=cifar10-b1", "--attack=gias", "--prior=dcgan").prior == "dcgan"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"options": {"attack": "ig"}}, "'attack' is no option of the setting"),
        ({"options": {"colour": 1}}, "'colour' is no option of the setting"),
        ({"options": {"split": "tune"}}, "'split' is no option of the setting"),
        ({"options": {"seed": 3}}, "'seed' is no option of the setting"),
        ({"options": None}, "options is None; give values by name"),
        ({"priors": ["dcgan"]}, "priors is .*; give values by name"),
        ({"priors": {"generator": [1, 2]}}, r"mine.yaml: priors has generator: \[1, 2\]; give a name to generator or"),
        ({"priors": {"generator": 3}}, "mine.yaml: priors has generator: 3"),
        ({"priors": {"generator": None}}, "mine.yaml: priors has generator: None"),
        ({"priors": {"wizard": "dcgan"}}, "mine.yaml: priors has wizard: 'dcgan'"),
        ({"evaluations": 10**30}, "mine.yaml: evaluations is 10+; give a whole number from 1 to 1000000000"),
        ({"tune": 3}, "tune is 3; give values by name"),
        ({"tune": {"trials": True, "tasks": 1}}, "tune: trials is True; give a whole number from 1"),
        ({"tune": {"trials": 1, "tasks": 1, "seed": "abc"}}, "tune: seed is 'abc'; give a whole number from 0"),
        ({"tasks": 0}, "tasks is 0; give a whole number from 1"),
        ({"evaluations": "many"}, "evaluations is 'many'"),
        ({"tune": {"trials": 2}}, "tune has trials, tasks and seed"),
        ({"tune": {"trials": 0, "tasks": 1}}, "tune: trials is 0"),
        ({"budget": 3}, "is no track; it has exactly evaluations, options, priors, tasks, tune, version"),
    ],
)
def test_a_file_that_is_no_track_is_refused_in_a_line(tmp_path, change, said):
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(GOOD | change))
    with pytest.raises(InputError, match=said):
        read(str(file))


def test_a_file_that_is_not_there_is_said_so(tmp_path):
    with pytest.raises(InputError, match=r"there is no file .*mine.yaml"):
        read(str(tmp_path / "mine.yaml"))


@pytest.mark.parametrize(("option", "value"), [("batch", [1]), ("batch", "many"), ("lr", True)])
def test_an_option_with_another_value_is_refused_by_the_name_of_the_file(tmp_path, option, value):
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(GOOD | {"options": {option: value}}))
    for refused in (lambda: of(f"--track={file}"), lambda: entry(read(str(file)), "ig", {})):
        with pytest.raises(InputError, match=f"mine.yaml: {option} takes"):
            refused()


def test_a_name_that_is_no_track_says_the_nearest_one():
    with pytest.raises(InputError, match="did you mean 'cifar10-b4'"):
        of("--track=cifar10-b5")


def test_every_method_of_steps_has_something_to_tune():
    assert not [name for name, attack in registered("attack").items() if not (attack.space or attack.analytic)]


def test_a_row_says_the_track_only_in_its_setting_and_within_its_budget():
    at = ("--track=cifar10-b1", "--attack=gias")
    budget = read("cifar10-b1").evaluations
    assert track_of(of(*at), budget) == "cifar10-b1"
    assert track_of(of(*at), budget + 1) == ""
    for changed in ("--batch=2", "--split=tune", "--labels=none", "--prior=dcgan", "--bn=exact"):
        assert track_of(of(*at, changed), budget) == "", changed
    assert track_of(of(*at, "--seed=3", "--restarts=2"), budget) == "cifar10-b1"
    assert track_of(of("--attack=ig", "--preset=default"), 1) == ""
    assert track_of(of("--attack=ig", "--preset=tuned"), 1) == DEFAULT


def test_a_run_over_the_budget_says_so_and_is_not_on_the_track(tmp_path, track, capsys):
    def run(steps):
        out = tmp_path / str(steps)
        words = ["run", f"--track={track}", "--method=ig", "--restarts=1", f"--steps={steps}", f"--out={out}"]
        assert main([*words, "--devices=1", "--wandb=off"]) == 0
        (folder,) = out.glob("ig-*")
        (row,) = RunFolder(folder).read_rows()[0]
        return row["track"], "victim gradients per batch, where" in capsys.readouterr().err

    assert run(10) == (track, False)
    assert run(11) == ("", True)


def test_a_method_whose_file_is_broken_stops_no_other_one(monkeypatch):
    def do(method):
        if method == "ig":
            raise ModuleNotFoundError("No module named 'absent'")
        return method

    found, left_out = of_each("all", do)
    assert found.keys() == known("attack").keys() - {"ig"}
    assert left_out == {"ig": "broken: ModuleNotFoundError: No module named 'absent'"}
    with pytest.raises(ModuleNotFoundError):
        of_each("gi,ig", do)
    monkeypatch.setattr(entries, "find", lambda _, method: find("attack", do(method)))
    assert kinds("all") == {"generator", "denoiser", "inverter"}
