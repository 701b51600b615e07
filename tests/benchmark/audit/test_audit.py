"""An audit of a user's model and images; verdicts and the budget are also tested alone."""

import base64
import inspect
import io
import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from benchmark.__main__ import main
from benchmark.audit import audit as module
from benchmark.audit.assumed import assumed, local_training
from benchmark.audit.audit import Cell, controls, for_steps, share
from benchmark.audit.check import attacked, check
from benchmark.audit.page import CONSTANT, DIVERGED, NOT_SHOWN, PARTLY, RECOGNIZABLE, Shown, page, verdict, worst
from benchmark.audit.tables import arrange
from benchmark.config import Config
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


# Verdicts.


def scores(psnr, ssim, iip=0.0, control="none", **more):
    plain = {"status": "ok", "degenerate": False, "label": 0}
    return {"psnr": psnr, "ssim": ssim, "iip": iip, "control": control} | plain | more


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (scores(20, 0.7, 1), RECOGNIZABLE),
        (scores(20, 0.7, 0), PARTLY),  # another image is nearer, but it is much closer than a control
        (scores(14.9, 0.7, 1), PARTLY),  # not 3 dB above
        (scores(20, 0.45, 1), PARTLY),
        (scores(13.1, 0.3, 1), PARTLY),
        (scores(12.9, 0.3, 1), NOT_SHOWN),  # not 1 dB above, SSIM not .1 above
        (scores(12.1, 0.41, 0), PARTLY),
        (scores(11.9, 0.41, 0), NOT_SHOWN),
        (scores(12, 0.3, 1), NOT_SHOWN),  # the control itself
    ],
)
def test_a_verdict_rests_on_the_best_control(row, expected):
    assert verdict(row, [scores(12, 0.1), scores(9, 0.3)]) == expected


def test_a_reconstruction_that_a_control_makes_too_is_no_leak():
    assert verdict(scores(20, 0.7, 1), [scores(10, 0.1)]) == RECOGNIZABLE
    assert verdict(scores(20, 0.7, 1), [scores(10, 0.1), scores(20, 0.7)]) == NOT_SHOWN


def test_the_worst_attack_counts_and_a_control_is_no_attack():
    results = [
        Shown("weak", scores(13, 0.2), b""),
        Shown("strong", scores(20, 0.8, 1), b""),
        Shown("stronger", scores(22, 0.6, 1), b""),
        Shown("blurred", scores(30, 0.2, 0), b""),
        Shown("stronger", scores(8, 0.1, 0, "shuffled_update"), b""),
    ]
    found, best = worst(results, scores(12, 0.1))
    assert (found, best.attack) == (RECOGNIZABLE, "stronger")
    copied = [*results, Shown("lucky", scores(40, 1.0, 1, "shuffled_update"), b"")]
    assert worst(copied, scores(12, 0.1))[0] == NOT_SHOWN


@pytest.mark.parametrize(
    ("image", "expected"),
    [({"degenerate": True}, CONSTANT), ({"status": "diverged"}, DIVERGED)],
)
def test_what_no_attack_can_show_is_not_judged(image, expected):
    results = [Shown("one", scores(20, 0.8, 1, **image), b""), Shown("two", scores(40, 0.9, 1, **image), b"")]
    found, best = worst(results, scores(12, 0.1))
    assert (found, best.attack) == (expected, "two")
    shown = {("none", "a"): results, ("none", "b"): [Shown("one", scores(20, 0.8, 1), b"")]}
    idle, truths = dict.fromkeys("ab", scores(10, 0.1)), dict.fromkeys("ab", b"z")
    text = page(shown, idle, truths=truths, classes=["k"], left_out={}, facts={})
    assert f"<th>{expected}</th></tr><tr><td>none</td><td>1</td><td>0</td><td>0</td><td>1</td></tr>" in text


def test_one_attack_that_diverged_leaves_the_verdict_to_the_others():
    results = [Shown("one", scores(0, 0, status="diverged"), b""), Shown("two", scores(20, 0.8, 1), b"")]
    assert worst(results, scores(12, 0.1))[0] == RECOGNIZABLE


def test_the_mean_of_the_others_leaves_the_image_out(images):
    arrange(images, None, images.parent / "laid" / "test")
    data = Folder(images.parent / "laid", size=16)
    found = controls(data, data.ids[:2])
    for place, image_id in enumerate(data.ids[:2]):
        others = np.mean([data[k][0].numpy() for k in range(6) if k != place], 0)
        psnr = -10 * np.log10(((others - data[place][0].numpy()) ** 2).mean())
        assert found[image_id]["psnr"] == pytest.approx(psnr, abs=1e-3)


# The budget.


def cells(*seconds, solved=()):
    return [Cell("x", Config(), s, False) for s in seconds] + [Cell("x", Config(), s, True) for s in solved]


def test_the_time_is_split_over_tasks_and_steps():
    assert share(100, cells(0.01, 0.03), 5) == (5, 500)  # 5 tasks x 500 steps x .04 s
    assert share(20, cells(0.01, 0.03), 9) == (5, 100)  # fewer images before too few steps
    assert share(20, cells(0.01, 0.03, solved=[1]), 4) == (4, 100)  # 4 x (1 s + 100 x .04 s)
    assert share(1e9, cells(0.01), 2) == (2, module.MOST)
    assert share(10, cells(solved=[1]), 8)[0] == 8


def test_too_little_time_is_refused():
    """100 steps of 1.2 s are 3/4 of 160 s, and 20 s have passed: 3 minutes."""
    with pytest.raises(InputError, match=r"^1 minutes are too few for 100 steps .* --minutes, such as 6, fewer"):
        for_steps(1, 20, cells(1.2))
    with pytest.raises(InputError, match=r"^2\.9 minutes are too few"):
        for_steps(2.9, 20, cells(1.2))
    with pytest.raises(InputError, match=r"such as 0\.8, fewer"):  # more time has passed than there was
        for_steps(0.1, 20, cells(solved=[3]))
    assert share(for_steps(6, 20, cells(1.2)), cells(1.2), 3) == (2, 106)
    assert share(for_steps(0.8, 20, cells(solved=[3])), cells(solved=[3]), 8)[0] == 7


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


def test_a_users_model_and_images(images, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("GIBENCH_OFFLINE", "1")
    monkeypatch.setattr(module, "ATTACKS", {name: module.ATTACKS[name] for name in ("ig, much smoothing", "rgap")})
    monkeypatch.setattr(module, "LEAST", 20)
    monkeypatch.setattr(module, "MOST", 60)
    options = [f"--images={images}", "--size=16", "--defense=none,sign", "--most=2", f"--out={tmp_path / 'out'}"]
    options += ["--mean=0.25", "--std=0.5"]
    assert main(["audit", f"--model={__name__}:Tiny", *options]) == 0
    text = (tmp_path / "out" / "audit.html").read_text()
    assert "http" not in text  # opens from disk and loads nothing
    assert "This is a lower bound" in text
    assert "d &amp; &lt;gs" in text
    assert "d & <gs" not in text
    assert "rgap, none" in text  # refused, and listed as such
    assert "<li>preprocessing: (pixel - mean) / std, of pixels in [0, 1]: mean 0.25, std 0.5, as given</li>" in text
    assert re.search(r"<li>classified right: \d of 6 \(\d\.\d{3}\) images of the folder; \d of 2", text)
    assert "<li>loss: cross_entropy; the attacker knows it</li>" in text
    pictures = re.findall(r"data:image/png;base64,([\w+/=]+)", text)
    assert len(pictures) == 2 * 2 * 2  # truth and the best, by defense and image
    assert all(Image.open(io.BytesIO(base64.b64decode(picture))).size == (16, 16) for picture in pictures)
    lines = [row for file in (tmp_path / "out" / "runs").glob("*/rows.jsonl") for row in read_rows(file)[0]]
    assert Counter((row["defense"], row["control"]) for row in lines) == {
        (defense, control): 2 for defense in ("none", "sign") for control in ("none", "shuffled_update")
    }
    assert all(row["adapt"] for row in lines if row["defense"] != "none")
    assert {row["steps"] for row in lines} == {60}
    said = dict(re.findall(r"<tr><td>(none|sign)</td><td>(\d)</td>", text))
    assert said.keys() == {"none", "sign"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--minutes=0.0001"],
            "0.0001 minutes are too few for 100 steps of every attack on one batch; give more --minutes",
        ),
        (["--minutes=.nan"], "minutes is nan; give a finite number above 0"),
        (["--minutes=.inf"], "minutes is inf; give a finite number above 0"),
        (["--model=nowhere:Net"], "cannot import the victim 'nowhere.Net'"),
        (["--defense=nois:1"], "did you mean 'noise'"),
        (["--defense=none,clipping:1e6"], "the defense clipping:1e6 changes nothing"),
        (["--batch=4"], "the controls need 8, twice a batch"),
        (["--images=nowhere"], "there are no pictures in nowhere"),
    ],
)
def test_an_audit_that_cannot_run_is_refused_in_one_line(options, message, images, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(module, "ATTACKS", {"ig": {"attack": "ig"}})
    given = {"--model": f"{__name__}:Tiny", "--images": str(images), "--size": "16"}
    given |= dict(option.split("=", 1) for option in options)
    assert main(["audit", *(f"{name}={value}" for name, value in given.items()), f"--out={tmp_path / 'out'}"]) == 2
    (line,) = [text for text in capsys.readouterr().err.splitlines() if text.startswith("benchmark: ")]
    assert message in line


def test_the_page_is_the_same_for_the_same_results():
    shown = {
        ("none", "a"): [Shown("ig", scores(20, 0.7, 1), b"x"), Shown("ig", scores(9, 0, 0, "shuffled_update"), b"y")]
    }
    made = [
        page(shown, {"a": scores(10, 0.1)}, truths={"a": b"z"}, classes=["k"], left_out={}, facts={"model": "<m>"})
        for _ in range(2)
    ]
    assert made[0] == made[1]
    assert "<m>" not in made[0]
    assert '<td class="recognizable">recognizable</td>' in made[0]
    assert "What could not be run" not in made[0]
    assert Path(__file__).name not in made[0]


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
    options = [f"--images={images}", "--size=16", "--minutes=0.0001", f"--out={tmp_path / 'out'}"]
    assert main(["audit", f"--model={__name__}:Cropped", *options]) == 2
    assert capsys.readouterr().err.count("sees 14 of 16 rows") == 1
