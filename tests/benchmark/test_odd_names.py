"""Names of images, classes and folders that file systems allow: a run ends with its rows and pictures all the same."""

import os

import numpy as np
import pytest
from PIL import Image

from benchmark.__main__ import main
from benchmark.config import Config
from leaderboard.rows import read_rows
from leaderboard.run_folder import find_runs
from victims.errors import InputError

NAMES = [
    "患者の胸部" + "撮影画像" * 16,
    "x" * 251,
    "a\nb",
    "-c",
    "q'\"$(id)`",
    "tab\t;,%2f",
    "..d",
    os.fsdecode(b"caf\xe9"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run on images of such names, one of each class twice, in a folder with a long name."""
    root = tmp_path_factory.mktemp("odd")
    images = root / ("データ" * 28) / "test"
    for place, name in enumerate([*NAMES, *NAMES]):
        folder = images / ("a b'\n$10_to_$20" if place < len(NAMES) else "良性" + "性" * 70)
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(place).integers(0, 255, (16, 16, 3), np.uint8)
        with (folder / f"{name}.png").open("wb") as file:
            Image.fromarray(pixels).save(file, "PNG")
    options = "--attack=ig --defense=none --batch=1 --restarts=1 --steps=1 --size=16 --devices=1 --wandb=off"
    arguments = [
        *options.split(),
        f"--tasks={2 * len(NAMES)}",
        f"--data=folder:{images.parent}",
        f"--out={root / 'out'}",
    ]
    assert main(["run", *arguments]) == 0
    (folder,) = find_runs(root / "out")
    return folder


def test_every_image_has_a_row_and_its_pictures(run):
    rows, left_out = read_rows(run.rows_file)
    assert not left_out
    assert len({row["image"] for row in rows}) == len(rows) == 2 * len(NAMES)
    files = {run.truth(row["image"]) for row in rows} | {run.reconstruction(row["task"], row["image"]) for row in rows}
    assert len(files) == 4 * len(NAMES)
    assert all(Image.open(file).size == (16, 16) for file in files)
    assert run.drawing("picture").is_file()


def test_a_row_holds_the_name_as_text(run):
    names = {row["image"] for row in read_rows(run.rows_file)[0]}
    assert {f"test-a b'\\n$10_to_$20-{name}.png" for name in (NAMES[0], "a\\nb", "caf\\udce9")} <= names


def test_a_folder_whose_name_is_no_text_is_refused_before_the_run():
    with pytest.raises(InputError, match=r"data is 'folder:caf\\udce9', which has bytes that are no text; rename"):
        Config(data=os.fsdecode(b"folder:caf\xe9"))
