"""The embedded photographs: stable, split without a shared pixel, and cropped by plain averages."""

from itertools import combinations

import numpy as np
import pytest
import torch

from victims.data import photos
from victims.data.base import ImageData
from victims.data.photos import PHOTOGRAPHS, Photos, photograph
from victims.errors import InputError

SPLITS = ("train", "tune", "test")
WINDOW = 64
GREY_LEVEL = 1 / 255 + 1e-6
each_split = pytest.mark.parametrize("split", SPLITS)
each_photograph = pytest.mark.parametrize("name", PHOTOGRAPHS)

PINNED_IDS = {  # first, one in the middle, last
    "train": {0: "astronaut-train-x16-y0", 12: "chelsea-train-x6-y0", 191: "flower-train-x361-y320"},
    "tune": {0: "astronaut-tune-x304-y0", 6: "chelsea-tune-x439-y0", 95: "flower-tune-x505-y320"},
    "test": {0: "astronaut-test-x112-y0", 6: "chelsea-test-x150-y0", 95: "flower-test-x217-y320"},
}


@pytest.fixture(scope="module")
def pixels():
    """A function that gives a photograph as (H, W, 3) in 0..255."""
    return lambda name: np.asarray(photograph(name)).astype(float)


def windows(name: str, split: str) -> list[tuple[int, int]]:
    """(x, y) of the split's windows in one photograph, read from the ids."""
    parts = [image_id.split("-") for image_id in Photos(split=split).ids]
    return [(int(x[1:]), int(y[1:])) for photo, _, x, y in parts if photo == name]


def columns(name: str, split: str) -> set[int]:
    return {column for x, _ in windows(name, split) for column in range(x, x + WINDOW)}


# Names and pixels that published rows refer to.


@each_split
def test_ids_are_unique_and_pinned(split):
    ids = Photos(split=split).ids
    assert len(set(ids)) == len(ids)
    assert {index: ids[index] for index in PINNED_IDS[split]} == PINNED_IDS[split]


@each_split
def test_ids_do_not_depend_on_the_size(split):
    assert Photos(split=split, size=32).ids == Photos(split=split, size=64).ids


def test_splits_share_no_id():
    ids = [image_id for split in SPLITS for image_id in Photos(split=split).ids]
    assert len(set(ids)) == len(ids)


@each_split
@pytest.mark.parametrize("size", [32, 64])
def test_items_are_images_of_their_class_in_0_1(split, size):
    data = Photos(split=split, size=size)
    images, labels = data.batch(range(len(data)))
    assert images.shape == (len(data), 3, size, size)
    assert images.dtype == torch.float32
    assert images.min() >= 0
    assert images.max() <= 1
    assert torch.equal(labels, data.labels)
    assert [data.classes[label] for label in labels] == [image_id.split("-")[0] for image_id in data.ids]


@each_split
def test_every_split_holds_all_ten_classes(split):
    data = Photos(split=split)
    counts = torch.bincount(data.labels, minlength=10)
    assert len(data.classes) == len(set(data.classes)) == 10
    assert counts.min() >= 6
    assert counts.sum() == len(data) == {"train": 192, "tune": 96, "test": 96}[split]


@pytest.mark.parametrize(
    ("split", "index", "left", "right"),
    [  # means of a crop's left and right half, by channel
        ("test", 0, [0.652, 0.601, 0.531], [0.635, 0.555, 0.441]),
        ("test", 95, [0.142, 0.176, 0.075], [0.319, 0.371, 0.224]),
        ("train", 100, [0.717, 0.268, 0.262], [0.549, 0.129, 0.115]),
        ("tune", 50, [0.344, 0.296, 0.273], [0.315, 0.232, 0.193]),
    ],
)
def test_pixels_are_pinned(split, index, left, right):
    image, _ = Photos(split=split, size=32)[index]
    assert image[..., :16].mean((1, 2)).tolist() == pytest.approx(left, abs=2e-3)
    assert image[..., 16:].mean((1, 2)).tolist() == pytest.approx(right, abs=2e-3)


@pytest.mark.parametrize(
    ("split", "index", "contrast"),
    [("test", 0, 0.0302), ("train", 100, 0.0414), ("tune", 50, 0.0531)],
)
def test_sharpness_is_pinned(split, index, contrast):
    """The mean step between neighbors in a row: another resampling of the photograph would change it."""
    image, _ = Photos(split=split, size=64)[index]
    assert image.diff(dim=-1).abs().mean().item() == pytest.approx(contrast, abs=1e-3)


def test_constants_are_those_of_the_train_crops_at_32_px():
    data = Photos(split="train", size=32)
    values = np.stack([image.numpy() for image, _ in data]).transpose(1, 0, 2, 3).reshape(3, -1)
    assert data.mean == pytest.approx(values.mean(1), abs=2e-3)
    assert data.std == pytest.approx(values.std(1), abs=2e-3)


# Splits share nothing.


@each_photograph
def test_windows_of_all_splits_are_disjoint_and_inside(name):
    boxes = [box for split in SPLITS for box in windows(name, split)]
    for (x, y), (other_x, other_y) in combinations(boxes, 2):
        assert abs(x - other_x) >= WINDOW or abs(y - other_y) >= WINDOW
    width, height = photograph(name).size
    assert all(0 <= x <= width - WINDOW and 0 <= y <= height - WINDOW for x, y in boxes)


@each_photograph
def test_splits_share_no_column(name):
    for one, other in combinations(SPLITS, 2):
        assert not columns(name, one) & columns(name, other)


@each_photograph
@pytest.mark.parametrize("quarter", [1, 2, 3])
def test_splits_share_no_pixel_of_the_original(name, quarter, monkeypatch, pixels):
    """Noise in the original on one side of a border between quarters reaches no window on its other side."""
    original = PHOTOGRAPHS[name]()
    here = round(quarter * photograph(name).width / 4)
    border = round(quarter * original.shape[1] / 4)
    used = sorted(set().union(*(columns(name, split) for split in SPLITS)))
    left, right = [x for x in used if x < here], [x for x in used if x >= here]
    assert left
    assert right
    for spoilt, kept in ((slice(None, border), right), (slice(border, None), left)):
        noisy = original.copy()
        noisy[:, spoilt] = np.random.default_rng(0).integers(256, size=noisy[:, spoilt].shape, dtype=np.uint8)
        monkeypatch.setitem(PHOTOGRAPHS, name, lambda noisy=noisy: noisy)
        seen = np.asarray(photograph.__wrapped__(name)).astype(float)
        assert np.array_equal(seen[:, kept], pixels(name)[:, kept])
        assert not np.array_equal(seen, pixels(name))


# Crops.


@each_photograph
def test_a_crop_is_the_area_average_of_its_window(name, pixels):
    data, full = Photos(split="test", size=32), Photos(split="test", size=64)
    index = data.labels.tolist().index(data.classes.index(name))
    (x, y), *_ = windows(name, "test")
    window = pixels(name)[y : y + WINDOW, x : x + WINDOW] / 255
    averaged = window.reshape(32, 2, 32, 2, 3).mean((1, 3))
    assert np.abs(data[index][0].permute(1, 2, 0).numpy() - averaged).max() <= GREY_LEVEL
    assert np.abs(full[index][0].permute(1, 2, 0).numpy() - window).max() <= 1e-6


@each_photograph
def test_photographs_keep_their_aspect(name):
    width, height = photograph(name).size
    rows, cols = PHOTOGRAPHS[name]().shape[:2]
    assert min(width, height) == 384
    assert width / height == pytest.approx(cols / rows, abs=1 / 384)


# Images for training a prior.


@pytest.fixture
def boxes(monkeypatch):
    """The boxes of 2000 images that `augmented` drew from the train split: (name, left, top, window)."""
    seen = []

    def record(name, left, top, size, window=WINDOW):
        seen.append((name, left, top, window))
        return torch.zeros(3, size, size)

    monkeypatch.setattr(photos, "crop", record)
    Photos(split="train").augmented(2000, torch.Generator().manual_seed(0))
    return seen


def test_augmented_windows_stay_inside_the_train_quarters(boxes):
    for name, left, top, window in boxes:
        width, height = photograph(name).size
        first, third = (0, width / 4), (width / 2, 3 * width / 4)
        assert any(low <= left and left + window <= high for low, high in (first, third))
        assert 0 <= top <= height - window


@pytest.mark.parametrize("other", ["tune", "test"])
def test_augmented_windows_touch_no_scored_column(boxes, other):
    forbidden = {name: columns(name, other) for name in PHOTOGRAPHS}
    for name, left, _, window in boxes:
        assert forbidden[name].isdisjoint(range(left, left + window))


def test_augmented_windows_are_spread(boxes):
    sizes = [window for *_, window in boxes]
    strips = {(name, left > photograph(name).width / 2 - 1) for name, left, *_ in boxes}
    assert 48 <= min(sizes) <= 50
    assert 94 <= max(sizes) <= 96
    assert strips == {(name, strip) for name in PHOTOGRAPHS for strip in (False, True)}


@pytest.mark.parametrize("size", [32, 64])
def test_augmented_depends_only_on_the_generator(size):
    data = Photos(split="train", size=size)

    def draw(seed):
        return data.augmented(6, torch.Generator().manual_seed(seed))[0]

    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = draw(3)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, draw(3))
    assert not torch.equal(first, draw(4))
    assert first.shape == (6, 3, size, size)


class TwoImages(ImageData):
    """Two ramps that are not their own mirror images."""

    ids = classes = ["a", "b"]
    labels = torch.tensor([0, 1])

    def __getitem__(self, index):
        return torch.arange(3.0).expand(1, 2, 3) / 10 + index / 2, index


def test_any_data_set_is_augmented_by_mirroring_half_its_images():
    data = TwoImages()
    drawn, labels = data.augmented(400, torch.Generator().manual_seed(0))
    kinds = [data[0][0], data[0][0].flip(-1), data[1][0], data[1][0].flip(-1)]
    counts = [sum(torch.equal(image, kind) for image in drawn) for kind in kinds]
    assert sum(counts) == 400
    assert min(counts) > 70  # 100 expected, standard deviation 9
    assert labels.tolist() == [int(not any(torch.equal(image, kind) for kind in kinds[:2])) for image in drawn]


def test_what_is_held_out_is_never_drawn():
    data = TwoImages()
    _, labels = data.augmented(200, torch.Generator().manual_seed(0), without={1})
    assert not labels.any()


def test_half_of_the_crops_are_mirrored(monkeypatch):
    """One window alone, so that a crop or its mirror image is drawn."""
    ramp = torch.arange(24.0).reshape(1, 4, 6).expand(3, 4, 6) / 24
    monkeypatch.setattr(photos, "crop", lambda *_: ramp)
    drawn, _ = Photos(split="train").augmented(200, torch.Generator().manual_seed(0))
    mirrored = sum(torch.equal(image, ramp.flip(-1)) for image in drawn)
    assert sum(torch.equal(image, ramp) for image in drawn) == 200 - mirrored
    assert 70 < mirrored < 130  # 100 expected, standard deviation 7


# What the user can fix.


@pytest.mark.parametrize("options", [{"split": "val"}, {"split": "Test"}, {"size": 7}, {"size": 65}, {"size": 0}])
def test_invalid_options_are_refused_in_one_line(options):
    ((name, value),) = options.items()
    with pytest.raises(InputError, match=str(value)) as error:
        Photos(**options)
    assert name in str(error.value) or "wide" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("size", [8, 64])
def test_the_smallest_and_the_largest_size_are_allowed(size):
    assert Photos(size=size)[0][0].shape == (3, size, size)
