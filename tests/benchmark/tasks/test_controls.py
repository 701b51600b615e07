"""What controls are made of."""

import pytest
import torch
from PIL import Image

from benchmark.tasks.batches import Batch, draw_batches
from benchmark.tasks.controls import mean_image, strangers
from victims.data.folder import Folder
from victims.data.photos import Photos
from victims.errors import InputError


@pytest.fixture(scope="module")
def data():
    return Photos(split="tune")


def test_strangers_share_the_labels_and_no_image(data):
    for batch in draw_batches(data, "p", batch_size=4, tasks=24):
        others = strangers(data, batch)
        assert not set(others) & set(batch.indices)
        assert len(set(others)) == 4
        assert torch.equal(data.labels[list(others)], data.labels[list(batch.indices)])


def test_strangers_of_another_class_where_a_class_is_used_up(data):
    label = int(data.labels[0])
    whole_class = tuple(torch.nonzero(data.labels == label).flatten().tolist())
    others = strangers(data, Batch("t", whole_class))
    assert not set(others) & set(whole_class)
    with pytest.raises(InputError, match="control"):
        strangers(data, Batch("t", tuple(range(len(data)))))


def test_no_stranger_is_a_copy_of_an_image_of_the_batch(tmp_path):
    """1 is 0 with 5 of 255 added, 34 dB; 2 is 0 with 26 added, 20 dB; and 4, of another class, is 0."""
    first, second = torch.randint(0, 200, (2, 8, 8, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    pictures = {"a": [first, first + 5, first + 26], "b": [second, first]}
    for label, pixels in pictures.items():
        (tmp_path / "test" / label).mkdir(parents=True)
        for place, each in enumerate(pixels):
            Image.fromarray(each.numpy()).save(tmp_path / "test" / label / f"{place}.png")
    data = Folder(tmp_path, size=8)
    for place in range(12):
        assert strangers(data, Batch(f"t{place}", (0,))) == (2,)
        assert strangers(data, Batch(f"t{place}", (3,))) == (4,)
        assert strangers(data, Batch(f"t{place}", (2,)))[0] in (0, 1)
    assert strangers(data, Batch("t", (4,))) == (3,)
    with pytest.raises(InputError, match="is no copy of those of the batch"):
        strangers(data, Batch("t", (0, 2, 3)))


def test_mean_image(data):
    images, _ = data.batch(range(len(data)))
    torch.testing.assert_close(mean_image(data), images.mean(0))
