"""`prior train-denoiser`: what it writes and learns, and a killed training compared with an undisturbed one."""

import json
import math

import pytest
import torch
from PIL import Image

from benchmark.priors.commands import train_denoiser
from priors import train_denoiser as training
from priors import weights
from priors.train_denoiser import Lesson
from victims.data.photos import Photos
from victims.errors import InputError


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(training, "OPTIONS", {"depth": 3, "width": 4, "residual": True})
    monkeypatch.setattr(training, "CHECKPOINT_EVERY", 2)


@pytest.fixture
def undisturbed(tmp_path):
    out = tmp_path / "at-once" / "denoiser.safetensors"
    train_denoiser(out, size=16, steps=5)
    return out


def names(out):
    return sorted(path.name for path in out.parent.iterdir())


@pytest.fixture
def killed(tmp_path, monkeypatch):
    """The same training, killed in its fourth step."""
    out, step = tmp_path / "killed" / "denoiser.safetensors", Lesson.step

    def until(lesson, images):
        if lesson.done == 3:
            raise KeyboardInterrupt
        return step(lesson, images)

    with monkeypatch.context() as patch:
        patch.setattr(Lesson, "step", until)
        with pytest.raises(KeyboardInterrupt):
            train_denoiser(out, size=16, steps=5)
    return out


def test_it_writes_a_denoiser_that_names_its_training_data(undisturbed):
    denoiser, record = weights.load(undisturbed), json.loads(undisturbed.with_suffix(".json").read_text())
    assert denoiser.trained_on == "photos train, 16 px"
    assert record["command"].endswith("train-denoiser denoiser.safetensors --data photos --size 16 --steps 5 --seed 0")
    assert json.loads(record["options"]) == {"depth": 3, "width": 4, "residual": True}
    assert names(undisturbed) == ["denoiser.json", "denoiser.png", "denoiser.safetensors"]  # the state is gone


def test_a_killed_training_continues_to_the_same_weights_and_picture(undisturbed, killed):
    assert names(killed) == ["denoiser.state"]
    train_denoiser(killed, size=16, steps=5)
    assert names(killed) == names(undisturbed)
    one, other = (weights.load(out).state_dict() for out in (undisturbed, killed))
    assert all(torch.equal(one[name], other[name]) for name in one)
    one, other = (Image.open(out.with_suffix(".png")).tobytes() for out in (undisturbed, killed))
    assert one == other


@pytest.mark.parametrize("changes", [{"seed": 1}, {"steps": 6}, {"size": 24}], ids=str)
def test_the_state_of_another_command_is_refused_in_one_line(killed, changes):
    with pytest.raises(InputError, match="another training") as error:
        train_denoiser(killed, **{"size": 16, "steps": 5, **changes})
    assert "\n" not in str(error.value)


def test_the_loss_is_the_mean_distance_to_the_clean_image_and_the_rate_falls_as_a_cosine():
    lesson, images = Lesson(seed=0, steps=4), torch.rand(2, 3, 8, 8)
    draws = torch.Generator()
    draws.set_state(lesson.draws.get_state())
    sigma, noise = 75 / 255 * torch.rand(2, generator=draws), torch.randn(images.shape, generator=draws)
    noisy = torch.stack([image + s * n for image, s, n in zip(images, sigma, noise, strict=True)])
    expected = (lesson.denoiser(noisy, sigma) - images).abs().mean().item()
    assert lesson.step(images) == pytest.approx(expected, rel=1e-5)
    rates = [lesson.adam.param_groups[0]["lr"]]
    for _ in range(3):
        lesson.step(images)
        rates.append(lesson.adam.param_groups[0]["lr"])
    assert rates == pytest.approx([1e-3 * math.cos(k * math.pi / 8) ** 2 for k in range(4)])


def test_a_denoiser_begins_with_the_image_as_it_is_and_learns_to_remove_noise(monkeypatch):
    monkeypatch.setattr(training, "OPTIONS", {"depth": 3, "width": 24, "residual": True})
    data, lesson = Photos(split="train", size=8), Lesson(seed=0, steps=300)
    draws = torch.Generator().manual_seed(0)
    x = torch.rand(2, 3, 8, 8)
    assert torch.equal(lesson.denoiser(x, 0.2), x)
    losses = [lesson.step(data.augmented(16, draws)[0]) for _ in range(300)]
    assert sum(losses[-20:]) < 0.85 * sum(losses[:20])


@pytest.mark.parametrize(
    ("changes", "match"), [({"out": "denoiser.pt"}, "safetensors"), ({"steps": 0}, "steps"), ({"data": "no"}, "photos")]
)
def test_bad_options_are_refused_before_anything_is_written(tmp_path, changes, match):
    out = tmp_path / "new" / changes.pop("out", "denoiser.safetensors")
    with pytest.raises(InputError, match=match):
        train_denoiser(out, **changes)
    assert not out.parent.exists()


def test_images_in_gray_are_refused(tmp_path):
    data = Photos(split="train")
    data.__class__ = type("Gray", (Photos,), {"image_shape": (1, 32, 32)})
    with pytest.raises(InputError, match="in color"):
        training.train(data, tmp_path / "d.safetensors", steps=1, seed=0, trained_on="", command="")
