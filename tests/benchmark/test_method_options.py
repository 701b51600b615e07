import pytest

from attacks.ig import IG
from benchmark.config import Config
from benchmark.method_options import of_preset, on_top, options_of
from benchmark.registry import parse, registered
from benchmark.tracks.track import DEFAULT
from victims.errors import InputError


def test_a_preset_that_does_not_exist_is_refused_with_those_that_do():
    assert of_preset(IG, "ig", "default", DEFAULT) == {}
    with pytest.raises(InputError, match=r"ig has no preset 'codee'; did you mean 'code'.*it has default, .*, tuned"):
        of_preset(IG, "ig", "codee", DEFAULT)


def test_steps_of_a_stage_replace_tuned_steps_in_total():
    tuned = {"steps": 200, "eta": 0.1}
    assert on_top(tuned, {"eta": 0.2}) == {"steps": 200, "eta": 0.2}
    assert on_top(tuned, {"steps_x": 7}) == {"eta": 0.1, "steps_x": 7}


@pytest.mark.parametrize("name", registered("attack"))
def test_every_option_of_every_attack_can_be_given_as_text(name):
    method = registered("attack")[name]
    for option in options_of(method).values():
        parsed = parse(option, str(option.default), name)
        assert parsed == option.default
        assert type(parsed) is type(option.default)


def test_single_options_are_refused_by_what_is_wrong_with_them():
    with pytest.raises(InputError, match="no option 'eto'; did you mean 'eta'"):
        Config(attack="ig", set=["eto=1"]).make_attack()
    with pytest.raises(InputError, match="'tv' is no KEY=VALUE"):
        Config(attack="ig", set=["tv", "=", "1"]).make_attack()
