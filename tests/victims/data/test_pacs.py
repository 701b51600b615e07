"""PACS by domain, with its own labels and with ImageNet's."""

import pytest
from PIL import Image
from timm.data import ImageNetInfo

from tests.conftest import SHARED
from victims.data.pacs import PACS
from victims.data.pacs_imagenet import PACSImageNet
from victims.errors import InputError, Notice


@pytest.fixture
def root(tmp_path):
    """Six images of every class in every domain; red is the domain, green the class."""
    for red, domain in enumerate(PACS.domains):
        for green, name in enumerate(PACS.classes):
            folder = tmp_path / "pacs" / domain / name
            folder.mkdir(parents=True)
            for k in range(6):
                Image.new("RGB", (20, 20), (red, green, k)).save(folder / f"pic_{k}.png")
    return tmp_path


def opened(data, *arguments, root):
    return [data(*arguments, split=split, size=16, data_dir=root) for split in ("train", "tune", "test")]


@pytest.mark.parametrize("domain", PACS.domains)
def test_a_domain_by_name(root, domain):
    for data in opened(PACS, domain, root=root):
        for (image, label), name in zip(data, data.ids, strict=True):
            assert name.startswith(f"{domain}-{PACS.classes[label]}-pic_")
            assert (image[:, 0, 0] * 255).round().tolist()[:2] == [PACS.domains.index(domain), label]


def test_all_domains_are_the_domains_together_and_splits_share_nothing(root):
    together = [set(data.ids) for data in opened(PACS, root=root)]
    assert sum(map(len, together)) == len(set.union(*together)) == 4 * 7 * 6
    for place, all_ids in enumerate(together):
        assert all_ids == set().union(*(opened(PACS, domain, root=root)[place].ids for domain in PACS.domains))


def test_labels_of_imagenet_name_what_pacs_names(root):
    kinds = {"dog": "retriever", "elephant": "elephant", "guitar": "guitar", "horse": "sorrel"}
    for data, own in zip(opened(PACSImageNet, root=root), opened(PACS, root=root), strict=True):
        labels = dict(zip(own.ids, own.labels.tolist(), strict=True))
        assert set(data.ids) == {name for name in own.ids if name.split("-")[1] in kinds}
        for name, label in zip(data.ids, data.labels.tolist(), strict=True):
            kind = kinds[PACS.classes[labels[name]]]
            assert kind in ImageNetInfo().index_to_description(label)
    assert len(data.classes) == 1000


def test_missing_files_are_reported_in_one_line(root, tmp_path):
    for data in (PACS, PACSImageNet):
        with pytest.raises(InputError, match="no domain 'clipart'; it has art_painting, cartoon, photo, sketch"):
            data("clipart", data_dir=root)
        with pytest.raises(InputError, match=r"no test images in .*pacs.sketch; put them there") as error:
            data("sketch", data_dir=tmp_path / "elsewhere")
        assert "\n" not in str(error.value)


def test_an_empty_class_folder_is_named(root):
    for file in (root / "pacs" / "photo" / "horse").iterdir():
        file.unlink()
    with pytest.warns(Notice, match=r"pacs has no images in .*photo of horse\.") as notices:
        PACS(data_dir=root)
    assert len(notices) == 1


@pytest.mark.shared
@pytest.mark.skipif(not (SHARED / "data" / "pacs").is_dir(), reason="needs ../shared/data/pacs")
def test_real_images():
    splits = [PACS("sketch", split=split, data_dir=SHARED / "data") for split in ("train", "tune", "test")]
    assert sum(map(len, splits)) == 70
    image, _ = splits[2][0]
    assert (image > 0.9).float().mean() > 0.6  # black lines on white
    assert len(PACS(split="test", data_dir=SHARED / "data")) > 30
