"""FFHQ: faces with the decade of their age."""

import hashlib
import json

import numpy as np
import pytest
from PIL import Image

from tests.conftest import SHARED
from victims.data.ffhq import FFHQ
from victims.errors import InputError, Notice

NUMBERS = [*range(40), 60_000, 60_001, 69_999]


@pytest.fixture
def root(tmp_path):
    """Forty training faces and three for validation, number n aged 2 n + 0.9; number 1 has no age."""
    (tmp_path / "ffhq" / "json").mkdir(parents=True)
    for side in (64, 32):
        (tmp_path / "ffhq" / f"images{side}x{side}").mkdir()
    for n in NUMBERS:
        for side in (64, 32):
            face = np.full((side, side, 3), (n % 256, side, 0), np.uint8)
            Image.fromarray(face).save(tmp_path / "ffhq" / f"images{side}x{side}" / f"{n:05d}.png")
        faces = [] if n == 1 else [{"faceAttributes": {"age": min(2 * n + 0.9, 101)}}]
        (tmp_path / "ffhq" / "json" / f"{n:05d}.json").write_text(json.dumps(faces))
    return tmp_path


def test_labels_are_decades_and_splits_depend_on_the_number(root):
    with pytest.warns(Notice, match="leaves out 1 of") as notices:
        train, tune = (FFHQ(split=split, size=32, data_dir=root) for split in ("train", "tune"))
    assert len(notices) == 1
    labels = {name: label for data in (train, tune) for name, label in zip(data.ids, data.labels.tolist(), strict=True)}
    assert labels == {f"{n:05d}": (2 * n) // 10 for n in range(40) if n != 1}
    assert len(train) + len(tune) == len(labels)
    assert set(tune.ids) == {name for name in labels if hashlib.sha256(name.encode()).hexdigest()[-1] in "08"}
    assert tune.ids
    assert FFHQ(split="test", size=32, data_dir=root).labels.tolist() == [9, 9, 9]
    for index, name in enumerate(train.ids):
        assert (train[index][0][0] * 255 == int(name)).all()


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "{}",
        '[{"faceAttributes": {}}]',
        '[{"faceAttributes": {"age": null}}]',
        '[{"faceAttributes": {"age": 1e999}}]',
    ],
)
def test_faces_without_an_age_are_counted_in_one_line(root, content):
    for n in (60_000, 69_999):
        (root / "ffhq" / "json" / f"{n}.json").write_text(content)
    with pytest.warns(Notice, match="leaves out 2 of 3 test faces, which have no age") as notices:
        data = FFHQ(data_dir=root)
    assert len(notices) == 1
    assert data.ids == ["60001"]


def test_a_broken_record_is_named_and_its_face_left_out(root):
    (root / "ffhq" / "json" / "60000.json").write_bytes(b"{")
    (root / "ffhq" / "json" / "60001.json").write_bytes(b"\xff\xfe\x00")
    with pytest.warns(Notice, match=r"no JSON: 60000\.json, 60001\.json\.") as notices:
        assert FFHQ(data_dir=root).ids == ["69999"]
    assert len(notices) == 1


def test_other_files_are_ignored(root):
    (root / "ffhq" / "images64x64_old").mkdir()
    Image.new("RGB", (64, 64)).save(root / "ffhq" / "images64x64" / "mask.png")
    assert FFHQ(data_dir=root).ids == ["60000", "60001", "69999"]


@pytest.mark.parametrize(("size", "taken"), [(16, 32), (32, 32), (48, 64), (64, 64), (80, 64)])
def test_the_smallest_files_that_are_large_enough_are_taken(root, size, taken):
    image, _ = FFHQ(split="test", size=size, data_dir=root)[0]
    assert image.shape == (3, size, size)
    assert (image[1] * 255 == taken).all()


def test_a_rule_that_needs_more_pixels_takes_larger_files(root):
    assert (FFHQ(size=32, resize="gias", data_dir=root)[0][0][1] * 255 == 64).all()


def test_missing_files_are_reported_in_one_line(root, tmp_path):
    with pytest.raises(InputError, match=r"no test images in .*ffhq; put them there") as error:
        FFHQ(data_dir=tmp_path / "elsewhere")
    assert "\n" not in str(error.value)
    (root / "ffhq" / "json").rename(root / "ffhq" / "x")
    with pytest.raises(InputError, match=r"no ages for its test images in .*json; put the json files there"):
        FFHQ(data_dir=root)


@pytest.mark.shared
@pytest.mark.skipif(not (SHARED / "data" / "ffhq").is_dir(), reason="needs ../shared/data/ffhq")
def test_real_faces():
    data = FFHQ(split="train", size=64, data_dir=SHARED / "data")
    assert data.labels[data.ids.index("00001")] == 2  # the record says 26
    assert data[0][0].std() > 0.1
