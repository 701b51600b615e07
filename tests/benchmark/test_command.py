"""The command line, in this process."""

import csv
import json
import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from threadpoolctl import threadpool_info
from torchvision.models import squeezenet1_1

from attacks.base import Attack
from benchmark.__main__ import main
from benchmark.device import reproducible
from benchmark.priors import quality
from benchmark.scoring.judge import Judge
from benchmark.tasks.controls import mean_image
from leaderboard.options import row_keys
from leaderboard.rows import Row
from priors import names
from victims.data.photos import Photos
from victims.modules import build

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run(tmp_path, capsys):
    def run(*options, code=0):
        small = ["--attack=ig", "--victim=lenet", "--batch=2", "--tasks=2", "--steps=4", "--restarts=1"]
        assert main(["run", *small, "--devices=1", "--wandb=off", f"--out={tmp_path}", *options]) == code
        return capsys.readouterr()

    return run


def test_a_run_leaves_everything_a_result_needs(run, tmp_path):
    printed = run("--attack=gias").out
    (folder,) = tmp_path.iterdir()
    lines = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    assert len(lines) == 4
    scores = lines[0]["higher_is_better"].keys()
    assert scores >= {"psnr", "ssim", "lpips"}
    keys = {field.name for field in fields(Row)} - {"settings", "scores"} | scores | {*row_keys()}
    assert all(line.keys() == keys for line in lines)
    assert {line["gradient_evaluations"] for line in lines} == {4}
    assert all(isinstance(line["memory"], int) and 20 < line["memory"] < 200_000 for line in lines)
    assert lines[0]["prior_trained_on"].startswith("photos train")
    assert lines[0]["axis"] == {"share of the update that is not sent": 0.5}
    for line in lines:
        picture = folder / "reconstructions" / f"{line['task']}--{line['image']}.png"
        assert Image.open(picture).size == (32, 32)
    with (folder / "curves" / f"{lines[0]['task']}.csv").open() as file:
        curve = list(csv.DictReader(file))
    assert [row["stage"] for row in curve] == ["z", "z", "w", "w"]
    assert min(float(row["cost"]) for row in curve) == pytest.approx(lines[0]["cost"])
    assert list(folder.glob("log/*/metrics.csv"))
    assert Image.open(folder / "picture.png").width > 100
    assert str(folder / "picture.png") in printed
    assert "PSNR" in printed
    assert re.search(r"gias +4 ", printed)


def test_the_row_says_how_local_training_was_matched(run, tmp_path):
    run("--lr=0.1", "--epochs=2", "--match=sme")
    (folder,) = tmp_path.iterdir()
    for line in map(json.loads, (folder / "rows.jsonl").read_text().splitlines()):
        assert (line["match"], line["epochs"], line["gradient_evaluations"]) == ("sme", 2, 4)


def test_the_config_of_a_result_repeats_it(run, tmp_path):
    run("--seed=3")
    (folder,) = tmp_path.iterdir()
    before = (folder / "rows.jsonl").read_bytes()
    assert yaml.safe_load((folder / "config.yaml").read_text())["seed"] == 3
    assert main(["run", f"--config={folder / 'config.yaml'}"]) == 0
    assert list(tmp_path.iterdir()) == [folder]
    assert (folder / "rows.jsonl").read_bytes() == before


def test_a_finished_run_is_not_run_again(run, monkeypatch):
    first = run().out
    monkeypatch.setattr(Attack, "training_step", lambda *_: pytest.fail("it was"))
    assert run().out == first


def test_a_control_that_is_done_is_not_scored_again(run, monkeypatch):
    run("--control=mean_image", "--tasks=1")
    written, write = [], Judge.write
    monkeypatch.setattr(Judge, "write", lambda self, task, *rest: written.append(1) or write(self, task, *rest))
    first = run("--control=mean_image").out
    assert len(written) == 1, "the second of two tasks"
    assert run("--control=mean_image").out == first
    assert len(written) == 1


def test_a_run_leaves_no_rank_behind_in_the_environment(run):
    before = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    run("--tasks=1")
    after = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    assert {name for name in after if before.get(name) != after[name]} <= {"OMP_NUM_THREADS", "PL_GLOBAL_SEED"}


def test_more_tasks_extend_the_run(run, tmp_path):
    run("--tasks=1")
    (file,) = tmp_path.glob("*/rows.jsonl")
    first = file.read_text()
    run("--tasks=3")
    assert file.read_text().startswith(first)
    assert len(file.read_text().splitlines()) == 6


def test_a_torn_row_is_run_again_and_said(run, tmp_path):
    run()
    (file,) = tmp_path.glob("*/rows.jsonl")
    whole = file.read_text()
    file.write_text(whole[:-30])
    assert "left out, run it again" in run().err
    assert len(file.read_text().splitlines()) == len(whole.splitlines())


def test_controls(run, tmp_path):
    run("--control=mean_image")
    run("--control=shuffled_update")
    by_control = {}
    for file in tmp_path.glob("*/rows.jsonl"):
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        by_control[lines[0]["control"]] = lines
    mean, shuffled = by_control["mean_image"], by_control["shuffled_update"]
    assert {line["gradient_evaluations"] for line in mean} == {0}
    assert {line["gradient_evaluations"] for line in shuffled} == {4}
    assert [line["image"] for line in mean] == [line["image"] for line in shuffled]
    assert all(line["psnr"] > 5 for line in mean)


def test_the_mean_image_identifies_the_one_image_that_is_nearest_to_it(run, tmp_path):
    run("--control=mean_image", "--batch=96", "--tasks=1")
    (file,) = tmp_path.glob("*/rows.jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    data = Photos(split="test")
    images, _ = data.batch(range(len(data)))
    nearest = int((images - mean_image(Photos(split="train"))).square().sum(dim=(1, 2, 3)).argmin())
    assert {line["image"]: line["iip"] for line in lines} == {
        name: float(name == data.ids[nearest]) for name in data.ids
    }


def test_groups_of_tasks_and_chunks_of_runs(run, tmp_path):
    run("--restarts=2")
    run("--restarts=2", "--group=2", "--chunk=3")
    alone, together = sorted(
        ([json.loads(line) for line in file.read_text().splitlines()] for file in tmp_path.glob("*/rows.jsonl")),
        key=lambda lines: lines[0]["seconds"],
    )
    assert [line["image"] for line in alone] == [line["image"] for line in together]
    for one, other in zip(alone, together, strict=True):
        assert one["cost"] == pytest.approx(other["cost"], rel=1e-3)


def test_a_group_of_which_one_task_is_done_ends_with_the_rows_of_a_whole_run(tmp_path, run):
    """To the last bit: how tasks stand together changes rounding, so that the group is attacked as a whole again."""
    whole = [f"--out={tmp_path / 'whole'}", "--group=2"]
    run(*whole, "--steps=30")
    parted = [f"--out={tmp_path / 'parted'}", "--group=2", "--steps=30"]
    run(*parted, "--tasks=1")
    run(*parted)
    found = []
    for name in ("whole", "parted"):
        (file,) = (tmp_path / name).glob("*/rows.jsonl")
        found.append([json.loads(line) | {"seconds": 0, "memory": 0} for line in file.read_text().splitlines()])
    assert len(found[0]) == 4
    assert found[0] == found[1]


def test_automatic_groups_are_those_of_their_size(run, tmp_path):
    run("--batch=4", "--tasks=5", "--group=auto")
    run("--batch=4", "--tasks=5", "--group=4")
    found = [file.read_text() for file in tmp_path.glob("*/rows.jsonl")]
    automatic, given = (
        [{**json.loads(line), "seconds": 0, "memory": 0} for line in text.splitlines()] for text in found
    )
    assert automatic == given


def test_a_closed_form_leaves_what_it_found_of_every_layer(tmp_path, capsys):
    small = ["--attack=rgap", "--victim=fcn3", "--defense=none", "--precision=float64", "--batch=1", "--tasks=2"]
    assert main(["run", *small, "--devices=1", "--wandb=off", f"--out={tmp_path}"]) == 0
    (folder,) = tmp_path.iterdir()
    lines = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    assert {(line["labels"], line["precision"], line["status"]) for line in lines} == {("inferred", "float64", "ok")}
    assert all(line["psnr"] > 40 and line["iip"] == 1 for line in lines)
    with (folder / "layers" / f"{lines[0]['task']}.csv").open() as file:
        layers = list(csv.DictReader(file))
    assert [int(layer["unknowns"]) for layer in layers] == [100, 1000, 3072]
    assert all(float(layer["error"]) < 1e-6 and layer["rank"] == layer["unknowns"] for layer in layers)
    printed = capsys.readouterr().out
    for name in ("layers", "curves", "picture"):
        assert Image.open(folder / f"{name}.png").width > 100
        assert f"{folder / name}.png" in printed


def test_a_row_says_where_labels_and_batch_norm_statistics_came_from(run, tmp_path):
    train = ["--victim=sigmoid_resnet10", "--victim-mode=train"]
    run("--attack=dlg", "--labels=none")
    run("--attack=gi", *train, "--victim-weights=calibrated", "--bn=running")
    run("--attack=gi", *train, "--bn=exact")
    known = set()
    for file in tmp_path.glob("*/rows.jsonl"):
        line = json.loads(file.read_text().splitlines()[0])
        known.add((line["attack"], line["labels"], line["bn"], line["victim_weights"]))
    assert known == {
        ("dlg", "joint", "none", "random"),
        ("gi", "given", "running", "calibrated"),
        ("gi", "given", "exact", "random"),
    }


def test_a_row_says_how_good_the_labels_were_that_the_attack_used(run, tmp_path):
    run()
    run("--labels=alr")
    run("--control=mean_image")
    lines = [json.loads(file.read_text().splitlines()[0]) for file in tmp_path.glob("*/rows.jsonl")]
    keys = ("control", "labels", "label_method", "label_counts", "label_existence")
    assert {tuple(line[key] for key in keys) for line in lines} == {
        ("none", "given", "", 1.0, 1.0),
        ("none", "inferred", "alr", 1.0, 1.0),
        ("mean_image", "given", "", None, None),
    }


def test_a_victim_whose_gradient_is_not_finite_gives_diverged_rows(run, tmp_path, monkeypatch):
    (tmp_path / "broken_victim.py").write_text(
        "import torch\nfrom victims.models.lenet import LeNet\n\n\nclass Broken(LeNet):\n"
        "    def forward(self, x):\n        return super().forward(x) / 0 * 0\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    printed = run("--victim=broken_victim.Broken")
    assert "nothing can be matched" in printed.err
    (file,) = tmp_path.glob("*/rows.jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert {(line["status"], line["cost"]) for line in lines} == {("diverged", None)}
    worst = {"psnr": 0, "ssim": 0, "fsim": 0, "mse": 1, "iip": 0}
    assert all({name: line[name] for name in worst} == worst for line in lines)
    assert re.search(r"n +tasks +diverged", printed.out)


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("labels --tasks=2", ""),
        ("labels --trails=2", "did you mean 'trials'? "),
        ("utility --epochs=2", ""),
        ("utility --methd=ig", ""),
        ("audit --wieghts=x", "did you mean 'weights'? "),
    ],
)
def test_the_nearest_option_is_one_of_the_command(words, hint, capsys):
    assert main(words.split()) == 2
    option = words.split()[1].partition("=")[0]
    assert capsys.readouterr().err == f"benchmark: unknown option {option}; {hint}see --help.\n"


BAD = {
    "--attack=gais": "did you mean 'gias'",
    "--attack=rgap --defense=none": "has no steps to choose",
    "--attack=idlg": "run with --batch 1",
    "--bn=exact --victim=sigmoid_resnet10": "makes no use of batch-norm statistics",
    "--attack=gi --bn=running": "choose --bn none",
    "--attack=gi --victim=sigmoid_resnet10 --bn=recovered": "add --victim-mode train",
    "--victim-weights=calibrated": "use --victim-weights random",
    "--data=cifar10 --data-dir=nowhere": "fix --data-dir",
    "--precision=float16": "precision",
    "--data=foto": "did you mean 'photos'",
    "--victim=convent": "did you mean 'convnet'",
    "--victim=timm:resnet17": "did you mean",
    "--victim=torchvision:alexnet": "choose another --size",
    "--victim=torchvision:squeezenet1_1 --victim-mode=train": "use --victim-mode eval",
    "--victim-weights=nowhere.pt": "no victim weights 'nowhere.pt'",
    "--prior=dcgan-foto32 --attack=gias": "did you mean 'dcgan-photos32'",
    "--prior=biggan-deep-256 --attack=gias --weights-dir=nowhere": "nowhere/priors.*is available from",
    "--prior=nowhere.safetensors --attack=gias": "no weights at",
    "--defense=sparsify:1": "did you mean 'sparsification'",
    "--defense=sparsification:1": "rate",
    "--preset=none": "presets?",
    "--set+=foo=1": "tv",
    "--steps=0": "steps is 0",
    "--steps=many": "steps takes int",
    "--steps=1 --attack=gias": "2 stages",
    "--restarts=0": "restarts is 0",
    "--chunk=0": "chunk is 0",
    "--group=0": "group is 0",
    "--group=some": "group takes int or auto",
    "--devices=0": "devices is 0",
    "--tasks=0": "tasks is 0",
    "--batch=0": "batch is 0",
    "--batch=97": "96 images",
    "--size=7": "pixels wide",
    "--size=40 --attack=gias": "prior makes .* choose --size 32 or less, or choose another --prior",
    "--split=validation": "no split",
    "--labels=none": "labels",
    "--labels=arl": "did you mean 'alr'",
    "--labels=idlg": "single image",
    "--attack=dlg --labels=alr": "finds labels by itself",
    "--victim-mode=asleep": "eval or train",
    "--bogus=1": "bogus",
    "--config=nowhere.yaml": "nowhere.yaml",
}


@pytest.mark.parametrize(("options", "expected"), BAD.items(), ids=BAD)
def test_bad_input_is_one_clear_line_and_exit_2(options, expected, run, tmp_path):
    printed = run(*options.split(), code=2)
    assert printed.err.count("\n") == 1
    assert printed.err.startswith("benchmark: ")
    assert re.search(expected, printed.err)
    assert not list(tmp_path.glob("*/rows.jsonl"))


def test_an_out_that_cannot_be_written(run, tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot write" in run(f"--out={tmp_path / 'file'}", code=2).err


@pytest.mark.parametrize("damage", ["truncated", "foreign", "pickled"])
def test_weights_that_cannot_be_used(run, tmp_path, damage):
    path = tmp_path / "w.safetensors"
    if damage == "truncated":
        path.write_bytes(next((ROOT / "priors" / "weights").glob("*.safetensors")).read_bytes()[:1000])
    elif damage == "foreign":
        from safetensors.torch import save_file

        save_file({"a": torch.zeros(1)}, path)
    else:
        torch.save({"a": torch.zeros(1)}, path)
    printed = run("--attack=gias", f"--prior={path}", code=2)
    assert printed.err.count("\n") == 1
    assert "w.safetensors" in printed.err


def test_no_arguments_at_all():
    done = subprocess.run([sys.executable, "-m", "benchmark"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def test_a_reader_that_leaves_ends_a_listing_without_a_traceback():
    command = [sys.executable, "-m", "benchmark", "list", "--json=true"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as listing:
        listing.stdout.close()
        assert listing.stderr.read() == b""
    assert listing.returncode == 141, "as the shell says of a command that SIGPIPE ended"


def test_prior_list(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "999")
    file = tmp_path / "priors" / names.published()["dcgan-faces32"].file
    file.parent.mkdir()
    file.write_bytes(b"")
    assert main(["prior", "list", f"--weights-dir={tmp_path}"]) == 0
    lines = {line.split()[1]: line for line in capsys.readouterr().out.splitlines() if line[:1].isalpha()}
    assert {*names.shipped(), *names.published()} <= lines.keys()
    assert lines["denoiser-photos"].startswith("denoiser ")
    assert all(name in lines["dcgan-photos32"] for name in (" dcgan ", " 32 ", "photos train", "shipped"))
    assert lines["dcgan-faces32"].endswith(str(file))
    for fact in (" biggan ", " 128 ", "ImageNet", "missing: biggan-deep-128-pytorch_model.bin, from https://"):
        assert fact in lines["biggan-deep-128"]


def test_prior_quality(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(quality, "SIDE", 32)
    body = build(squeezenet1_1, seed=0).features  # random weights
    (tmp_path / "lpips").mkdir()
    torch.save(body.state_dict(), tmp_path / "lpips" / "squeezenet1_1_features.pth")
    assert main(["prior", "quality", "dcgan-photos32", "--count=12", f"--weights-dir={tmp_path}"]) == 0
    printed = capsys.readouterr().out
    assert "SqueezeNet" in printed
    assert "96 images of photos test" in printed
    assert re.search(r"dcgan-photos32 +12 +-?\d+\.\d+ ± \d+\.\d+ +\d+\.\d+\n", printed)
    assert re.search(r"photos tune \(real\) +96 +-?\d+\.\d+ ± \d+\.\d+ +\d+\.\d+\n", printed)


@pytest.mark.parametrize(
    ("options", "expected"),
    {
        "dcgan-photos32": "LPIPS backbone: .*; to get its weights: curl ",
        "dcgan-photos32 --count=3": "count is 3",
        "dcgan-foto32 --count=many": "count",
    }.items(),
)
def test_prior_quality_of_bad_input(options, expected, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert main(["prior", "quality", *options.split(), f"--weights-dir={tmp_path}"]) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert re.search(expected, printed)


def test_prior_train(tmp_path, capsys):
    out = tmp_path / "new.safetensors"
    assert main(["prior", "train", str(out), "--steps=2"]) == 0
    assert json.loads(out.with_suffix(".json").read_text())["trained_on"] == "photos train, 32 px"
    assert Image.open(out.with_suffix(".png")).width > 200
    assert main(["prior", "train", str(tmp_path / "new.bin")]) == 2
    assert capsys.readouterr().err.count("benchmark:") == 1


def test_a_run_computes_with_one_thread_of_numpy_too():
    """CMA-ES is numpy's; rows must not depend on how many cores there are."""
    reproducible()
    threads = {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}
    assert threads == {1}


def test_the_log_grows_by_lines_with_the_tasks_and_not_by_columns(run, tmp_path):
    run("--tasks=3")
    (log,) = tmp_path.glob("*/log/*/metrics.csv")
    lines = list(csv.DictReader(log.read_text().splitlines()))
    assert lines[0].keys() == {"step", "task", "cost"}
    assert len({line["task"] for line in lines}) == 3
    assert all(float(line["cost"]) > 0 for line in lines)
