"""Verdicts of an audit: the scale, the controls, and the gate."""

import math

import pytest

from benchmark.audit.report import images_of, in_words, of_defenses
from benchmark.audit.verdicts import (
    EXACT,
    NOT_JUDGED,
    NOT_REBUILT,
    ORDER,
    PARTLY,
    RECOGNISABLE,
    STEP,
    Control,
    Shown,
    fails,
    verdict,
    worst,
)


def scores(psnr, ssim, iip=0.0, control="none", **more):
    plain = {"status": "ok", "degenerate": False, "label": 0, "task": "t", "restarts": 2, "steps": 400}
    plain |= {"gradient_evaluations": 800, "seconds": 30.0}
    return {"psnr": psnr, "ssim": ssim, "iip": iip, "control": control} | plain | more


def unlike(*_):
    return False


def shown(attack, psnr, ssim, iip=0.0, control="none", **more):
    return Shown(attack, scores(psnr, ssim, iip, control, **more), b"")


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (scores(48.2, 0.99, 1), EXACT),
        (scores(48.1, 0.99, 1), RECOGNISABLE),
        (scores(48.2, 0.99, 0), PARTLY),
        (scores(20, 0.7, 1), RECOGNISABLE),
        (scores(20, 0.7, 0), PARTLY),  # another image is nearer, but it is much closer than a control
        (scores(14.9, 0.7, 1), PARTLY),  # not 3 dB above
        (scores(20, 0.45, 1), PARTLY),
        (scores(13.1, 0.3, 1), PARTLY),
        (scores(12.9, 0.3, 1), NOT_REBUILT),  # not 1 dB above, SSIM not .1 above
        (scores(12.1, 0.41, 0), PARTLY),
        (scores(11.9, 0.41, 0), NOT_REBUILT),
        (scores(12, 0.3, 1), NOT_REBUILT),  # the control itself
    ],
)
def test_a_verdict_rests_on_the_best_control(row, expected):
    assert verdict(row, Control(12, 0.3, 0.5)) == expected


@pytest.mark.parametrize(
    ("psnr", "lpips", "control", "looks_like_it", "expected"),
    [
        (9, 0.34, 0.5, True, PARTLY),
        (9, 0.36, 0.5, True, NOT_REBUILT),  # not .15 below
        (7.9, 0.34, 0.5, True, NOT_REBUILT),  # not 1 dB above what the attack makes of another update
        (9, 0.1, 0.5, False, NOT_REBUILT),  # it looks like another image too
        (9, None, 0.5, True, NOT_REBUILT),  # images too small for it
        (9, 0.1, None, True, NOT_REBUILT),
    ],
)
def test_shapes_in_wrong_colors_are_seen_by_lpips(psnr, lpips, control, looks_like_it, expected):
    results = [shown("a", psnr, 0.1, lpips=lpips), shown("a", 7, 0.1, 0, "shuffled_update", lpips=control)]
    found = worst(results, scores(12, 0.3, lpips=control), lambda picture: looks_like_it)
    assert (found.verdict, found.by_looks) == (expected, expected == PARTLY)


def test_exact_is_one_step_of_eight_bits():
    """A root mean square error of 1/255 is a PSNR of -10 log10 (1/255)^2."""
    assert pytest.approx(-10 * math.log10((1 / 255) ** 2)) == STEP


def test_the_worst_attack_counts_and_a_control_is_no_attack():
    results = [
        shown("weak", 13, 0.2),
        shown("strong", 20, 0.8, 1),
        shown("stronger", 22, 0.6, 1),
        shown("blurred", 30, 0.2),
        shown("stronger", 8, 0.1, 0, "shuffled_update"),
    ]
    found = worst(results, scores(12, 0.1), unlike)
    assert (found.verdict, found.best.attack, found.control) == (RECOGNISABLE, "stronger", Control(12, 0.1, None))
    copied = [*results, shown("lucky", 40, 1.0, 1, "shuffled_update")]
    assert worst(copied, scores(12, 0.1), unlike).verdict == NOT_REBUILT


def test_every_attack_is_looked_at_by_its_own_picture():
    results = [Shown("a", scores(11, 0.1, lpips=0.1), b"a"), Shown("b", scores(10, 0.1, lpips=0.1), b"b")]
    results += [Shown(name, scores(9, 0.1, control="shuffled_update", lpips=0.3), b"") for name in "ab"]
    found = worst(results, scores(12, 0.1, lpips=0.7), lambda picture: picture == b"b")
    assert (found.verdict, found.best.attack, found.control.lpips) == (PARTLY, "b", 0.3)
    assert "to LPIPS it looks more like this image" in in_words(found, [])


@pytest.mark.parametrize("image", [{"degenerate": True}, {"status": "diverged"}])
def test_what_no_attack_can_show_is_not_judged(image):
    results = [shown("one", 20, 0.8, 1, **image), shown("two", 40, 0.9, 1, **image)]
    found = worst(results, scores(12, 0.1), unlike)
    assert (found.verdict, found.best.attack) == (NOT_JUDGED, "two")


def test_one_attack_that_diverged_leaves_the_verdict_to_the_others():
    results = [shown("one", 0, 0, status="diverged"), shown("two", 20, 0.8, 1)]
    assert worst(results, scores(12, 0.1), unlike).verdict == RECOGNISABLE


@pytest.mark.parametrize(
    ("fail_on", "failing"),
    [
        ("never", set()),
        ("exact", {EXACT}),
        ("recognisable", {EXACT, RECOGNISABLE}),
        ("partly", {EXACT, RECOGNISABLE, PARTLY}),
    ],
)
def test_the_gate_fails_from_its_verdict_on(fail_on, failing):
    assert {each for each in ORDER if fails(each, fail_on)} == failing


def pair(attack, psnr, ssim, iip, **more):
    return [shown(attack, psnr, ssim, iip, **more), shown(attack, 9, 0.05, 0, "shuffled_update", **more)]


def test_a_verdict_says_what_it_rests_on():
    results = {
        ("none", "a"): [*pair("ig", 20, 0.7, 1), *pair("rgap", 10, 0.1, 0)],
        ("none", "b"): pair("ig", 9, 0.1, 0),
        ("none", "c"): pair("ig", 9, 0.1, 0, degenerate=True),
        ("none", "d"): pair("spear", 60, 1.0, 1, certified=True),
    }
    idle = {image: {"psnr": 12.0, "ssim": 0.1} for image in "abcd"}
    a, b, c, d = images_of(results, idle, ["cat"], "recognisable", unlike)
    assert (a["verdict"], b["verdict"], c["verdict"], d["verdict"]) == (RECOGNISABLE, NOT_REBUILT, NOT_JUDGED, EXACT)
    assert [image["fails"] for image in (a, b, c, d)] == [True, False, False, True]
    assert a["says"] == (
        "Recognisable: rebuilt by ig with 20.0 dB and SSIM 0.70; the best control, made without this image's update, "
        "has 12.0 dB and SSIM 0.10."
    )
    assert b["says"].startswith("Not rebuilt within 800 victim gradients and 30 s: ig (2 starts, 800). The nearest is")
    assert c["says"] == "Not judged: it is of almost one color, which any flat picture matches."
    assert "SSIM 1.00, and the attacker knows that it is right; the best" in d["says"]
    assert (a["gradient_evaluations"], a["seconds"]) == (1600, 60.0)
    assert a["attacks"][1] | {"attack": "rgap", "psnr": 10, "control_psnr": 9} == a["attacks"][1]


def test_a_share_has_the_interval_of_its_updates():
    """3 of 3 updates: Clopper and Pearson's lower end is 0.025^(1/3)."""
    idle = {image: {"psnr": 12.0, "ssim": 0.1} for image in "abcd"}
    results = {("none", image): pair("ig", 20, 0.7, 1, task=image) for image in "abc"}
    results["none", "d"] = pair("ig", 20, 0.7, 1, degenerate=True)
    (none,) = of_defenses(images_of(results, idle, ["cat"], "recognisable", unlike))
    assert none["recognisable"] == {"share": 1.0, "low": pytest.approx(0.025 ** (1 / 3)), "high": 1.0}
    assert (none["n"], none["failures"], none["verdicts"][NOT_JUDGED]) == (4, 3, 1)
    one = of_defenses(images_of({("none", "a"): pair("ig", 20, 0.7, 1)}, idle, ["cat"], "never", unlike))[0]
    assert one["recognisable"] == {"share": 1.0, "low": None, "high": None}
