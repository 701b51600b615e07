"""The face descriptor: its forward pass, its file, its known distances, and the metric of a run on faces."""

import json
import os
import subprocess
import tarfile
from math import prod
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchvision.utils import save_image

from benchmark.__main__ import main
from benchmark.scoring.face import BLOCKS, SAME, Face, dequantized, face_of
from benchmark.scoring.score import score
from victims.data.ffhq import FFHQ
from victims.errors import InputError

SHARED = Path(__file__).resolve().parents[3].parent / "shared"
MANIFEST = "face_recognition_model-weights_manifest.json"


def layout() -> dict[str, list[int]]:
    """Shapes by name, filters as (height, width, in, out)."""
    widths = {"32": 32, "64": 64, "128": 128, "256": 256}
    convolutions, width = {"conv32_down": [7, 7, 3, 32]}, 32
    for block in BLOCKS:
        out = widths[block.removeprefix("conv").partition("_")[0]]
        convolutions |= {f"{block}/conv1": [3, 3, width, out], f"{block}/conv2": [3, 3, out, out]}
        width = out
    shapes = {}
    for name, filters in convolutions.items():
        shapes[f"{name}/conv/filters"] = filters
        shapes |= {f"{name}/{part}": filters[-1:] for part in ("conv/bias", "scale/weights", "scale/biases")}
    return shapes | {"fc": [256, 128]}


@pytest.fixture(scope="module")
def weights_dir(tmp_path_factory) -> Path:
    """A descriptor with random weights: filters of the 64-channel blocks are floats, all others bytes."""
    folder = tmp_path_factory.mktemp("weights")
    (folder / "metrics").mkdir()
    random, content, entries = np.random.default_rng(0), b"", []
    for name, shape in layout().items():
        entry = {"name": name, "shape": shape, "dtype": "float32"}
        scale = (4 / prod(shape[:-1])) ** 0.5 if len(shape) > 1 else 1
        low = 0.5 if name.endswith("scale/weights") else -0.5
        if "conv64" in name and name.endswith("filters"):
            content += (scale * (random.random(shape) - 0.5)).astype("<f4").tobytes()
        else:
            entry["quantization"] = {"dtype": "uint8", "scale": scale / 255, "min": scale * low}
            content += random.integers(0, 256, prod(shape), dtype=np.uint8).tobytes()
        entries.append(entry)
    (folder / "metrics" / "face_recognition_model.bin").write_bytes(content)
    (folder / "metrics" / MANIFEST).write_text(json.dumps([{"weights": entries, "paths": []}]))
    return folder


class Unit(nn.Module):
    """A convolution and its affine layer, as a batch norm in eval mode."""

    def __init__(self, weights: dict[str, Tensor], name: str, down: bool):
        super().__init__()
        filters = weights[f"{name}/conv/filters"]
        out, width, side, _ = filters.shape
        self.conv = nn.Conv2d(width, out, side, 2 if down else 1, 0 if down else 1)
        self.affine = nn.BatchNorm2d(out, eps=0)
        self.conv.load_state_dict({"weight": filters, "bias": weights[f"{name}/conv/bias"]})
        self.affine.weight.data, self.affine.bias.data = (weights[f"{name}/scale/{p}"] for p in ("weights", "biases"))

    def forward(self, x: Tensor) -> Tensor:
        return self.affine(self.conv(x))


def described(weights: dict[str, Tensor], faces: Tensor) -> Tensor:
    """dlib's network as a chain of modules; sums are made in a tensor of zeros that holds both terms."""
    mean = torch.tensor([122.782, 117.001, 104.298]).view(1, 3, 1, 1)
    x = (255 * interpolate(faces, size=(150, 150), mode="bilinear", antialias=True) - mean) / 255
    x = nn.MaxPool2d(3, 2)(Unit(weights, "conv32_down", True).eval()(x).relu())
    for block in BLOCKS:
        down = "down" in block
        y = Unit(weights, f"{block}/conv2", False).eval()(Unit(weights, f"{block}/conv1", down).eval()(x).relu())
        x = nn.AvgPool2d(2)(x) if down else x
        total = torch.zeros(len(x), *(max(pair) for pair in zip(x.shape[1:], y.shape[1:], strict=True)))
        for term in (x, y):
            total[:, : term.shape[1], : term.shape[2], : term.shape[3]] += term
        x = total.relu()
    return x.flatten(2).mean(2) @ weights["fc"]


@torch.no_grad()
def test_the_descriptor_is_that_of_the_network_of_modules(weights_dir):
    face = Face.find(weights_dir)
    content = (weights_dir / "metrics" / "face_recognition_model.bin").read_bytes()
    weights = dequantized(content, json.loads((weights_dir / "metrics" / MANIFEST).read_text())[0]["weights"])
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    expected = described(weights, images)
    assert expected.std() > 1e-3
    assert torch.allclose(face.descriptors(images), expected, rtol=1e-4, atol=1e-5)
    gray = images[:, :1]
    assert torch.equal(face(gray, images), face(gray.expand(-1, 3, -1, -1), images))
    assert face(images, images).tolist() == [0, 0, 0]


def test_bytes_stand_for_multiples_and_others_are_floats():
    entries = [
        {"name": "a", "shape": [3], "quantization": {"dtype": "uint8", "scale": 0.5, "min": -1}},
        {"name": "b", "shape": [1, 1, 2, 1]},
    ]
    content = bytes([0, 2, 255]) + np.array([1.5, -2], "<f4").tobytes()
    tensors = dequantized(content, entries)
    assert tensors["a"].tolist() == [-1, 0, 126.5]
    assert tensors["b"].tolist() == [[[[1.5]], [[-2]]]]
    with pytest.raises(ValueError, match="longer than its manifest"):
        dequantized(content + b"x", entries)


def test_the_face_is_a_square_a_little_below_the_middle():
    rows, columns = torch.meshgrid(torch.arange(100.0), torch.arange(100.0), indexing="ij")
    part = face_of(torch.stack([rows, columns])[None])
    assert part.shape == (1, 2, 65, 65)
    assert part.mean((0, 2, 3)).tolist() == pytest.approx([58, 49.5], abs=0.7)


def test_a_person_is_the_same_within_the_threshold(weights_dir, monkeypatch):
    face, images = Face.find(weights_dir), torch.rand(2, 3, 32, 32)
    for distances, expected in (([0.59, 0.61], [1, 0]), ([0.6, 0], [0, 1])):
        monkeypatch.setattr(Face, "__call__", lambda face, a, b, d=distances: torch.tensor(d))
        assert score(images, images, face=face)[1]["same_face"] == expected
    assert SAME == 0.6
    assert score(images, images, face=Face(None, "no weights"))[1]["same_face"] == [None, None]
    small = images[..., :31, :]
    assert score(small, small, face=face)[1]["same_face"] == [None, None]


@pytest.mark.parametrize("damage", ["truncated", "longer", "no manifest", "another network"])
def test_a_file_without_the_weights_is_one_clear_line(damage, weights_dir, tmp_path):
    (tmp_path / "metrics").mkdir()
    content = (weights_dir / "metrics" / "face_recognition_model.bin").read_bytes()
    manifest = (weights_dir / "metrics" / MANIFEST).read_text()
    content = content[:1000] if damage == "truncated" else content + b"x" if damage == "longer" else content
    manifest = "<html>" if damage == "no manifest" else manifest
    manifest = manifest.replace("conv128", "conv96") if damage == "another network" else manifest
    (tmp_path / "metrics" / "face_recognition_model.bin").write_bytes(content)
    (tmp_path / "metrics" / MANIFEST).write_text(manifest)
    with pytest.raises(InputError, match="do not hold the weights of the face descriptor") as caught:
        Face.find(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_run_on_faces_says_who_is_recognized_and_once_why_not(tmp_path, weights_dir, capsys):
    for number in (60_000, 60_001):
        for folder in ("images32x32", "json"):
            (tmp_path / "ffhq" / folder).mkdir(parents=True, exist_ok=True)
        picture = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(number))
        save_image(picture, tmp_path / "ffhq" / "images32x32" / f"{number}.png")
        (tmp_path / "ffhq" / "json" / f"{number}.json").write_text(json.dumps([{"faceAttributes": {"age": 31}}]))
    options = ["--data=ffhq", f"--data-dir={tmp_path}", "--attack=ig", "--victim=lenet", "--batch=1", "--tasks=2"]
    options += ["--steps=2", "--restarts=1", "--devices=1", "--wandb=off"]
    found = {}
    for weights in (tmp_path, weights_dir):
        assert main(["run", *options, f"--weights-dir={weights}", f"--out={tmp_path / weights.name}"]) == 0
        (file,) = (tmp_path / weights.name).glob("*/rows.jsonl")
        found[weights] = [json.loads(line)["same_face"] for line in file.read_text().splitlines()]
    assert found[tmp_path] == [None, None]
    assert set(found[weights_dir]) <= {0, 1}
    said = [line for line in capsys.readouterr().err.splitlines() if "same_face" in line]
    (said,) = said
    why, _, fix = said.partition("; to get it: ")
    assert why == f"benchmark: no same_face: there is no {tmp_path}/metrics/face_recognition_model.bin"
    assert followed(fix, tmp_path, weights_dir)


def followed(command, folder, weights_dir):
    """Whether the metric is found after the command, where npm gives an archive of the files of `weights_dir`."""
    with tarfile.open(folder / "archive.tgz", "w:gz") as archive:
        for file in (weights_dir / "metrics").iterdir():
            archive.add(file, f"package/model/{file.name}")
    npm = folder / "npm"
    npm.write_text(f'#!/bin/sh\ncp "{folder}/archive.tgz" vladmandic-face-api-1.7.15.tgz\n')
    npm.chmod(0o755)
    own = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
    subprocess.run(["bash", "-c", command], cwd=folder, env=own, check=True)
    return Face.find(folder).available


shared = pytest.mark.skipif(not (SHARED / "weights" / "metrics").is_dir(), reason="needs ../shared/weights/metrics")


def faces(size: int) -> Tensor:
    """Twelve people."""
    opened = [FFHQ(split=split, size=size, data_dir=SHARED / "data") for split in FFHQ.splits]
    return torch.stack([data[index][0] for data in opened for index in range(len(data))])


def noisy(images: Tensor, deviation: float) -> Tensor:
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    return (images + deviation * noise).clamp(0, 1)


@pytest.mark.shared
@shared
def test_the_descriptor_has_the_documented_distances():
    """Median over twelve people; the documented crop is not said: this one comes nearest."""
    face, images = Face.find(SHARED / "weights"), faces(256)[..., 48:232, 36:220]
    with torch.no_grad():
        own = face.descriptors(images)
        among = torch.pdist(own)
        changed = {
            "flipped": images.flip(-1),
            "noisy": noisy(images, 0.2),
            "from 32 px": interpolate(images, size=(32, 32), mode="bilinear", antialias=True),
            "from 16 px": interpolate(images, size=(16, 16), mode="bilinear", antialias=True),
        }
        moved = {name: float((face.descriptors(x) - own).norm(dim=1).mean()) for name, x in changed.items()}
    assert len(own) == 12
    assert (float(among.min()), float(among.median())) == pytest.approx((0.56, 0.75), abs=0.01)
    assert moved == pytest.approx({"flipped": 0.24, "noisy": 0.39, "from 32 px": 0.34, "from 16 px": 0.58}, abs=0.03)


@pytest.mark.parametrize(("size", "strangers"), [(256, 0), (128, 0), (64, 0), (48, 0), (32, 0.08)])
@pytest.mark.shared
@shared
def test_of_cut_out_faces_each_is_recognized_and_no_other(size, strangers):
    face, images = Face.find(SHARED / "weights"), faces(size)
    one, other = torch.triu_indices(12, 12, 1)
    assert (face(images[one], images[other]) < SAME).float().mean() <= strangers
    assert (face(images.flip(-1), images) < SAME).all()
    whole = torch.pdist(face.descriptors(images))
    assert (whole < SAME).float().mean() > 0.5  # without the cut


@pytest.mark.parametrize(("size", "gray", "mean"), [(64, 0, 0), (32, 1, 2)])
@pytest.mark.shared
@shared
def test_as_many_people_are_seen_in_pictures_of_nobody_as_is_documented(size, gray, mean):
    face, images = Face.find(SHARED / "weights"), faces(size)
    for picture, people in ((torch.full_like(images[0], 0.5), gray), (images.mean(0), mean)):
        assert (face(picture.expand_as(images), images) < SAME).sum() == people
