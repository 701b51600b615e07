"""What an audit found, as `audit.json` has it; the page and the JUnit file are made of this alone."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from benchmark.audit.estimate import Attempt
from benchmark.audit.plan import Plan, in_order
from benchmark.audit.verdicts import (
    EXACT,
    NOT_JUDGED,
    NOT_REBUILT,
    ORDER,
    PARTLY,
    RECOGNISABLE,
    SCALE,
    FailOn,
    Found,
    Shown,
    fails,
    worst,
)
from leaderboard.rows import FlatRow
from leaderboard.sentences import count
from leaderboard.statistics import clustered_interval
from victims.data.base import some
from victims.errors import without_options

SCHEMA_VERSION = 1
"""Raised where a reader of `audit.json` would misread it; `audit.schema.json` describes this version."""

Results = Mapping[tuple[str, str], Sequence[Shown]]
"""By defense and image: of every attack, and of its control."""

Scores = Mapping[str, float | None]


def images_of(
    results: Results,
    idle: Mapping[str, Scores],
    classes: Sequence[str],
    fail_on: FailOn,
    looks_like: Callable[[str, bytes], bool],
) -> list[dict[str, Any]]:
    """The verdict on every image under every defense, and what it rests on.

    Args:
        idle: by image, scores of the mean of all others.
        classes: names of labels.
        looks_like: whether LPIPS finds a picture (PNG) nearer to an image than to others.
    """
    images = []
    for (defense, image), shown in results.items():
        found = worst(shown, idle[image], partial(looks_like, image))
        of_attacks = [of_attack(r, shown) for r in shown if not r.is_control]
        row = found.best.row
        images.append(
            {
                "image": image,
                "label": classes[row["label"]],
                "task": row["task"],
                "defense": defense,
                "verdict": found.verdict,
                "fails": fails(found.verdict, fail_on),
                "says": in_words(found, of_attacks),
                "attack": found.best.attack,
                "psnr": row["psnr"],
                "ssim": row["ssim"],
                "lpips": row.get("lpips"),
                "nearest_of_the_folder": row["iip"] == 1,
                "certified": row.get("certified"),
                "control_psnr": found.control.psnr,
                "control_ssim": found.control.ssim,
                "control_lpips": found.control.lpips,
                "mean_of_others": {metric: idle[image].get(metric) for metric in ("psnr", "ssim", "lpips")},
                "attacks": of_attacks,
                "gradient_evaluations": sum(each["gradient_evaluations"] for each in of_attacks),
                "seconds": round(sum(each["seconds"] for each in of_attacks), 3),
            }
        )
    return images


def of_attack(result: Shown, shown: Sequence[Shown]) -> dict[str, Any]:
    """The scores of an attack on an image beside those of its control, the same attack on other images' update."""
    row = result.row
    control = next(other.row for other in shown if other.is_control and other.attack == result.attack)
    return {
        "attack": result.attack,
        "status": row["status"],
        **{metric: row.get(metric) for metric in ("psnr", "ssim", "lpips")},
        "control_psnr": control["psnr"],
        "control_ssim": control["ssim"],
        "control_lpips": control.get("lpips"),
        **{key: row[key] for key in ("restarts", "steps", "gradient_evaluations", "seconds")},
    }


def in_words(found: Found, attacks: Sequence[Mapping[str, Any]]) -> str:
    """A verdict, and what it rests on, in one or two sentences."""
    row, by = found.best.row, found.best.attack
    has = scores(row["psnr"], row["ssim"], row.get("lpips"))
    without = f"the best control, made without this image's update, has {scores(*found.control)}"
    known = ", and the attacker knows that it is right" if row.get("certified") else ""
    if found.by_looks:
        looks = "to LPIPS it looks more like this image than like others of the folder"
        return f"Partly rebuilt by {by}: {looks}, with {has}; {without}."
    if found.verdict in (EXACT, RECOGNISABLE, PARTLY):
        how = {EXACT: "Rebuilt exactly", RECOGNISABLE: "Recognisable: rebuilt", PARTLY: "Partly rebuilt"}
        return f"{how[found.verdict]} by {by} with {has}{known}; {without}."
    if found.verdict == NOT_REBUILT:
        return f"Not rebuilt within {effort(attacks)}. The nearest is that of {by} with {has}; {without}."
    why = "it is of almost one color, which any flat picture matches" if row["degenerate"] else "every attack diverged"
    return f"Not judged: {why}."


def scores(psnr: float, ssim: float, lpips: float | None) -> str:
    least = f"{psnr:.1f} dB and SSIM {ssim:.2f}"
    return least if lpips is None else f"{psnr:.1f} dB, SSIM {ssim:.2f} and LPIPS {lpips:.2f}"


def effort(attacks: Sequence[Mapping[str, Any]]) -> str:
    """Victim gradients, starts and minutes of all attacks on an image together, in words."""
    each = [f"{a['attack']} ({count(a['restarts'], 'start')}, {a['gradient_evaluations']})" for a in attacks]
    total, seconds = sum(a["gradient_evaluations"] for a in attacks), sum(a["seconds"] for a in attacks)
    return f"{count(total, 'victim gradient')} and {duration(seconds)}: {', '.join(each)}"


def duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


def of_defenses(images: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For every defense how many images have which verdict, and the share that is recognisable or worse.

    Its interval is over tasks, for the images of one update are rebuilt together.
    """
    found = []
    for defense in dict.fromkeys(image["defense"] for image in images):
        own = [image for image in images if image["defense"] == defense]
        counts = Counter(image["verdict"] for image in own)
        judged = [image for image in own if image["verdict"] != NOT_JUDGED]
        share: dict[str, float | None] = dict.fromkeys(("share", "low", "high"))
        if judged:
            leaks = [float(fails(image["verdict"], RECOGNISABLE)) for image in judged]
            score = clustered_interval(leaks, [image["task"] for image in judged], (0, 1))
            ends = {"low": score.low, "high": score.high}
            share = {"share": score.mean, **{name: None if math.isnan(end) else end for name, end in ends.items()}}
        found.append(
            {
                "defense": defense,
                "n": len(own),
                "verdicts": {verdict: counts[verdict] for verdict in ORDER},
                "recognisable": share,
                "failures": sum(image["fails"] for image in own),
            }
        )
    return found


def gate_of(images: Sequence[Mapping[str, Any]], defenses: Sequence[str], fail_on: FailOn) -> dict[str, Any]:
    """Whether the gate is passed: no judged image fails, and under every defense there is one."""
    found = {image["defense"] for image in images if image["verdict"] != NOT_JUDGED}
    missing = [defense for defense in defenses if defense not in found]
    failures = sum(image["fails"] for image in images)
    judged = sum(image["verdict"] != NOT_JUDGED for image in images)
    passed = not (failures or missing)
    return {"fail_on": fail_on, "passed": passed, "failures": failures, "judged": judged, "not_judged": missing}


def of_labels(rows: Sequence[FlatRow]) -> list[dict[str, Any]]:
    """What each label method found, by defense: the mean share of the batch's labels, and of its classes."""
    found = []
    for defense, method in dict.fromkeys((row["defense"], row["label_method"]) for row in rows):
        own = [row for row in rows if (row["defense"], row["label_method"]) == (defense, method)]
        means = {name: sum(row[name] for row in own) / len(own) for name in ("counts", "existence")}
        found.append({"defense": defense, "method": method, "n": len(own), **means})
    return found


def of_plan(plan: Plan, took: Mapping[tuple[str, str], float]) -> list[dict[str, Any]]:
    """Every attack of the plan under each of its defenses: how it was run, the time estimated and the time taken.

    Args:
        took: seconds by attack and defense, with the control; none where it was not done.
    """

    def line(attempt: Attempt, defense: str, seconds: float) -> dict[str, Any]:
        return {
            "attack": attempt.attack,
            "defense": defense,
            "tuned_on": attempt.under[defense].tuned_on,
            "restarts": attempt.under[defense].restarts,
            "steps": attempt.under[defense].steps,
            "estimated_seconds": round(seconds, 1),
            "seconds": round(took[attempt.attack, defense], 1) if (attempt.attack, defense) in took else None,
        }

    return [line(attempt, *each) for attempt in plan.attempts for each in attempt.seconds_under.items()]


def not_tried(
    left_out: Iterable[tuple[str, str, str]], named: Sequence[str], defenses: Sequence[str]
) -> list[dict[str, str]]:
    """Every attack that was left out, under which defenses, and the reason; also those that were not asked for.

    Without the fix where it names options, which may be those of another command.

    Args:
        named: attacks that were asked for.
    """
    rest = [(name, "", "not asked for") for name in in_order("auto") if name not in named]
    under: dict[tuple[str, str], list[str]] = {}
    for attack, defense, why in (*left_out, *rest):
        under.setdefault((attack, without_options(why)), []).append(defense)
    return [
        {"attack": attack, "defense": ", ".join(found) if set(found) < set(defenses) else "", "reason": reason}
        for (attack, reason), found in under.items()
    ]


def noticed(notices: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """What the runs warned of, every sentence once; of what was said of tasks it names their images."""
    images: dict[str, list[str]] = {}
    for task, image in dict.fromkeys((row["task"], row["image"]) for row in rows):
        images.setdefault(task, []).append(image)
    of: dict[str, list[str]] = {}
    for notice in sorted(set(notices)):
        task, _, sentence = notice.partition(": ")
        own = task in images
        of.setdefault(sentence if own else notice, []).extend(images[task] if own else [])
    return [f"{some(named)}: {sentence}" if named else sentence for sentence, named in of.items()]


def scale() -> list[dict[str, str]]:
    return [{"verdict": name, "rule": level.rule, "source": level.source} for name, level in SCALE.items()]
