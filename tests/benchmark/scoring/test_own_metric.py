"""A metric registered from outside, by its decorator alone, is in the row, the table, the page and the picture."""

import json

import pytest

from benchmark.__main__ import main
from benchmark.scoring import metrics, picture
from leaderboard.__main__ import main as leaderboard
from leaderboard.rows import RANGES

SMALL = ["--victim=lenet", "--batch=2", "--tasks=1", "--devices=1", "--wandb=off"]


@pytest.fixture
def worst_pixel():
    @metrics.metric(higher_is_better=False, range=(0, 1), failure=1)
    def worst_pixel(reconstruction, truth):
        """The largest error of a pixel."""
        return (reconstruction - truth).abs().amax((1, 2, 3))

    yield worst_pixel
    del metrics.METRICS["worst_pixel"]


def test_it_is_wherever_the_other_metrics_are(worst_pixel, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "300")
    captions = []

    def caption(row, caption=picture.caption):
        captions.append(caption(row))
        return captions[-1]

    monkeypatch.setattr(picture, "caption", caption)
    assert main(["run", "--control=mean_image", *SMALL, f"--out={tmp_path}"]) == 0
    (file,) = tmp_path.glob("*/rows.jsonl")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert all(0 < row["worst_pixel"] <= 1 and row["higher_is_better"]["worst_pixel"] is False for row in rows)
    newer = {"ssim_cropped": [-1, 1], "worst_pixel": [0, 1]}
    assert rows[0]["ranges"] == RANGES | newer  # those of older rows are those of the metrics
    assert "WORST_PIXEL ↓" in capsys.readouterr().out
    assert len(captions) == 2
    assert all("WORST_PIXEL 0." in text for text in captions)
    assert all(len(line) <= picture.WIDE for text in captions for line in text.splitlines())
    assert leaderboard([str(tmp_path)]) == 0
    mean = sum(row["worst_pixel"] for row in rows) / len(rows)
    assert f"{mean:#.4g}" in (tmp_path / "leaderboard.md").read_text()
    assert "worst_pixel_low" in (tmp_path / "leaderboard.csv").read_text()
    assert '"worst_pixel"' in (tmp_path / "leaderboard.html").read_text()
