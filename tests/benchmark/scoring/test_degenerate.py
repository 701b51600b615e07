"""Private images of one color: any flat picture matches them."""

import json

import pytest
from PIL import Image

from benchmark.__main__ import main


@pytest.fixture
def rows(tmp_path, capsys):
    """Of a run on three pictures, by name: `flat` is of one color, `two` of two."""
    for name, colors in {"flat": ["gray", "gray"], "two": ["gray", "navy"], "three": ["red", "white"]}.items():
        (tmp_path / "mine" / "test" / "k").mkdir(parents=True, exist_ok=True)
        picture = Image.new("RGB", (16, 16), colors[0])
        picture.paste(colors[1], (0, 0, 16, 8))
        picture.save(tmp_path / "mine" / "test" / "k" / f"{name}.png")

    def run(*more):
        options = ["--attack=ig", "--victim=lenet", "--size=16", "--batch=1", "--tasks=3", "--steps=3", "--restarts=1"]
        options += ["--devices=1", "--wandb=off", f"--data=folder:{tmp_path / 'mine'}", f"--out={tmp_path / 'out'}"]
        assert main(["run", *options, *more]) == 0
        (file,) = (tmp_path / "out").glob("*/rows.jsonl")
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        return {line["image"].split("-")[-1].removesuffix(".png"): line for line in lines}, capsys.readouterr().out

    return run


def test_the_row_and_the_table_say_it(rows, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    found, printed = rows()
    assert {name: row["degenerate"] for name, row in found.items()} == {"flat": True, "two": False, "three": False}
    assert "PSNR ↑ without degenerate" in printed


def test_an_attack_that_diverges_on_one_is_both(rows, tmp_path, monkeypatch):
    (tmp_path / "broken_net.py").write_text(
        "import torch\nfrom victims.models.lenet import LeNet\n\n\nclass Broken(LeNet):\n"
        "    def forward(self, x):\n        return super().forward(x) / 0 * 0\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    found, _ = rows("--victim=broken_net.Broken")
    assert {(row["status"], row["psnr"]) for row in found.values()} == {("diverged", 0)}
    assert found["flat"]["degenerate"]
