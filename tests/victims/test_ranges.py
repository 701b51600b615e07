"""Options that mean nothing are refused, in one line, before a run begins; of every attack in the folder."""

import math

import pytest

from attacks.giml import GIML
from benchmark.registry import parameters_of, parse, registered
from priors.base import Denoiser, Generator
from victims.errors import InputError

ATTACKS = {**registered("attack"), "giml": GIML}
NUMBERS = [(a, n) for a, m in ATTACKS.items() for n, p in parameters_of(m).items() if p.annotation in (float, int)]
ZERO = {"seed", "layers", "group_from", "median_every", "eta_d"}  # counts that may be 0, and a part of the way
# 0 leaves the stage out
LEFT_OUT = {("rgap_g", "steps_z"), ("rgap_g", "steps_w"), ("gi_nas", "steps_g"), ("cocktail_party_fi", "steps_z")}
ABOVE = {"sigma", "decay", "alpha_grad", "alpha", "beta", "ball", "T", "sigma_end"}  # and learning rates and counts
WEIGHTS = {  # which leave their part out at 0
    "tv", "alpha_tv", "alpha_l2", "alpha_bn", "alpha_kl", "lambda_w", "l2", "l1", "fi", "ne", "decor", "nv",
    "noise", "compress", "first_bn", "alpha_group", "lam",
}  # fmt: skip
COVARIANCE = [(name, "population") for name in ("ggl", "igims", "igims_adam")]


@pytest.fixture
def priors(small_prior, small_denoiser):
    """By their kinds."""
    return {Generator: small_prior, Denoiser: small_denoiser}


def make(attack, options, priors):
    method = ATTACKS[attack]
    given = (priors[Generator],) if method is GIML else ()
    needed = {"prior": priors[method.takes]} if "prior" in getattr(method, "needs", ()) else {}
    return method(*given, **options, **needed)


def refused(attack, option, value, priors):
    named = r"\w+" if option.startswith("steps_") else option  # a stage's name
    with pytest.raises(InputError, match=rf"^{named} is {value:g}; give ") as refusal:
        make(attack, {option: value}, priors)
    assert "\n" not in str(refusal.value)


def is_count(attack, option):
    return parameters_of(ATTACKS[attack])[option].annotation is int


def test_there_are_numbers_to_refuse():
    assert {("ggl", "eta"), ("gias", "eta_w"), ("dlg", "eta"), ("giml", "beta"), ("gi", "refresh")} <= set(NUMBERS)


@pytest.mark.parametrize(("attack", "option"), [pair for pair in NUMBERS if pair[1] != "seed"])
def test_no_number_is_negative(attack, option, priors):
    refused(attack, option, -3, priors)


def may_be_zero(attack, option):
    return option in ZERO | WEIGHTS or (attack, option) in LEFT_OUT


@pytest.mark.parametrize(("attack", "option"), NUMBERS)
def test_every_number_may_be_zero_or_is_refused(attack, option, priors):
    if may_be_zero(attack, option):
        make(attack, {option: 0}, priors)
    else:
        assert is_count(attack, option) or option.startswith("eta") or option in ABOVE, "neither list has it"
        refused(attack, option, 0, priors)


@pytest.mark.parametrize(("attack", "option"), NUMBERS)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_all_are_finite(attack, option, value, priors):
    if not is_count(attack, option):
        refused(attack, option, value, priors)


@pytest.mark.parametrize(("attack", "option"), COVARIANCE)
@pytest.mark.parametrize("value", [1, 2])
def test_a_population_can_adapt_its_step_size(attack, option, value, priors):
    refused(attack, option, value, priors)


@pytest.mark.parametrize(
    ("attack", "options", "expected"),
    [
        ("ig", {"steps_x": 300.5}, "steps_x is a whole number, not 300.5"),
        ("gi", {"refresh": 1.5}, "refresh is a whole number, not 1.5"),
        ("ig", {"steps": 9.0}, "steps is a whole number, not 9.0"),
        ("ig", {"seed": True}, "seed is a whole number, not True"),
        ("pnp", {"eta": "high"}, "eta is a number, not 'high'"),
        ("ig", {"cost": "l2"}, "cost is one of cosine, squared_l2, not 'l2'"),
        ("gifd", {"variant": "zz"}, "variant is one of full, e, f, z, not 'zz'"),
        ("ggl", {"optimizer": "sgd"}, "optimizer is one of cma, nevergrad, adam, not 'sgd'"),
        ("pnp", {"match": "xx"}, "match is one of aga, fa, sme, not 'xx'"),
        ("dlg", {"compile": "maybe"}, "compile is one of auto, on, off, not 'maybe'"),
    ],
)
def test_an_option_of_another_type_is_refused_where_an_attack_is_made(attack, options, expected):
    with pytest.raises(InputError, match=f"^{attack} option {expected}.$"):
        ATTACKS[attack](**options)


def test_what_an_option_takes_is_said_by_the_class_nearest_to_the_attack():
    class Unannotated(ATTACKS["ig"]):
        def __init__(self, *, eta="low", **common):
            super().__init__(**common)

    assert Unannotated(eta="high", steps=None).plan == {"x": 600}


@pytest.mark.parametrize("text", ["abc", "0", "-5,3", "nan", "2000,inf", "1,,2"])
def test_radii_are_numbers_with_commas(text):
    radii = parameters_of(ATTACKS["gifd"])["radii"]
    with pytest.raises(InputError) as refusal:
        parse(radii, text, "gifd")
    assert str(refusal.value) == (
        f"gifd radii: give numbers above 0 with commas between them, such as 2000,2500, not '{text}'."
    )
    assert parse(radii, "2000,2500", "gifd") == (2000, 2500)
