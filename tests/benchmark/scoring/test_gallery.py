"""The gallery of IIP: the images of a split from a file that is written once, or from memory; the same scores."""

import os
import shutil
import warnings
from threading import Thread

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from benchmark.scoring import gallery
from benchmark.scoring.gallery import CONTENT, FOLDER, PIXELS, read_split
from benchmark.scoring.metrics import Gallery, iip
from victims.data.folder import Folder
from victims.errors import InputError, Notice

COUNT = 12


@pytest.fixture
def pictures(tmp_path):
    random = np.random.default_rng(0)
    (tmp_path / "mine" / "test" / "k").mkdir(parents=True)
    for number in range(COUNT):
        picture = Image.fromarray(random.integers(0, 255, (9, 9, 3), dtype=np.uint8))
        picture.save(tmp_path / "mine" / "test" / "k" / f"{number:02}.png")
    return tmp_path / "mine"


@pytest.fixture
def opened(pictures, monkeypatch):
    """The data set of the pictures; `opened.read` lists what was decoded."""
    read = []

    def getitem(data, index, getitem=Folder.__getitem__):
        read.append(index)
        return getitem(data, index)

    monkeypatch.setattr(Folder, "__getitem__", getitem)

    def opened(size: int = 8) -> Folder:
        return Folder(pictures, split="test", size=size)

    opened.read = read
    return opened


@pytest.fixture
def large(monkeypatch):
    """Every split is a large one."""
    monkeypatch.setattr(gallery, "SMALL", 0)


def whole(split) -> Tensor:
    return torch.cat(list(split.images.split(5)))


def bytes_of(data) -> Tensor:
    return torch.stack([(data[index][0] * 255).round().byte() for index in range(len(data))])


def test_a_file_and_the_memory_hold_the_same_images(opened, tmp_path, monkeypatch):
    in_memory = read_split(opened(), tmp_path, "")
    assert not (tmp_path / FOLDER).exists()
    monkeypatch.setattr(gallery, "SMALL", 0)
    for _ in range(2):  # written, then read
        stored = read_split(opened(), tmp_path, "")
        assert stored.ids == in_memory.ids == opened().ids
        assert torch.equal(whole(stored), whole(in_memory))
        assert torch.equal(whole(stored), bytes_of(opened()))
        assert torch.equal(whole(stored), whole(stored))  # again from the beginning


def test_iip_is_that_of_all_images_in_memory(opened, tmp_path, large, monkeypatch):
    stored, images = read_split(opened(), tmp_path, ""), bytes_of(opened())
    monkeypatch.setattr("benchmark.scoring.metrics.BLOCK", 5 * images[0].numel())
    index = torch.tensor([3, 7, 11])
    for noise in (0, 0.2, 0.6, 3):
        truth = images[index] / 255
        near = truth + noise * torch.randn(truth.shape, generator=torch.Generator().manual_seed(1))
        distances = (near[:, None] - images / 255).square().flatten(2).sum(2)
        expected = (distances.argmin(1) == index).float().tolist()
        assert iip(near, truth, gallery=Gallery(stored.images, index)).tolist() == expected
        assert iip(near, truth, gallery=Gallery(images, index)).tolist() == expected


def test_processes_at_the_same_time_read_the_images_once(opened, tmp_path, large):
    data = [opened() for _ in range(3)]
    found: list = []
    threads = [Thread(target=lambda each=each: found.append(read_split(each, tmp_path, ""))) for each in data]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 3
    assert all(torch.equal(whole(split), whole(found[0])) for split in found)
    samples = 3 * len(list(gallery.samples(opened())))
    assert len(opened.read) <= samples + samples / 3 + COUNT + 1  # one of them decoded all, and the first for its shape


def test_other_content_is_another_gallery(opened, pictures, tmp_path, large):
    read_split(opened(), tmp_path, "a")
    for other in (lambda: read_split(opened(), tmp_path, "b"), lambda: read_split(opened(9), tmp_path, "a")):
        assert torch.equal(whole(other()), whole(other()))
    assert len(list((tmp_path / FOLDER).iterdir())) == 3


def replaced(file, *, seed: int, same_times: bool) -> None:
    """Another picture of as many bytes in the place of this one."""
    before = file.stat()
    picture = np.random.default_rng(seed).integers(0, 255, (9, 9, 3), dtype=np.uint8)
    Image.fromarray(picture).save(file, "bmp")
    if same_times:
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("same_times", [False, True])
def test_pictures_that_were_replaced_are_another_gallery(opened, pictures, tmp_path, large, monkeypatch, same_times):
    monkeypatch.setattr(gallery, "samples", lambda data: iter(()))  # as if none of them were sampled
    file = pictures / "test" / "k" / "03.png"
    replaced(file, seed=1, same_times=False)
    before = read_split(opened(), tmp_path, "")
    replaced(file, seed=2, same_times=same_times)
    after = read_split(opened(), tmp_path, "")
    assert torch.equal(whole(after), bytes_of(opened()))
    assert not torch.equal(whole(after), whole(before))


def test_a_truth_that_is_not_in_its_place_is_refused_and_the_gallery_made_again(opened, tmp_path, large):
    data, split = opened(), read_split(opened(), tmp_path, "")
    images, _ = data.batch([5, 2])
    ids = [data.ids[5], data.ids[2]]
    assert split.places(ids, images).tolist() == [5, 2]
    (folder,) = (tmp_path / FOLDER).iterdir()
    stored = (folder / PIXELS).read_bytes()
    (folder / PIXELS).write_bytes(bytes([stored[0] ^ 1]) + stored[1:])  # of the first image alone
    split = read_split(opened(), tmp_path, "")
    assert split.places(ids, images).tolist() == [5, 2]
    for name, image in ((data.ids[0], data[0][0]), ("gone", images[0]), (ids[0], images[1])):
        with pytest.raises(InputError, match=f"the image {name} is not the one among which IIP looks: "):
            split.places([ids[0], name], torch.stack([images[0], image]))
    assert torch.equal(whole(read_split(opened(), tmp_path, "")), bytes_of(data))


@pytest.mark.parametrize("name", [PIXELS, CONTENT])
def test_a_gallery_that_is_not_whole_is_written_again(name, opened, tmp_path, large):
    read_split(opened(), tmp_path, "")
    (file,) = (tmp_path / FOLDER).glob(f"*/{name}")
    for cut in (file.read_bytes()[:-192], file.read_bytes()[:-1], b"", file.read_bytes() * 2):
        file.write_bytes(cut)
        assert torch.equal(whole(read_split(opened(), tmp_path, "")), bytes_of(opened()))


def test_a_gallery_that_was_cut_or_removed_is_written_again(opened, tmp_path, large):
    before = read_split(opened(), tmp_path, "")
    (folder,) = (tmp_path / FOLDER).iterdir()
    assert {path.name for path in folder.iterdir()} == {PIXELS, CONTENT}
    (folder / CONTENT).unlink()  # as if the process had been killed before its end
    (folder / f"{PIXELS}.partial").write_bytes(b"half")
    again = read_split(opened(), tmp_path, "")
    shutil.rmtree(tmp_path / FOLDER)
    assert torch.equal(whole(again), whole(before))  # both are still open
    assert torch.equal(whole(read_split(opened(), tmp_path, "")), whole(before))


def test_unreadable_and_equal_pictures_are_named_also_by_those_who_read_the_file(opened, pictures, tmp_path, large):
    folder = pictures / "test" / "k"
    (folder / "03.png").write_bytes(b"no picture")
    shutil.copy(folder / "00.png", folder / "05.png")
    for _ in range(2):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", Notice)
            split = read_split(opened(), tmp_path, "")
        said = [str(warning.message) for warning in caught]
        assert any("03.png is no image that can be read" in line for line in said)
        assert any("under several names, such as test-k-00.png, test-k-05.png" in line for line in said)
        assert len(split.ids) == COUNT - 1
        place = split.ids.index("test-k-04.png")
        assert torch.equal(whole(split)[place], (opened()[4][0] * 255).round().byte())
