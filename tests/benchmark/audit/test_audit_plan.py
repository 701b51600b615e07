"""The plan of an audit: order, options, estimates, and what a budget is enough for."""

import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from attacks.ig import IG
from benchmark.audit import estimate
from benchmark.audit import plan as module
from benchmark.audit.estimate import (
    LABELS,
    Attempt,
    Cost,
    Probe,
    Under,
    configured,
    measured,
    nearest_track,
    seconds_of,
)
from benchmark.audit.plan import Plan, different, in_order, make_plan, with_steps
from benchmark.audit.work import jobs_of
from benchmark.config import Config
from benchmark.registry import find
from benchmark.tracks.track import read
from benchmark.tracks.tuned import read_tuned
from tests.benchmark.test_truth import reachable, shown
from victims.errors import InputError

PLAIN = {"preset": "default", "data": "cifar10", "batch": 1, "defense": "none"}


def test_closed_forms_come_first_then_the_fast_searches_then_all_others():
    names = in_order("auto")
    closed = [find("attack", name).analytic for name in names]
    assert closed == sorted(closed, reverse=True)
    order = ("spear", "cocktail_party", "ci_net", "igims", "ig", "gifd", "gias")
    assert sorted(order, key=names.index) == [*order]
    assert {"dlg", "pnp", "gi_nas"} <= set(names[names.index("gias") :])
    assert in_order("gias, rgap,gias") == ["gias", "rgap"]
    assert in_order("gias,auto") == ["gias", *(name for name in names if name != "gias")]


def test_the_same_defense_in_other_words_counts_once():
    assert different("none, noise:0.01,noise:1e-2,noise:0.1, none") == ["none", "noise:0.01", "noise:0.1"]
    assert different("clipping:1+noise:0.1,clipping:1.0+noise:.1") == ["clipping:1+noise:0.1"]
    assert different("a:1:2,a:1+2") == ["a:1:2", "a:1+2"]


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ({}, "cifar10-b1"),
        ({"batch": 8}, "cifar10-b4"),
        ({"defense": "sparsification:0.9"}, "cifar10-b1-sparse98"),
        ({"data": "photos", "batch": 4, "defense": "sparsification:0.7"}, "photos-default"),
    ],
)
def test_options_are_those_of_the_nearest_track(setting, expected):
    config = Config(**{**PLAIN, **setting})
    assert nearest_track(config, "ig").name == expected
    made, track = configured(config, "ig")
    options = read_tuned(read(expected), "ig").options
    assert track == expected
    assert (made.restarts, made.steps) == (options["restarts"], options["steps"])
    assert f"eta={options['eta']}" in made.set
    assert made.make_attack().eta == options["eta"]


def test_an_attack_that_has_nothing_to_tune_has_its_own_options():
    assert nearest_track(Config(**PLAIN), "rgap") is None
    made, track = configured(Config(**PLAIN), "rgap")
    assert (made.set, made.steps, track) == ([], None, "")


def test_an_attacker_leaves_out_what_he_makes_no_use_of():
    config = Config(**PLAIN, bn="running", labels="llg")
    ig, gi, rgap = (configured(config, name)[0] for name in ("ig", "gi", "rgap"))
    assert (ig.bn, gi.bn) == ("none", "running")
    assert (ig.labels, rgap.labels) == ("llg", "none")
    assert configured(Config(**PLAIN), "rgap")[0].labels == "given"
    assert (ig.precision, rgap.precision) == ("float32", "float64")


# What a budget is enough for: costs are given, so that no clock counts.


def plan_of(monkeypatch, costs, minutes, *, most=8, spent=0.0, processes=1):
    """Of attacks in their order, each with its steps and (fixed, task, search); None refuses it."""
    probe = SimpleNamespace(refused=[], readers={}, defenses=["none"])

    def found(probe, name):
        if costs[name] is None:
            probe.refused.append((name, "", "it cannot"))
            return None
        steps, cost = costs[name]
        return Attempt(name, {"none": Under(1.0, steps, 1)}, 0.0), Cost(*cost)

    monkeypatch.setattr(module, "measured", found)
    return make_plan(probe, [*costs], minutes, lambda: spent, most, processes)


def test_further_attacks_follow_while_there_is_time_for_all_their_steps(monkeypatch):
    """8 of 10 minutes are planned, 480 s: 20 s closed, 4 x 60 s, then 160 s; 100 s more do not fit."""
    costs = {"closed": (0, (0, 5)), "no": None, "first": (400, (0, 0, 60)), "next": (200, (0, 0, 40))}
    found = plan_of(monkeypatch, {**costs, "late": (100, (100, 0, 0.1)), "later": (9, (0, 0, 0.1))}, 10, most=4)
    assert found.tasks == 4
    assert [attempt.attack for attempt in found.attempts] == ["closed", "first", "next"]
    assert [reason.partition(":")[0] for _, _, reason in found.not_tried] == ["it cannot", "not reached", "not reached"]
    assert [attempt.steps for attempt in found.attempts] == [0, 460, 230]  # times (480 - 20) / 400
    assert found.seconds == pytest.approx(480, rel=0.01)


def test_fewer_images_come_before_fewer_steps_and_fewer_steps_before_nothing(monkeypatch):
    assert plan_of(monkeypatch, {"first": (400, (0, 0, 60))}, 2.5).tasks == 2  # 120 s
    (one,) = (found := plan_of(monkeypatch, {"first": (400, (0, 0, 192))}, 2)).attempts  # 96 s are half of it
    assert (found.tasks, one.steps, one.seconds) == (1, 200, pytest.approx(96))
    with pytest.raises(InputError, match=r"^0\.9 minutes are too few for 100 steps of first .* such as 1\.5, fewer"):
        plan_of(monkeypatch, {"first": (400, (0, 0, 192))}, 0.9)  # 100 steps take 48 of 43.2 s
    assert plan_of(monkeypatch, {"first": (400, (0, 0, 192))}, 1.5).tasks == 1
    with pytest.raises(InputError, match=r"^0\.9 minutes are too few for closed on one batch"):
        plan_of(monkeypatch, {"closed": (0, (0, 50))}, 0.9)


def test_no_search_takes_more_steps_than_the_most(monkeypatch):
    (one,) = plan_of(monkeypatch, {"first": (400, (0, 0, 0.001))}, 10).attempts
    assert one.steps == module.MOST


def test_more_processes_and_less_time_spent_before(monkeypatch):
    """Two processes in (150 - 10 - 120) s x 0.8 = 16 s, of which none is left after 10 s of their start."""
    costs = {"first": (400, (0, 0, 24))}
    assert plan_of(monkeypatch, costs, 1).tasks == 2  # 48 s
    assert plan_of(monkeypatch, costs, 1, processes=2).tasks == 3  # 2 x (48 - 10) s
    assert plan_of(monkeypatch, costs, 1, spent=30).tasks == 1


def test_where_nothing_fits_the_first_reason_is_said(monkeypatch):
    with pytest.raises(InputError, match=r"^no attack can be used in this setting; no: it cannot$"):
        plan_of(monkeypatch, {"no": None}, 10)


# What is measured.


def test_the_time_of_a_search_follows_from_a_few_steps_of_every_stage():
    """20 steps of 10 ms and 30 of 20 ms are 0.8 s, of which 6 steps are taken."""
    stages = [SimpleNamespace(name="z", pause=0.01), SimpleNamespace(name="x", pause=0.02)]
    session = SimpleNamespace(stage=stages[0], ended=False, steps=0)

    def skip():
        session.ended = session.stage is stages[1]
        session.stage = stages[1]

    def advance():
        session.steps += 1
        time.sleep(session.stage.pause)

    session.skip = skip
    victim = SimpleNamespace(mean=torch.zeros(1))
    attack = SimpleNamespace(session=session, victim=victim, plan={"z": 20, "x": 30}, advance=advance)
    assert 0.8 <= seconds_of(attack) < 1.6
    assert session.steps == 2 * (1 + estimate.TRIED)


@pytest.fixture
def config(tmp_path):
    random = np.random.default_rng(0)
    for place in range(4):
        (tmp_path / "test" / "ab"[place % 2]).mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 255, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "test" / "ab"[place % 2] / f"{place}.png")
    options = {"data": f"folder:{tmp_path}", "size": 16, "victim": "fcn:8", "attack": "ig"}
    return Config(**{**PLAIN, **options})


@pytest.fixture
def probe(config):
    return Probe(config, ["none", "sign"], config.make_data())


def test_an_attack_is_measured_under_its_defenses_and_left_out_under_others(probe):
    attempt, cost = measured(probe, "ig")
    assert (attempt.attack, [*attempt.under]) == ("ig", ["none", "sign"])
    assert attempt.under["none"].steps == read_tuned(read("cifar10-b1"), "ig").options["steps"]
    assert cost.search > 0 < cost.task
    spear, closed = measured(probe, "spear")
    assert (spear.steps, spear.under, closed.search) == (0, {"none": Under(1.0, 0, 1)}, 0)
    assert [(attack, under) for attack, under, _ in probe.refused] == [("spear", "sign")]
    with pytest.raises(InputError, match="did you mean 'ig'"):
        measured(probe, "igg")


class Breaking(IG):
    """It breaks when its search begins."""

    name = f"{__name__}.Breaking"

    def search(self):
        raise ValueError("it\nbroke")


class Lost(Breaking):
    name = f"{__name__}.Lost"

    def search(self):
        raise OSError(28, "full")


def test_an_attack_that_breaks_is_left_out_with_its_reason(probe):
    assert measured(probe, Breaking.name) is None
    assert probe.refused == [(Breaking.name, defense, "broken: ValueError: it broke") for defense in ("none", "sign")]
    with pytest.raises(OSError, match="full"):
        measured(probe, Lost.name)


def test_every_defense_is_timed_as_some_take_longer_to_estimate(probe, monkeypatch):
    seconds = iter((1.0, 3.0))
    monkeypatch.setattr(estimate, "seconds_of", lambda attack: next(seconds))
    attempt, cost = measured(probe, "ig")
    assert {defense: how.share for defense, how in attempt.under.items()} == {"none": 0.25, "sign": 0.75}
    assert cost.search == 2 * (1.0 + 3.0)  # with the controls
    assert replace(attempt, seconds=8.0).seconds_under == {"none": 2.0, "sign": 6.0}


@pytest.mark.parametrize("order", [["none", "quantization:16"], ["quantization:16", "none"]])
def test_every_defense_is_attacked_with_the_options_that_were_tuned_nearest_to_it(config, order):
    probe = Probe(config, order, config.make_data())
    attempt, _ = measured(probe, "ci_net")
    tracks = {"none": "cifar10-b1", "quantization:16": "cifar10-defended-quantization"}
    assert {defense: how.tuned_on for defense, how in attempt.under.items()} == tracks
    jobs = {job.config.defense: job.config for job in jobs_of(Plan(1, 1, 9.0, [attempt], []), probe)}
    for defense, track in tracks.items():
        options = read_tuned(read(track), "ci_net").options
        assert (jobs[defense].restarts, jobs[defense].steps) == (options["restarts"], options["steps"])
        assert f"eta={options['eta']}" in jobs[defense].set


def test_steps_grow_in_proportion_and_their_shares_of_the_time_with_them():
    """From 100 and 4000 steps to the fivefold and to the most: 4 x 5 and 12 x 1.2 of 16 s."""
    attempt = Attempt("a", {"none": Under(0.25, 100, 1), "sign": Under(0.75, 4000, 1)}, 0.0)
    found = with_steps(attempt, Cost(2.0, 0.0, 16.0), 1, 5)
    assert {defense: how.steps for defense, how in found.under.items()} == {"none": 500, "sign": module.MOST}
    assert found.seconds == pytest.approx(2 + 20 + 14.4)
    assert found.under["none"].share == pytest.approx(20 / 34.4)
    assert sum(found.seconds_under.values()) == pytest.approx(found.seconds)


def test_under_each_defense_labels_are_read_by_the_first_method_that_works_there(config):
    probe = Probe(config, ["sign", "none", "noise:1"], config.make_data(), know_labels=False)
    probe.readers = {"sign": [], "none": ["alr", "ilrg"], "noise:1": ["ilrg"]}
    assert [probe.under(defense).labels for defense in probe.defenses] == ["none", "alr", "ilrg"]


def test_a_label_method_that_breaks_is_left_out_with_its_reason(config, monkeypatch):
    def broken(observation):
        raise ValueError("it broke")

    find = estimate.find_labels
    monkeypatch.setattr(estimate, "find_labels", lambda name: broken if name == "alr" else find(name))
    probe = Probe(config, ["none"], config.make_data())
    assert "alr" not in probe.readers["none"]
    ((defense, why),) = ((defense, why) for name, defense, why in probe.refused if name == "alr")
    assert (defense, why.partition(" (")[0]) == ("none", "broken: ValueError: it broke")


def test_labels_are_read_first_and_for_an_attacker_who_is_not_given_them(config):
    probe = Probe(config, ["none", "sign"], config.make_data(), know_labels=False)
    assert [probe.under(defense).labels for defense in probe.defenses] == [probe.readers["none"][0], "ilrg"]
    assert probe.readers["none"][0] == "ilrg"
    found = make_plan(probe, ["spear"], 9, lambda: 0.0, 1, 1)
    assert [attempt.attack for attempt in found.attempts] == [LABELS, "spear"]
    observation = probe.observe(probe.under("none"))
    assert observation.knowledge.labels is None


def test_no_private_image_can_be_reached_from_what_the_plan_is_measured_on(probe, monkeypatch):
    kept = []
    monkeypatch.setattr(estimate, "seconds_of", lambda attack: kept.append(attack) or seconds_of(attack))
    measured(probe, "ig")
    attack, _ = kept
    victim = attack.victim
    numbers = (victim.mean.flatten().tolist(), victim.std.flatten().tolist())
    items = reachable(attack, attack.session, *probe.seen.values())
    assert len(items) > 100
    assert not [found for image, _ in probe.data for found in shown(items, image, *numbers)]
