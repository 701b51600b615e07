"""An audit of a user's model and images."""

import base64
import inspect
import io
import json
import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from attacks.ig import IG
from benchmark.__main__ import main
from benchmark.audit import audit as module
from benchmark.audit import plan
from benchmark.audit.assumed import assumed, local_training
from benchmark.audit.check import attacked, check
from benchmark.audit.tables import arrange
from benchmark.scoring.accuracy import like_guessing
from leaderboard.options import Options, abouts, option
from leaderboard.rows import read_rows
from victims.choices import Match
from victims.data.folder import Folder
from victims.errors import InputError
from victims.preprocessing import Preprocessing
from victims.victim import Victim


class Tiny(nn.Module):
    """A user's model: two linear layers, whose update reveals everything."""

    def __init__(self, *, image_shape, num_classes):
        super().__init__()
        self.first = nn.Linear(int(np.prod(image_shape)), 16)
        self.last = nn.Linear(16, num_classes)

    def forward(self, x):
        return self.last(torch.sigmoid(self.first(x.flatten(1))))


class Unasked(nn.Module):
    """It does not take what models are built with."""

    def __init__(self):
        super().__init__()


class Three(Tiny):
    def __init__(self, *, image_shape, num_classes):
        super().__init__(image_shape=image_shape, num_classes=3)


class Overflowing(Tiny):
    def forward(self, x):
        return super().forward(x) * float("inf")


@pytest.fixture
def images(tmp_path):
    """Six pictures of 16 px in two class folders."""
    random = np.random.default_rng(0)
    for place in range(6):
        folder = tmp_path / "mine" / ("cats" if place % 2 else "d & <gs")
        folder.mkdir(parents=True, exist_ok=True)
        smooth = Image.fromarray(random.integers(0, 255, (4, 4, 3), dtype=np.uint8)).resize((16, 16))
        smooth.save(folder / f"{place}.png")
    return tmp_path / "mine"


# Images.


def test_class_folders_and_a_table_mean_the_same(images, tmp_path):
    flat = tmp_path / "flat"
    flat.mkdir()
    lines = ["file,label"]
    for path in sorted(images.glob("*/*.png")):
        (flat / path.name).write_bytes(path.read_bytes())
        lines.append(f"{path.name},{path.parent.name}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    arrange(images, None, tmp_path / "a" / "test")
    arrange(flat, tmp_path / "labels.csv", tmp_path / "b" / "test")
    one, two = Folder(tmp_path / "a", size=16), Folder(tmp_path / "b", size=16)
    assert (one.ids, one.classes, one.labels.tolist()) == (two.ids, two.classes, two.labels.tolist())
    assert len(one) == 6  # none is put into another split
    (images / "cats" / "1.png").unlink()
    arrange(images, None, tmp_path / "a" / "test")
    assert len(Folder(tmp_path / "a", size=16)) == 5


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (None, "no class folders; give --labels"),
        ("file,label\n", "first line file,label"),
        ("file,label\nx.png,a\n", r"names x\.png, which is not in"),
        ("file,label\n0.png,../a\n", r"the label '\.\./a'; give a name without /"),
        ("file,label\n0.png\n", "the label ''"),
    ],
)
def test_images_without_labels_are_refused(table, message, tmp_path):
    Image.new("RGB", (16, 16)).save(tmp_path / "0.png")
    labels = None
    if table:
        labels = tmp_path / "labels.csv"
        labels.write_text(table)
    with pytest.raises(InputError, match=message):
        arrange(tmp_path, labels, tmp_path / "out" / "test")


def test_no_images_at_all(tmp_path):
    with pytest.raises(InputError, match="there are no pictures in"):
        arrange(tmp_path, None, tmp_path / "out" / "test")


# The whole.


def audited(images, out, *options):
    """The exit code of an audit of `Tiny` on two images of 16 px, in this process."""
    given = {"model": f"{__name__}:Tiny", "images": images, "size": 16, "most": 2, "attacks": "ig", "processes": 1}
    given |= {"minutes": 5, "out": out}
    given |= dict(option.removeprefix("--").split("=", 1) for option in options)
    return main(["audit", *(f"--{name}={value}" for name, value in given.items())])


class Quick(IG):
    """Ten steps of IG."""

    def __init__(self, *, steps_x=10, **options: Any):
        super().__init__(steps_x=steps_x, **options)


@pytest.fixture
def quick(monkeypatch):
    """Its name; what is left of the time does not multiply its steps."""
    monkeypatch.setenv("GIBENCH_OFFLINE", "1")
    monkeypatch.setattr(plan, "MOST", 10)
    return f"{__name__}.Quick"


def test_a_users_model_and_images(images, tmp_path, quick, capsys):
    options = ["--defense=none,sign", f"--attacks={quick},rgap", "--mean=0.25", "--std=0.5", "--fail-on=exact"]
    assert audited(images, tmp_path / "out", *options) == 0
    text = (tmp_path / "out" / "audit.html").read_text()
    assert "http" not in text  # opens from disk and loads nothing
    assert "This is a lower bound" in text
    assert "d &amp; &lt;gs" in text
    assert "d & <gs" not in text
    assert "<dd>(pixel - mean) / std, of pixels in [0, 1]: mean 0.25, std 0.5, as given</dd>" in text
    pictures = re.findall(r"data:image/png;base64,([\w+/=]+)", text)
    assert len(pictures) == 3 * 2 * 2  # truth, the best and its control, by defense and image
    assert all(Image.open(io.BytesIO(base64.b64decode(picture))).size == (16, 16) for picture in pictures)
    report = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert {each["defense"] for each in report["not_tried"] if each["attack"] == "rgap"} == {"none", "sign"}
    assert re.fullmatch(r"\d of 6 \(\d\.\d{3}\) images of the folder; \d of 2.*", report["setting"]["classified right"])
    assert report["setting"]["loss"] == "cross_entropy; the attacker knows it"
    assert {(each["defense"], each["n"]) for each in report["defenses"]} == {("none", 2), ("sign", 2)}
    lines = [row for file in (tmp_path / "out" / "runs").glob("*/rows.jsonl") for row in read_rows(file)[0]]
    assert Counter((row["defense"], row["control"]) for row in lines) == {
        (defense, control): 2 for defense in ("none", "sign") for control in ("none", "shuffled_update")
    }
    assert all(row["adapt"] for row in lines if row["defense"] != "none")
    assert {row["steps"] for row in lines} == {10}
    assert not any("list of its tasks" in notice for notice in report["notices"])
    assert {"attack": "spear", "defense": "", "reason": "not asked for"} in report["not_tried"]
    said = capsys.readouterr().out
    assert said.index("at most 5 minutes") < said.index("plan     2 x 1 images under 2 defenses") < said.index("1 of 6")
    assert "gate     passed: 0 of 4 judged results are exact or worse" in said


def test_where_all_images_are_copies_nothing_is_judged_and_no_gate_passes(images, tmp_path, quick, capsys):
    for path in images.glob("*/*.png"):
        path.write_bytes((images / "cats" / "1.png").read_bytes())
    assert audited(images, tmp_path / "out", f"--attacks={quick}", "--fail-on=partly") == 2
    said = capsys.readouterr()
    assert "another one that can be read and is no copy" in said.err
    assert not (tmp_path / "out" / "runs").exists()  # said before any attack
    assert "passed" not in said.out


def test_a_control_that_is_not_possible_for_a_later_update_is_said_before_any_attack(
    images, tmp_path, quick, capsys, monkeypatch
):
    tried = []

    def none_for_the_second(data, batch):
        tried.append(batch.task)
        if len(set(tried)) == 2:
            raise InputError("the shuffled-update control needs another image")

    monkeypatch.setattr("benchmark.audit.subject.strangers", none_for_the_second)
    assert audited(images, tmp_path / "out", f"--attacks={quick}") == 2
    assert "the shuffled-update control needs another image" in capsys.readouterr().err
    assert not (tmp_path / "out" / "runs").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--minutes=0.0001"], "0.0001 minutes are too few for 100 steps of ig on one batch under every defense; give"),
        (["--minutes=.nan"], "minutes is nan; give a number above 0"),
        (["--minutes=.inf"], "minutes is inf; give a number above 0"),
        (["--most=0"], "most is 0; give 1 or more"),
        (["--batch=0"], "batch is 0; give 1 or more"),
        (["--model=nowhere:Net"], "cannot import the victim 'nowhere.Net'"),
        (["--defense=nois:1"], "did you mean 'noise'"),
        (["--defense=none,clipping:1e6"], "the defense clipping:1e6 changes nothing"),
        (
            [f"--model={__name__}:Unasked"],
            "Unasked cannot be built (got an unexpected keyword argument",
        ),
        (
            [f"--model={__name__}:Three"],
            "gives logits for 3 classes, not 2; change it, or give the data",
        ),
        (["--batch=4"], "the controls need 8 images, twice a batch"),
        (["--images=nowhere"], "there is no folder nowhere; give one"),
        (["--attacks=igg"], "did you mean 'ig'"),
        (["--attacks=rgap"], "no attack can be used in this setting; rgap: "),
        (["--fail-on=recognizable"], "recognisable"),
        ([f"--model={__name__}:Overflowing"], "is not finite, its norm is nan; check its forward pass"),
    ],
)
def test_an_audit_that_cannot_run_is_refused_in_one_line(options, message, images, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "audit.json").write_text("of an audit before")
    assert audited(images, tmp_path / "out", *options) == 2
    (line,) = [text for text in capsys.readouterr().err.splitlines() if text.startswith("benchmark: ")]
    assert message in line
    assert (tmp_path / "out" / "audit.json").exists()  # what an earlier one has found is not lost


def test_results_need_a_folder(images, tmp_path, capsys):
    (tmp_path / "out").touch()
    assert audited(images, tmp_path / "out") == 2
    assert capsys.readouterr().err.endswith("out (File exists); choose another --out.\n")


@pytest.mark.parametrize("place", ["", "out"])
def test_results_are_no_class_of_the_model(place, images, capsys):
    assert audited(images, images / place) == 2
    assert "which would be a class" in capsys.readouterr().err
    assert sorted(path.name for path in images.iterdir()) == ["cats", "d & <gs"]


# What was assumed.


@dataclass(frozen=True, kw_only=True)
class More(Options):
    moon: int = option(3, "setting", "Phase of the moon.")
    tide: str = option("low", "knowledge", "What the attacker knows of the sea.")


def test_no_option_of_client_or_attacker_is_forgotten():
    said = assumed(More(), Preprocessing((0.5, 0.4, 0.3), (0.25,) * 3, "those of the moon"))
    assert (said["moon"], said["tide"]) == ("3", "low")
    assert said["preprocessing"].endswith("mean 0.5,0.4,0.3, std 0.25, those of the moon")
    changed = {
        "size": 8,
        "channels": 1,
        "resize": "ggl",
        "victim_mode": "train",
        "lr": 0.1,
        "batch": 3,
        "bn": "exact",
        "loss": "bce",
        "amp": "bf16",
    }
    changed |= {"precision": "float64", "prior": "dcgan"}
    for name, value in changed.items():
        assert assumed(replace(Options(), **{name: value}), Preprocessing((0,), (1,))) != assumed(
            Options(), Preprocessing((0,), (1,))
        ), name
    said = assumed(Options(loss="bce", amp="fp16"), Preprocessing((0,), (1,)))
    assert said["loss"] == "bce; the attacker knows it"
    known, read, none = (assumed(Options(labels=how), Preprocessing((0,), (1,))) for how in ("given", "llg", "none"))
    assert known["labels of the batch"] == "known to the attacker, but not whose they are"
    assert read["labels of the batch"].endswith("reads them from the update by llg")
    assert none["labels of the batch"].endswith("by no method that works here")
    assert said["mixed precision"].endswith("in fp16, its loss scaled; the attacker computes in full precision")
    fed_avg = Options(lr=0.1)
    other = {"epochs": 2, "mini_batch": 1, "clients": 2, "local_optimizer": "adam", "know_lr": False, "match": "fa"}
    for name, value in other.items():
        assert local_training(replace(fed_avg, **{name: value})) != local_training(fed_avg), name
    assert len({local_training(replace(fed_avg, match=match)) for match in get_args(Match)}) == len(get_args(Match))


def test_an_audit_takes_the_options_of_client_and_attacker_but_not_what_it_decides():
    taken = set(inspect.signature(module.audit).parameters)
    named = {name for name, about in abouts().items() if about.role in ("setting", "knowledge")}
    assert named - taken == set(module.DECIDED) - {"labels"}
    assert taken.isdisjoint({"attack", "steps", "set", "control"})
    assert {"lr", "epochs", "mini_batch", "local_optimizer", "clients", "bn", "know_labels"} <= taken


# Whether the model knows the images.


class Knowing(nn.Module):
    """Finds whether a picture is bright, if it gets pixels in [0, 1]."""

    def __init__(self, *, image_shape, num_classes):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x):
        bright = self.scale * (x.mean((1, 2, 3)) - 0.5)
        return torch.stack([-bright, bright], 1)


@pytest.fixture
def bright(tmp_path):
    """Twenty pictures in the classes a, dark, and b, bright."""
    random = np.random.default_rng(0)
    for place in range(20):
        folder = tmp_path / "images" / "test" / "ab"[place % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 60, (8, 8, 3), dtype=np.uint8) + 180 * (place % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{place}.png")
    return Folder(tmp_path / "images", size=8)


def test_a_trained_model_in_the_wrong_preprocessing_is_warned_of(bright):
    model = Knowing(image_shape=(3, 8, 8), num_classes=2)
    units = {"mean": bright.mean, "std": bright.std}
    right = Victim(model, **units, preprocessing=Preprocessing((0.0,) * 3, (1.0,) * 3))
    assert check(right, bright, trained=True) == ("20 of 20 (1.000)", "")
    wrong = Victim(model, **units, preprocessing=Preprocessing((-9.0,) * 3, (1.0,) * 3))
    said, warning = check(wrong, bright, trained=True)
    assert said == "10 of 20 (0.500)"
    assert "no better than guessing one of 2 classes" in warning
    assert "\n" not in warning
    assert check(wrong, bright, trained=False)[1] == ""
    dark, light = (next(i for i, label in zip(bright.ids, bright.labels, strict=True) if label == k) for k in (0, 1))
    assert attacked(wrong, bright, [dark, light]) == "1 of 2 (0.500)"


def test_of_one_logit_the_chance_is_a_half(bright):
    """Parity is what is scored, of whatever number of classes; the model takes no single image."""
    of_batch = nn.BatchNorm2d(3, track_running_stats=False)
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), of_batch, nn.Flatten(), nn.Linear(3, 1))
    nn.init.zeros_(model[3].weight)
    victim = Victim(model, mean=bright.mean, std=bright.std)
    bright.classes = list("abcdefghij")
    said, warning = check(victim, bright, trained=True)
    assert said == "10 of 20 (0.500)"
    assert "no better than guessing one of 2 classes" in warning


@pytest.mark.parametrize(
    ("right", "n", "classes", "expected"),
    [(734, 800, 10, False), (80, 800, 10, True), (99, 800, 10, True), (101, 800, 10, False), (0, 2, 2, False)],
)
def test_the_binomial_test(right, n, classes, expected):
    """99 of 800 has p = 0.017, 101 has p = 0.0094; of two images in two classes even two right say nothing."""
    assert like_guessing(right, n, classes) is expected


class Cropped(Tiny):
    """A user's model that does not look at the last two rows of its images of 16 px."""

    def __init__(self, *, image_shape, num_classes):
        super().__init__(image_shape=(3, 14, 16), num_classes=num_classes)

    def forward(self, x):
        return super().forward(x[:, :, :14])


def test_what_is_noticed_of_the_model_is_said_once(images, tmp_path, capsys):
    assert audited(images, tmp_path / "out", f"--model={__name__}:Cropped", "--minutes=0.0001") == 2
    assert capsys.readouterr().err.count("sees 14 of 16 rows") == 1


def test_a_model_whose_code_changed_is_planned_anew(images, tmp_path, quick, monkeypatch):
    """Its weights, which it draws from the seed, are the same."""
    code = "from tests.benchmark.audit.test_audit import Tiny\n\n\nclass Net(Tiny):\n    pass\n"
    monkeypatch.syspath_prepend(tmp_path)
    planned, resumed = [], []
    for more in ("", "\n# other code\n", "\n# other code\n"):
        (tmp_path / "planned_net.py").write_text(code + more)
        assert audited(images, tmp_path / "out", "--model=planned_net:Net", f"--attacks={quick}", "--most=1") == 0
        planned.append(json.loads((tmp_path / "out" / "plan.json").read_text())["of"])
        resumed.append(json.loads((tmp_path / "out" / "audit.json").read_text())["budget"]["resumed"])
    assert planned[0] != planned[1] == planned[2]
    assert resumed == [False, False, True]
    assert "went on with an earlier one" in (tmp_path / "out" / "audit.html").read_text()
