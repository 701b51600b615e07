"""`python -m benchmark audit`: what leaks from your own model on your own images."""

import json
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmark.audit.estimate import LABELS, Attempt, Probe, Under
from benchmark.audit.junit import junit
from benchmark.audit.looks import Looks
from benchmark.audit.others import NEAR_COPY_DB, Others, copies_aside, others_of
from benchmark.audit.page import Pictures, page
from benchmark.audit.plan import Plan, different, in_order, make_plan
from benchmark.audit.report import (
    SCHEMA_VERSION,
    duration,
    gate_of,
    images_of,
    not_tried,
    noticed,
    of_defenses,
    of_labels,
    of_plan,
    scale,
)
from benchmark.audit.subject import Subject
from benchmark.audit.tables import arrange
from benchmark.audit.verdicts import FailOn, Shown
from benchmark.audit.work import NO_LIST, Done, Job, jobs_of, results_of, work
from benchmark.code_version import code_version
from benchmark.config import Config
from benchmark.device import places, reproducible
from benchmark.launch.lock import alone, writable
from benchmark.names import known
from benchmark.run_options import with_options
from benchmark.scoring.lpips import Lpips
from benchmark.scoring.picture import png
from leaderboard.files import write_atomically
from leaderboard.options import Options
from leaderboard.sentences import count
from victims.by_name import LIBRARIES
from victims.choices import Compile
from victims.errors import InputError, Notice
from victims.ranges import above_zero, at_least

DECIDED = ("data", "split", "victim", "batches", "rounds", "between", "adapt", "surrogate", "epochs_trained")
"""Options of a run that an audit does not leave open."""

FILES = {"page": "audit.html", "data": "audit.json", "junit": "junit.xml"}


@with_options("setting", "knowledge", also=("weights_dir", "chunk"), but=DECIDED)
def audit(
    *,
    model: str,
    images: Path,
    labels: Path | None = None,
    classes: str | None = None,
    defense: str = "none",
    attacks: str = "auto",
    minutes: float = 30,
    fail_on: FailOn = "never",
    know_labels: bool = True,
    victim_weights: str = Options.victim_weights,
    batch: int = 1,
    most: int = 8,
    seed: int = Options.seed,
    processes: int | None = None,
    compile: Compile = "off",
    out: Path = Path("audit"),
    **options: Any,
) -> int:
    """What leaks of your own images through the updates of your own model: a page, `audit.json` and `junit.xml`.

    The attacks that fit the setting share a time budget, the cheapest decisive ones first: labels read from the update,
    closed forms, then searches. Each adapts to every defense, and is compared with reconstructions that were made
    without the update. The result is a lower bound: a model is not safe because these attacks find nothing. If it is
    stopped, the same command goes on. Exit code: 0; 1 where the gate failed; 2 for what cannot be used.

    Args:
        model: `module:NAME` or `module.NAME` of a torch module or of a function that builds one, which is called with
            image_shape= and num_classes=; or the name of a victim.
        images: a folder with one folder of pictures for each class; or a folder of pictures, with --labels.
        labels: table (CSV) with the columns file and label, for pictures that are not in class folders. Labels are
            names of classes, or their numbers from 0.
        classes: the model's classes, where the images are of some of them or in another order: a file with one name
            per line in the model's order, or their number.
        defense: what the client does: none, noise:0.01, ...; several with commas between them.
        attacks: `auto`: those that fit the setting, in an order that the plan shows; or names with commas between them,
            of which `auto` can be one.
        minutes: time for everything. What the plan takes is printed before any attack begins.
        fail_on: the gate: exit code 1 if any image has this verdict or a worse one: exact, recognisable, partly.
        know_labels: whether the attacker is given the labels of the batch; if not, they are read from the update.
        victim_weights: `random`, or a file of trained weights.
        batch: images per update.
        most: images that are attacked; fewer if the time is too short.
        seed: of weights and starts.
        processes: that work at the same time. Default: one for each GPU, else for each CPU core.
        compile: see `Options`; compiling takes minutes that no plan knows.
        out: folder of results: audit.html, audit.json, junit.xml, and the runs.
        options: of a run, see `Options`; those of client and attacker are listed on the page.

    Raises:
        InputError: there are no such images, too few of them, or too little time; or no image could be
            judged under one of the defenses, and none fails the gate.
    """
    if labels is None and out.resolve().is_relative_to(images.resolve()):
        raise InputError(f"out is {out}, which would be a class in {images}; give a folder outside of it.")
    reproducible()
    warnings.simplefilter("once", Notice)  # not by every attack
    warnings.filterwarnings("ignore", NO_LIST, Notice)  # and none is expected here
    began = time.monotonic()
    with alone(writable(out)):
        above_zero(minutes=minutes)
        at_least(1, batch=batch, most=most, processes=processes)
        print(f"audit    at most {minutes:g} minutes; some steps of each attack are timed first", flush=True)
        arrange(images, labels, out / "images" / "test", classes)
        module, colon, name = model.partition(":")
        config = Config(
            attack="ig",
            preset="default",
            data=f"folder:{out / 'images'}",
            victim=f"{module}.{name}" if colon and module not in {*LIBRARIES, *known("victim")} else model,
            victim_weights=victim_weights,
            batch=batch,
            seed=seed,
            compile=compile,
            devices=1,
            wandb="off",
            out=out / "runs",
            **options,
        )
        most_tasks = max(1, most // batch)
        subject = Subject.checked(config, different(defense), images, most_tasks)
        named = in_order(attacks)
        probe = Probe(subject.config, subject.defenses, subject.data, know_labels)
        kept, identity = out / "plan.json", subject.identity(named, attacks, minutes, know_labels, most, processes)
        before = begun_before(kept, identity)
        plan = before or make_plan(
            probe,
            named,
            minutes,
            lambda: time.monotonic() - began,
            min(most_tasks, len(subject.data) // batch),
            processes or places(),
        )
        write_atomically(kept, json.dumps({"of": identity, **asdict(plan)}, indent=1))
        show(plan, batch, len(subject.defenses))
        for name in FILES.values():
            (out / name).unlink(missing_ok=True)  # of an earlier audit; this one may write none
        done = work(jobs_of(plan, probe), plan.processes, began + 60 * minutes)
        times = {"minutes": minutes, "seconds": round(time.monotonic() - began, 1), "resumed": before is not None}
        report, truths, made = concluded(subject, probe, plan, done, named, fail_on, model, times)
        write(out, report, truths, made)
    return exit_code(report["gate"])


def concluded(
    subject: Subject,
    probe: Probe,
    plan: Plan,
    done: Sequence[tuple[Job, Done]],
    named: Sequence[str],
    fail_on: FailOn,
    model: str,
    times: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, bytes], dict[tuple[str, str], Pictures]]:
    """The content of `audit.json`; the truth of each image (PNG); and the pictures of its best attack by defense.

    Args:
        named: the attacks that were asked for.
        model: as the user named it.
        times: what is known of them beside the plan's.

    Raises:
        InputError: no attack came to an end.
    """
    shown, took, not_done = results_of(done)
    if not shown:
        raise InputError(f"no attack came to an end: {'; '.join(sorted({reason for _, _, reason in not_done}))}")
    ids = sorted({image for _, image in shown})
    looks = Looks(subject.data, Lpips.find(subject.config.weights_dir, download=False))  # a run did
    others = others_of(looks, ids)
    idle = {image: other.scores for image, other in others.items()}
    for key, results in shown.items():
        if others[key[1]].copied:
            shown[key] = copies_aside(looks, key[1], results)
    found = images_of(shown, idle, subject.data.classes, fail_on, looks.nearest)
    rows = [result.row for results in shown.values() for result in results]
    report = {
        "schema_version": SCHEMA_VERSION,
        "code": code_version(),
        "gate": gate_of(found, subject.defenses, fail_on),
        "warning": subject.warning,
        "n": len(ids),
        "attacks": list(dict.fromkeys(result.attack for results in shown.values() for result in results)),
        "setting": subject.described(model, [probe.under(defense) for defense in subject.defenses], ids, rows),
        "contents": {key: rows[0][key] for key in ("victim_digest", "data_digest")},
        "budget": {
            "tasks": plan.tasks,
            "processes": plan.processes,
            "estimated_seconds": round(plan.seconds, 1),
            **times,
        },
        "scale": scale(),
        "defenses": of_defenses(found),
        "images": found,
        "labels": of_labels([row for job, result in done if job.attack == LABELS for row in result.rows]),
        "plan": of_plan(plan, took),
        "not_tried": not_tried([*plan.not_tried, *not_done], named, subject.defenses),
        "notices": [*doubts(looks.lpips, others), *noticed((n for _, result in done for n in result.notices), rows)],
    }
    truths = {image: png(looks.truth(image)) for image in ids}
    made = {key: pictures(results, each["attack"]) for (key, results), each in zip(shown.items(), found, strict=True)}
    return report, truths, made


def begun_before(path: Path, identity: str) -> Plan | None:
    """The plan of the same audit, where it was begun before: only then does it go on."""
    try:
        kept = json.loads(path.read_text())
        if kept.pop("of") != identity:
            return None
        attempts = [
            Attempt(**{**each, "under": {defense: Under(**how) for defense, how in each["under"].items()}})
            for each in kept.pop("attempts")
        ]
        return Plan(attempts=attempts, not_tried=[(a, d, r) for a, d, r in kept.pop("not_tried")], **kept)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None  # there is none, or it was cut short


def doubts(lpips: Lpips, others: Mapping[str, Others]) -> list[str]:
    """What verdicts on these images may miss, a sentence each; prints them."""
    found = []
    if not lpips.available:
        found.append(f"No LPIPS, and so nothing is partly rebuilt by its looks alone: {lpips.reason}.")
    if near := [image for image, other in others.items() if other.near_copy]:
        found.append(
            f"{len(near)} of the attacked images have a near-copy in the folder (PSNR {NEAR_COPY_DB:g} dB or more), of "
            f"whose update controls are made; that can hide a leak. Leave near-copies out: {', '.join(near)}."
        )
    for sentence in found:
        print(f"note     {sentence}")
    if lpips.fix:
        print(f"         to get it: {lpips.fix}")
    return found


def exit_code(gate: Mapping[str, Any]) -> int:
    """1 where the gate failed, else 0, with a line on it if there is a gate.

    Args:
        gate: see `gate_of`.

    Raises:
        InputError: the gate failed for want of a judged image alone.
    """
    if gate["not_judged"] and not gate["failures"]:
        fix = "give more --minutes, or other images; audit.json says why under not_tried and images"
        raise InputError(f"no image could be judged under {', '.join(gate['not_judged'])}; {fix}.")
    if gate["fail_on"] != "never":
        passed, level = "passed" if gate["passed"] else "failed", gate["fail_on"]
        print(f"gate     {passed}: {gate['failures']} of {gate['judged']} judged results are {level} or worse")
    return 1 if gate["failures"] else 0


def show(plan: Plan, batch: int, defenses: int) -> None:
    """Print what will be done, and how long it takes."""
    print(
        f"plan     {plan.tasks} x {batch} images under {count(defenses, 'defense')} in "
        f"{count(plan.processes, 'process')}, about {duration(plan.seconds)} by timed steps"
    )
    for attempt in plan.attempts:
        ways: dict[str, list[str]] = {}
        for defense, how in attempt.under.items():
            ways.setdefault(in_words(how), []).append(defense)
        said = [f"{way} ({', '.join(under)})" if len(ways) > 1 else way for way, under in ways.items()]
        print(f"  {attempt.attack:18} {'; '.join(said)}; about {duration(attempt.seconds / plan.processes)}")
    print(f"  not tried: {', '.join(dict.fromkeys(attack for attack, _, _ in plan.not_tried)) or 'none'}", flush=True)


def in_words(how: Under) -> str:
    """`400 steps x 1 start, as tuned on cifar10-b1`."""
    effort = f"{how.steps} steps x {count(how.restarts, 'start')}" if how.steps else "solved or read at once"
    return effort + (f", as tuned on {how.tuned_on}" if how.tuned_on else "")


def pictures(results: Sequence[Shown], attack: str) -> Pictures:
    """The pictures of an attack on an image, and of its control."""
    by_control = {result.is_control: result.picture for result in results if result.attack == attack}
    return Pictures(by_control[False], by_control[True])


def write(
    out: Path, report: Mapping[str, Any], truths: Mapping[str, bytes], made: Mapping[tuple[str, str], Pictures]
) -> None:
    """The three files, and where they are; prints how many images have which verdict before."""
    for each in report["defenses"]:
        found = ", ".join(f"{number} {verdict}" for verdict, number in each["verdicts"].items() if number)
        print(f"verdict  under {each['defense']}: {found}, of {count(each['n'], 'image')}")
    texts = {
        "page": page(report, truths, made),
        "data": json.dumps(report, indent=1, allow_nan=False) + "\n",
        "junit": junit(report),
    }
    for what, text in texts.items():
        write_atomically(out / FILES[what], text)
        print(f"{what:8} {out / FILES[what]}")
