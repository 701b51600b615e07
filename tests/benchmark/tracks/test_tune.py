"""Tuning: the budget is kept, a stopped search goes on to the same result, and a run takes what was found."""

from pathlib import Path

import pytest
import yaml

from attacks import base
from attacks.engine.probe import find_paths
from attacks.engine.space import Between
from attacks.ig import IG
from benchmark import config as configs
from benchmark.__main__ import main
from benchmark.command_line import options_of_track
from benchmark.config import Config
from benchmark.registry import find
from benchmark.setting import Setting
from benchmark.tracks import entry as entries
from benchmark.tracks.budget import evaluations, most_steps
from benchmark.tracks.entry import entry
from benchmark.tracks.track import TRACKS, Tuning, read
from benchmark.tracks.tune import affordable, ingredients, search, tuned
from benchmark.tracks.tuned import Tuned, tuned_options
from leaderboard.run_folder import RunFolder
from victims.errors import InputError

SPACE = {"eta": Between(1e-3, 1e1), "signed": (True, False)}
DEFAULT = {"eta": 1.0, "signed": True}


def high_at_a_tenth(chosen):
    return -abs(chosen["eta"] - 0.1) - chosen["signed"]


@pytest.mark.parametrize("budget", [7, 40, 41, 399])
@pytest.mark.parametrize(("method", "restarts"), [("ig", 1), ("ig", 3), ("gias", 2), ("gifd", 1), ("ggl", 1)])
def test_one_step_more_would_be_over_the_budget(capture, small_prior, method, restarts, budget):
    observation, attack = capture().observation, find("attack", method)
    prior = {"prior": small_prior} if "prior" in attack.needs else {}

    def make(steps):
        return attack(restarts=restarts, steps=steps, **prior)

    try:
        steps = most_steps(make, observation, budget)
    except InputError:
        assert evaluations(make(len(make(None).plan)), observation) > budget
        return
    assert evaluations(make(steps), observation) <= budget < evaluations(make(steps + 1), observation)
    assert make(steps).run([observation]).gradient_evaluations <= budget


@pytest.mark.parametrize(("budget", "steps"), [(40, 1601), (2000, 2000)])
def test_steps_without_a_victim_gradient_do_not_multiply_with_the_budget(capture, budget, steps):
    observation, make = capture(rate=None).observation, find("attack", "cocktail_party_fi")
    assert evaluations(make(steps=2 * steps), observation) < budget  # most are of a source separation
    assert most_steps(lambda steps: make(steps=steps), observation, budget) == steps


def test_the_victim_is_probed_once_however_many_steps_are_tried(capture, monkeypatch):
    probed = []
    monkeypatch.setattr(base, "find_paths", lambda *given: probed.append(1) or find_paths(*given))
    assert most_steps(lambda steps: IG(steps=steps, restarts=1), capture().observation, 40) == 40
    assert len(probed) == 1


def test_a_search_finds_what_is_better_and_begins_with_the_default(tmp_path):
    trials = search(tmp_path / "t.db", "", SPACE, DEFAULT, high_at_a_tenth, Tuning(trials=20, tasks=1))
    assert trials[0] == (DEFAULT, -1.9)
    assert len(trials) == 20
    assert max(score for _, score in trials) > -0.3


@pytest.mark.parametrize("trials", [0, 1, 4])
def test_a_search_that_was_stopped_ends_as_one_that_was_not(tmp_path, trials):
    how = Tuning(trials=9, tasks=1)
    whole = search(tmp_path / "whole.db", "", SPACE, DEFAULT, high_at_a_tenth, how)
    left = iter(range(trials))

    def stopped(chosen):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return high_at_a_tenth(chosen)

    with pytest.raises(KeyboardInterrupt):
        search(tmp_path / "parts.db", "", SPACE, DEFAULT, stopped, how)
    asked = []
    parts = search(tmp_path / "parts.db", "", SPACE, DEFAULT, lambda c: asked.append(c) or high_at_a_tenth(c), how)
    assert parts == whole
    assert len(asked) == 9 - trials


def test_a_search_of_something_else_begins_anew(tmp_path):
    how = Tuning(trials=3, tasks=1)
    search(tmp_path / "t.db", "one", SPACE, DEFAULT, high_at_a_tenth, how)
    trials = search(tmp_path / "t.db", "another", SPACE, DEFAULT, lambda chosen: 7.0, how)
    assert [score for _, score in trials] == [7.0] * 3


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"evaluations": 12},
        {"options": {"batch": 1, "victim": "lenet", "defense": "none"}},
        {"priors": {"generator": "dcgan"}},
    ],
)
def test_what_decides_scores_tells_searches_apart(track, change):
    def of(file):
        found = read(str(file))
        return ingredients(entry(found, "gias", {}), found)

    before, file = of(track), Path(track).with_name("changed.yaml")
    Path(file).write_text(yaml.safe_dump(yaml.safe_load(Path(track).read_text()) | change))
    assert of(track) == before != of(file)


def test_the_code_of_an_own_attack_tells_searches_apart(tmp_path, track, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    file, found = tmp_path / "own_tuned.py", read(track)

    def made_of(text):
        file.write_text(f"from attacks.ig import IG\n\n\nclass Own(IG):\n    {text}\n")
        return ingredients(entry(found, "own_tuned.Own", {}), found)

    assert made_of("pass") != made_of("extra = 1")


def test_restarts_that_the_budget_does_not_allow_are_not_tried():
    def run(count):
        if count > 2:
            raise InputError(f"{count} are too many")

    assert affordable(run, {4, 2, 1}) == (1, 2)
    with pytest.raises(InputError, match="3 are too many"):
        affordable(run, {4, 3})


def test_a_budget_of_two_gradients_is_tuned(tmp_path, track):
    Path(track).write_text(yaml.safe_dump(yaml.safe_load(Path(track).read_text()) | {"evaluations": 2}))
    found = tuned(read(track), "ig", tmp_path / "out", {})
    assert found.options["restarts"] * found.options["steps"] <= 2


def test_a_run_takes_what_was_tuned_and_its_rows_say_so(tmp_path, track, capsys):
    out = tmp_path / "out"
    assert main(["tune", f"--track={track}", "--method=ig", f"--out={out}"]) == 0
    assert "psnr" in capsys.readouterr().out
    found = yaml.safe_load((tmp_path / "tuned/mine/ig.yaml").read_text())
    assert found["rule"] == {"version": 1, "evaluations": 10, "trials": 2, "tasks": 1, "seed": 0}
    assert found["options"]["steps"] * found["options"]["restarts"] <= 10
    run = ["run", f"--track={track}", "--method=ig", "--preset=tuned", f"--out={out}", "--devices=1", "--wandb=off"]
    assert main(run) == 0
    (folder,) = out.glob("ig-tuned-*")
    (row,) = RunFolder(folder).read_rows()[0]
    assert (row["preset"], row["track"], row["split"]) == ("tuned", track, "test")
    assert row["options"] == {"plan": {"x": found["options"]["steps"]}} | {
        name: found["options"][name] for name in ("eta", "tv", "signed")
    }
    assert row["restarts"] == found["options"]["restarts"]


def tuned_for(track, **options):
    return Tuned(track=track, rule=read(track).rule, method="ig", options=options, score=0, default=0).write()


def test_a_run_that_names_no_preset_takes_what_was_tuned_on_its_track_or_the_defaults(track):
    tuned_for(track, eta=0.2, restarts=3, steps=5)
    ig = Config(attack="ig", track=track)
    made = ig.make_attack()
    assert (ig.preset, made.eta, made.restarts, made.plan) == ("tuned", 0.2, 3, {"x": 5})
    assert Config(attack="gias", track=track).preset == "default"
    named = Config(attack="ig", track=track, preset="default")
    assert (named.preset, named.make_attack().plan) == ("default", IG().plan)
    assert ig.identity() == Config(attack="ig", track=track, preset="tuned").identity() != named.identity()


def test_another_version_of_a_track_is_another_run(track):
    """Whose rows say that version: those of the first would be stale, and nothing would be attacked again."""
    plan = yaml.safe_load(Path(track).read_text())
    first = Config(attack="ig", track=track).folder([])
    Path(track).write_text(yaml.safe_dump(plan | {"version": 2}))
    read.cache_clear()
    assert Config(attack="ig", track=track).folder([]) != first


def test_without_a_track_it_takes_what_was_tuned_on_the_default_one(track, monkeypatch):
    tuned_for(track, eta=0.2)
    monkeypatch.setattr(configs, "DEFAULT", track)
    assert Config(attack="ig").make_attack().eta == 0.2


def test_options_of_the_user_go_before_what_was_tuned(track):
    tuned_for(track, eta=0.2, tv=0.3, restarts=3, steps=5)

    def made(**options):
        return Config(attack="ig", track=track, **options).make_attack()

    assert made(steps=7).plan == made(set=["steps_x=7"]).plan == {"x": 7}
    assert (made(restarts=2).restarts, made(set=["eta=1"]).eta, made(set=["eta=1"]).tv) == (2, 1.0, 0.3)


def test_a_search_does_not_start_from_what_was_tuned_before(track):
    tuned_for(track, eta=0.2, restarts=3, steps=5)
    config = entry(read(track), "ig", {})
    assert (config.preset, config.make_attack().eta) == ("default", IG().eta)


def test_other_tuned_options_are_another_run(track):
    def folder(eta):
        options = {"eta": eta, "restarts": 1, "steps": 3}
        Tuned(track=track, rule=read(track).rule, method="ig", options=options, score=0, default=0).write()
        return Config(attack="ig", track=track, preset="tuned").folder(())

    assert folder(0.1) != folder(0.2)


def test_what_was_not_tuned_is_refused_with_the_command(track):
    with pytest.raises(InputError, match=f"has not been tuned .* run make tune TRACK={track} METHOD=ig"):
        tuned_options(track, "ig")
    tuned_for(track, eta=0.2)
    assert tuned_options(track, "ig") == {"eta": 0.2}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": 2}, "version 1, now 2"),
        ({"evaluations": 12}, "evaluations 10, now 12"),
        ({"tune": {"trials": 3, "tasks": 1}}, "trials 2, now 3"),
        ({"tune": {"trials": 2, "tasks": 2}}, "tasks 1, now 2"),
        ({"tune": {"trials": 2, "tasks": 1, "seed": 4}}, "seed 0, now 4"),
    ],
)
def test_what_was_tuned_by_another_rule_is_refused_with_the_command_and_not_taken_by_default(track, change, said):
    raised = Path(track).with_name("raised.yaml")
    raised.write_text(yaml.safe_dump(yaml.safe_load(Path(track).read_text()) | change))
    kept = Tuned(track=str(raised), rule=read(track).rule, method="ig", options={"eta": 0.2}, score=1.0, default=0.5)
    kept.write()
    with pytest.raises(InputError, match=rf"by another rule \({said}\); run make tune TRACK={raised} METHOD=ig"):
        tuned_options(str(raised), "ig")
    assert Config(attack="ig", track=str(raised)).preset == "default"


@pytest.mark.parametrize(
    "path", sorted(TRACKS.glob("tuned/*/*.yaml")), ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_what_ships_was_tuned_by_the_rule_of_its_track(path):
    tuned = Tuned(**yaml.safe_load(path.read_text()))
    assert (tuned.track, tuned.method, tuned.rule) == (path.parent.name, path.stem, read(path.parent.name).rule)


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("rgap", "rgap has no options to tune"),
        ("pnp", "has no denoiser, which pnp needs"),
        ("igims", "needs 102 victim gradients at least, and the budget is 10"),
        ("nothing", "unknown attack"),
    ],
)
def test_an_attack_that_cannot_be_tuned_is_refused_in_a_line(tmp_path, track, capsys, method, said):
    assert main(["tune", f"--track={track}", f"--method={method}", f"--out={tmp_path / 'out'}"]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert not (tmp_path / "out").exists()


def test_of_all_methods_those_that_cannot_be_tuned_are_left_out_with_the_reason(tmp_path, track, capsys, monkeypatch):
    monkeypatch.setattr(entries, "known", lambda kind: ["ig", "igims", "rgap"])
    assert main(["tune", f"--track={track}", "--method=all", f"--out={tmp_path / 'out'}"]) == 0
    assert [path.stem for path in (tmp_path / "tuned/mine").iterdir()] == ["ig"]
    *_, igims, rgap = capsys.readouterr().out.splitlines()
    assert igims == "left out igims: igims needs 102 victim gradients at least, and the budget is 10."
    assert rgap == "left out rgap: rgap has no options to tune; leave it out."


@pytest.mark.parametrize("content", ["", "[1", "- 1", "track: mine", "\x00", "track: mine\nversion: 1"])
def test_a_damaged_file_of_what_was_tuned_is_refused_with_the_command(track, content):
    Tuned(track=track, rule=read(track).rule, method="ig", options={}, score=0, default=0).write().write_text(content)
    with pytest.raises(InputError, match=f"is damaged: .* run make tune TRACK={track} METHOD=ig"):
        tuned_options(track, "ig")
    with pytest.raises(InputError, match="is damaged"):
        Config(attack="ig", track=track)
    assert len(Setting(attack="ig", track=track).make_data()), "images do not depend on it"


@pytest.mark.parametrize("options", [None, 3, ["eta"]])
def test_tuned_options_that_are_none_are_refused(track, options):
    Tuned(track=track, rule=read(track).rule, method="ig", options=options, score=0, default=0).write()
    with pytest.raises(InputError, match="is damaged"):
        tuned_options(track, "ig")


def test_a_tuned_option_that_the_method_no_longer_has_is_refused(track):
    Tuned(track=track, rule=read(track).rule, method="ig", options={"old": 1}, score=0, default=0).write()
    with pytest.raises(InputError, match="was tuned with 'old', which is no option of it now"):
        Config(attack="ig", track=track, preset="tuned").make_attack()


@pytest.mark.parametrize(
    "change", [{"method": "gi"}, {"track": "cifar10-b1"}, {"track": 3}, {"score": "high"}, {"default": float("nan")}]
)
def test_a_file_of_another_method_or_track_or_without_scores_is_refused(track, change):
    right = {"track": track, "rule": read(track).rule, "method": "ig", "options": {}, "score": 2, "default": 1.5}
    path = Tuned(**right).write()
    assert tuned_options(track, "ig") == {}
    path.write_text(yaml.safe_dump(right | change))
    with pytest.raises(InputError, match=f"ig.yaml is damaged: .* run make tune TRACK={track} METHOD=ig"):
        tuned_options(track, "ig")


@pytest.mark.parametrize(
    "options",
    [
        {"eta": "abc"},
        {"eta": [1]},
        {"eta": None},
        {"eta": True},
        {"restarts": 1.5},
        {"steps": "few"},
        {"signed": "yes"},
    ],
)
def test_a_tuned_option_of_another_type_is_refused_in_a_line(track, options):
    Tuned(track=track, rule=read(track).rule, method="ig", options=options, score=0, default=0).write()
    with pytest.raises(InputError, match=f"ig was tuned with {next(iter(options))} "):
        Config(attack="ig", track=track, preset="tuned").make_attack()


@pytest.mark.parametrize(
    "path", sorted(TRACKS.glob("tuned/*/*.yaml")), ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_what_ships_tuned_fits_its_method(path):
    name = path.parent.name
    config = Config(attack=path.stem, track=name, preset="tuned", **options_of_track(read(name)))
    assert config.method_options(find("attack", path.stem)) == tuned_options(name, path.stem)
