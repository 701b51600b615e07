import inspect
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import pytest
import yaml

from attacks.ig import IG
from benchmark.command_line import normalized
from benchmark.config import Config
from benchmark.names import known, require
from benchmark.registry import find, open_defense, parse
from benchmark.tracks.entry import methods
from priors.dcgan import DCGAN
from tests.benchmark.tracks.conftest import GOOD
from victims.errors import InputError, Notice


def test_the_same_options_mean_the_same_folder_and_others_another():
    there = ["squeeze", "alex"]
    folder = Config().folder(there)
    assert Config(devices=2, out=Path("elsewhere"), wandb="off", tasks=9).folder(there).name == folder.name
    assert Config(lpips="vgg,squeeze").folder(there).name == Config(lpips="squeeze,vgg").folder(there[::-1]).name
    others = [Config(steps=3), Config(seed=1), Config(set=["tv=1"]), Config(restarts=2), Config(defense="none")]
    others.append(Config(lpips="squeeze,alex"))
    names = {folder.name, Config().folder([]).name, *(other.folder(there).name for other in others)}
    assert len(names) == 2 + len(others)


@pytest.mark.parametrize("attack", known("attack"))
def test_a_run_with_default_options_makes_every_attack(attack):
    config = Config(attack=attack, preset="default")
    if config.prior or "prior" not in find("attack", attack).needs:
        assert isinstance(config.make_attack(), find("attack", attack))
    else:  # nothing is shipped of its kind, or it needs another setting
        with pytest.raises(InputError, match=r"--prior|--batches distinct"):
            config.make_attack()


def test_preset_then_single_options_then_what_every_attack_takes():
    assert Config(attack="ig", preset="code").make_attack().plan == {"x": 4800}
    attack = Config(attack="ig", preset="paper-imagenet", set=["tv=0.5", "boxed=no"], steps=7).make_attack()
    assert (attack.tv, attack.boxed, attack.plan, attack.restarts) == (0.5, False, {"x": 7}, 8)
    assert Config(attack="ig", preset="paper-imagenet", restarts=2).make_attack().restarts == 2


def test_a_preset_of_a_prior_that_is_not_shipped_takes_no_other_by_default(tmp_path):
    with pytest.raises(InputError, match=r"not shipped; train it \(prior train-inverter --width 3000 --hashed 0\)"):
        Config(attack="lti", preset="paper")
    assert Config(attack="lti", preset="paper", prior="mine.safetensors").prior == "mine.safetensors"
    assert Config(attack="lti", preset="default").prior == "lti-photos32"
    track = tmp_path / "mine.yaml"
    track.write_text(yaml.safe_dump(GOOD | {"priors": {"inverter": "mine.safetensors"}}))
    assert Config(attack="lti", preset="paper", track=str(track)).prior == "mine.safetensors"


def test_a_run_tells_that_the_classes_of_its_prior_are_others():
    config = Config(attack="gias", prior="dcgan-cifar10-conditional", preset="default")
    with pytest.warns(Notice, match="class 0 is airplane to the prior and astronaut here; choose another"):
        config.make_attack()


def test_what_set_changes_is_measured_against_the_preset():
    default = Config(attack="ig", preset="default", set=["tv=1e-4", "boxed=no", "eta=0.10"])
    assert default.changes(IG) == {"boxed": "no"}
    changes = Config(attack="ig", preset="code", set=["steps_x=600", "eta=1"]).changes(IG)
    assert changes == {"steps_x": "600", "eta": "1"}


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999"])
def test_numbers_that_are_none_are_refused_in_one_line(value):
    with pytest.raises(InputError, match=f"ig option tv is a finite number, not '{value}'"):
        Config(attack="ig", set=[f"tv={value}"]).make_attack()
    with pytest.raises(InputError, match=f"defense noise std is a finite number, not '{value}'"):
        open_defense(f"noise:{value}")


def test_a_value_of_the_wrong_type_says_what_was_expected():
    def f(a: float, b: Literal["x", "y"], c: bool) -> None: ...

    a, b, c = inspect.signature(f).parameters.values()
    for parameter, text, expected in ((a, "much", "float"), (b, "z", "x, y"), (c, "maybe", "bool")):
        with pytest.raises(InputError, match=expected):
            parse(parameter, text, "option")


def test_annotations_may_be_text_optional_or_missing(tmp_path, monkeypatch):
    (tmp_path / "modest.py").write_text(
        "from __future__ import annotations\n"
        "from defenses.sparsification import Sparsification\n\n\n"
        "class Modest(Sparsification):\n"
        "    def __init__(self, rate: float, most: float | None = None, name='x', count=3) -> None:\n"
        "        super().__init__(rate)\n        self.found = most, name, count\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert open_defense("modest.Modest:0.5").found == (None, "x", 3)
    assert open_defense("modest.Modest:0.5:0.25:y:4").found == (0.25, "y", 4)
    assert open_defense("modest.Modest:0.5:none:y:4").found == (None, "y", 4)
    with pytest.raises(InputError, match="most is a float, not 'much'"):
        open_defense("modest.Modest:0.5:much")


def test_no_single_option_is_none():
    assert normalized(["--set", ""]) == normalized(["--set="]) == ["--set=[]"]
    with pytest.raises(InputError, match="--set takes KEY=VALUE"):
        normalized(["--set", "--seed=1"])


def test_a_prior_by_dotted_path():
    prior = Config(prior="priors.dcgan.DCGAN").make_prior()
    assert isinstance(prior, DCGAN)
    assert not prior.training


def test_rows_that_a_longer_run_left_are_not_those_of_the_run():
    left = SimpleNamespace(read_rows=lambda: ([*range(9)], []))
    assert Config(tasks=2, batch=3).own_rows(left) == [*range(6)]


def test_methods_and_networks_are_named_with_or_without_blanks_between_them():
    assert Config(lpips="vgg, squeeze").folder([]).name == Config(lpips="squeeze,vgg").folder([]).name
    assert methods("ig, gias") == ["ig", "gias"]


def test_of_a_track_a_file_is_offered_and_no_dotted_path():
    with pytest.raises(InputError, match=r"did you mean 'photos-default'.*, or a \.yaml file\.$"):
        require("track", "photos-defaults")
