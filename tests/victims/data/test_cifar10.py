"""CIFAR-10 and CIFAR-100, in folders and as their authors' files."""

import hashlib
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import SHARED
from victims.data.base import split_of
from victims.data.cifar10 import CIFAR10
from victims.data.cifar100 import CIFAR100
from victims.errors import InputError, Notice

TRAIN, TEST = 200, 20


def pixels(part: str, place: int) -> np.ndarray:
    """Image number `place`: noise, so that any mixing up of axes or channels shows."""
    return np.random.default_rng([len(part), place]).integers(0, 256, (32, 32, 3), np.uint8)


def label(place: int, classes: int) -> int:
    return 7 * place % classes


def write_folders(root, data) -> None:
    for part, count in (("train", TRAIN), ("test", TEST)):
        for place in range(count):
            folder = root / data.name / part / data.classes[label(place, len(data.classes))]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels(part, place)).save(folder / f"{place:05d}.png")


def write_published(root, data, monkeypatch) -> None:
    """The authors' layout: pickled rows of 1024 red, green and blue bytes; torchvision is told their checksums."""
    published = data.published
    folder = root / published.base_folder
    folder.mkdir(parents=True)
    key = "labels" if data is CIFAR10 else "fine_labels"

    def dump(name, content):
        (folder / name).write_bytes(pickle.dumps(content))
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    lists = {}
    for part, count, files in (("train", TRAIN, published.train_list), ("test", TEST, published.test_list)):
        lists[part] = []
        for file, places in zip(files, np.array_split(np.arange(count), len(files)), strict=True):
            rows = np.stack([pixels(part, place).transpose(2, 0, 1).reshape(-1) for place in places])
            labels = [label(int(place), len(data.classes)) for place in places]
            lists[part].append([file[0], dump(file[0], {"data": rows, key: labels})])
    meta = dict(published.meta)
    meta["md5"] = dump(meta["filename"], {meta["key"]: list(data.classes)})
    monkeypatch.setattr(published, "train_list", lists["train"])
    monkeypatch.setattr(published, "test_list", lists["test"])
    monkeypatch.setattr(published, "meta", meta)


def opened(root, data, split):
    found = data(split=split, data_dir=root)
    return {name: (image, int(label)) for name, (image, label) in zip(found.ids, found, strict=True)}


@pytest.mark.filterwarnings("ignore::victims.errors.Notice")  # 20 test images are not of a hundred classes
@pytest.mark.parametrize("data", [CIFAR10, CIFAR100])
@pytest.mark.parametrize("split", ["train", "tune", "test"])
def test_both_layouts_give_the_same_images_labels_ids_and_splits(tmp_path, monkeypatch, data, split):
    write_folders(tmp_path / "folders", data)
    write_published(tmp_path / "published", data, monkeypatch)
    folders, published = (opened(tmp_path / layout, data, split) for layout in ("folders", "published"))
    assert folders.keys() == published.keys()
    assert folders.keys()
    for name, (image, found) in folders.items():
        class_name, part, place = name.split("-")
        assert class_name == data.classes[found]
        assert found == published[name][1] == label(int(place), len(data.classes))
        expected = torch.from_numpy(pixels(part, int(place))).permute(2, 0, 1) / 255
        assert torch.equal(image, expected)
        assert torch.equal(published[name][0], expected)


def test_splits_share_no_image_leave_none_out_and_do_not_depend_on_missing_images(tmp_path):
    write_folders(tmp_path, CIFAR10)
    train, tune = (set(CIFAR10(split=split, data_dir=tmp_path).ids) for split in ("train", "tune"))
    assert not train & tune
    assert len(train | tune) == TRAIN
    assert {name.partition("-")[2] for name in tune} == {
        f"train-{place:05d}" for place in range(TRAIN) if split_of(f"train-{place:05d}", ("train", "tune")) == "tune"
    }
    for name in sorted(train)[::2]:
        (tmp_path / "cifar10" / "train" / name.split("-")[0] / f"{name[-5:]}.png").unlink()
    assert set(CIFAR10(split="tune", data_dir=tmp_path).ids) == tune


@pytest.mark.filterwarnings("ignore::victims.errors.Notice")
def test_jpegs_are_read_and_are_no_originals(tmp_path):
    folder = tmp_path / "cifar10" / "test" / "cat"
    folder.mkdir(parents=True)
    Image.new("RGB", (32, 32)).save(folder / "00000.jpg")
    assert CIFAR10(data_dir=tmp_path).ids == ["cat-test-00000.jpg"]


def test_a_class_without_images_is_named_and_its_label_stays(tmp_path):
    write_folders(tmp_path, CIFAR10)
    for file in (tmp_path / "cifar10" / "test" / "bird").iterdir():
        file.unlink()
    with pytest.warns(Notice, match=r"cifar10 has no images in .* of bird\."):
        data = CIFAR10(data_dir=tmp_path)
    assert sorted(set(data.labels.tolist())) == [0, 1, 3, 4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize("spoil", [lambda file: file.write_bytes(b"x" + file.read_bytes()), lambda file: file.unlink()])
def test_published_files_with_other_checksums_are_refused_unread(tmp_path, monkeypatch, spoil):
    write_published(tmp_path, CIFAR10, monkeypatch)
    spoil(tmp_path / "cifar-10-batches-py" / "data_batch_3")
    monkeypatch.setattr(pickle, "load", lambda *_, **__: pytest.fail("unpickled"))
    with pytest.raises(InputError, match=r"cifar-10-batches-py is incomplete, or its checksums") as error:
        CIFAR10(data_dir=tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("data", [CIFAR10, CIFAR100])
def test_a_missing_data_set_is_reported_in_one_line(tmp_path, data):
    with pytest.raises(
        InputError, match=rf"{data.name} has no test images in .*{data.name}.test; .*--data-dir"
    ) as error:
        data(data_dir=tmp_path)
    assert "\n" not in str(error.value)


def test_the_hundred_classes():
    assert len(set(CIFAR100.classes)) == 100
    assert list(CIFAR100.classes) == sorted(CIFAR100.classes)
    # Krizhevsky's first and last, and a few places that are often quoted
    places = {"apple": 0, "beaver": 4, "camel": 15, "maple_tree": 47, "sunflower": 82, "worm": 99}
    assert {name: CIFAR100.classes.index(name) for name in places} == places


@pytest.mark.shared
@pytest.mark.skipif(not (SHARED / "data" / "cifar10").is_dir(), reason="needs ../shared/data/cifar10")
def test_real_images_have_the_published_mean_and_deviation():
    data = CIFAR10(split="test", data_dir=SHARED / "data")
    assert len(data) == 800
    assert "cat-test-00000" in data.ids  # the first test image is known to be a cat
    images, labels = data.batch(range(len(data)))
    assert torch.equal(labels, data.labels)
    torch.testing.assert_close(images.mean((0, 2, 3)), torch.tensor(data.mean), atol=0.02, rtol=0)
    torch.testing.assert_close(images.std((0, 2, 3)), torch.tensor(data.std), atol=0.02, rtol=0)
