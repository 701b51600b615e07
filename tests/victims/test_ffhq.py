"""FFHQ: faces with the decade of their age."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.conftest import SHARED
from victims.data.ffhq import FFHQ
from victims.errors import InputError


@pytest.fixture
def root(tmp_path):
    """Sixteen training faces and three for validation, number n aged 3 n + 0.9; number 2 has no age."""
    (tmp_path / "ffhq" / "json").mkdir(parents=True)
    for side in (64, 32):
        (tmp_path / "ffhq" / f"images{side}x{side}").mkdir()
    for n in [*range(16), 60_000, 60_001, 69_999]:
        for side in (64, 32):
            face = np.full((side, side, 3), (n % 256, side, 0), np.uint8)
            Image.fromarray(face).save(tmp_path / "ffhq" / f"images{side}x{side}" / f"{n:05d}.png")
        faces = [] if n == 2 else [{"faceAttributes": {"age": min(3 * n + 0.9, 101)}}]
        (tmp_path / "ffhq" / "json" / f"{n:05d}.json").write_text(json.dumps(faces))
    return tmp_path


def test_labels_are_decades_and_faces_without_an_age_are_left_out(root):
    train = FFHQ(split="train", size=32, data_dir=root)
    expected = {f"{n:05d}": (3 * n) // 10 for n in range(16) if n not in (2, 7, 15)}
    assert dict(zip(train.ids, train.labels.tolist(), strict=True)) == expected
    assert FFHQ(split="test", size=32, data_dir=root).labels.tolist() == [9, 9, 9]
    assert FFHQ(split="tune", size=32, data_dir=root).ids == ["00007", "00015"]
    for index, name in enumerate(train.ids):
        assert (train[index][0][0] * 255 == int(name)).all()


@pytest.mark.parametrize(("size", "taken"), [(16, 32), (32, 32), (48, 64), (64, 64), (80, 64)])
def test_the_smallest_files_that_are_large_enough_are_taken(root, size, taken):
    image, _ = FFHQ(split="test", size=size, data_dir=root)[0]
    assert image.shape == (3, size, size)
    assert (image[1] * 255 == taken).all()


def test_what_is_not_there_is_said_in_one_line(root, tmp_path):
    with pytest.raises(InputError, match="with an age") as error:
        FFHQ(data_dir=tmp_path / "elsewhere")
    assert "\n" not in str(error.value)
    (root / "ffhq" / "json" / "60000.json").write_text("{")
    with pytest.raises(InputError, match=r"60000\.json is no JSON"):
        FFHQ(data_dir=root)


@pytest.mark.shared
@pytest.mark.skipif(not (SHARED / "data" / "ffhq").is_dir(), reason="needs ../shared/data/ffhq")
def test_real_faces():
    data = FFHQ(split="train", size=64, data_dir=SHARED / "data")
    assert data.labels[data.ids.index("00001")] == 2  # the record says 26
    assert data[0][0].std() > 0.1
