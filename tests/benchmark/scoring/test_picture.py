"""The picture of a run says in words what it shows."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import to_tensor

from benchmark.scoring import picture
from leaderboard.run_folder import RunFolder
from tests.leaderboard.conftest import PLAIN

PSNR = (10.0, 12.0, 13.0, 15.0)


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """A function that draws rows with these changes and returns the title of the figure, without line breaks."""

    def make(**changes):
        rows = [PLAIN.flat() | {"task": f"t{k}", "image": f"i{k}", "psnr": p} | changes for k, p in enumerate(PSNR)]
        folder = RunFolder(tmp_path / "run")
        for row in rows:
            folder.write_truth(row["image"], picture.png(torch.full((3, 8, 8), 0.25)))
            folder.write_reconstruction(row["task"], row["image"], picture.png(torch.full((3, 8, 8), 0.5)))
        figures = []
        monkeypatch.setattr(picture, "write_figure", lambda path, figure: figures.append(figure))
        picture.draw_images(folder, rows, ["cat", "dog"])
        return " ".join(figures[0].get_suptitle().split())

    return make


def test_its_title_has_method_setting_and_mean(drawn):
    said = drawn(defense="sparsification:0.9")
    assert "ig: photos, 32 px, convnet, batch 2, defense sparsification:0.9" in said
    assert f"mean PSNR {np.mean(PSNR):.2f} [" in said
    assert "dB, n = 4" in said
    assert "above: private image; below: its reconstruction" in said


@pytest.mark.parametrize(
    ("channels", "shown"), [(1, (0, 0, 0)), (2, (0, 0, 0)), (3, (0, 1, 2)), (4, (0, 1, 2)), (5, (0, 1, 2))]
)
def test_a_picture_shows_three_channels_or_one_and_none_as_transparency(channels, shown):
    image = torch.rand(channels, 6, 8, generator=torch.Generator().manual_seed(0)).mul(255).round() / 255
    with Image.open(io.BytesIO(picture.png(image))) as opened:
        assert opened.mode == "RGB"
        assert torch.equal(to_tensor(opened), image[list(shown)])


def test_curves_are_those_of_each_task_and_their_median(tmp_path, monkeypatch):
    figures, curves = [], [[4.0, 2.0], [8.0, 6.0], [90.0, 1.0]]
    monkeypatch.setattr(picture, "write_figure", lambda path, figure: figures.append(figure))
    picture.draw_curves(tmp_path / "curves.png", curves, "ig")
    (axis,) = figures[0].axes
    assert [list(line.get_ydata()) for line in axis.lines] == [*curves, [8.0, 2.0]]
    assert [list(line.get_xdata()) for line in axis.lines] == [[0, 1]] * 4
    assert axis.get_yscale() == "log"
    assert axis.get_ylabel() == "cost (n = 3 tasks)"


def test_its_title_says_that_a_control_is_none(drawn):
    assert "mean image (control): photos, 32 px" in drawn(control="mean_image")


def test_its_title_says_where_no_image_has_a_psnr(drawn):
    assert "; no PSNR, n = 4" in drawn(psnr=None)
