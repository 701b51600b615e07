"""Images of the user's own in class folders."""

import pytest
from PIL import Image

from victims.data.folder import Folder
from victims.errors import InputError, Notice


def write(folder, count, red=0):
    folder.mkdir(parents=True)
    for k in range(count):
        Image.new("RGB", (20, 20), (red, k, 0)).save(folder / f"{k}.png")


def opened(path):
    return {split: Folder(path, split=split, size=16) for split in Folder.splits}


def test_class_folders_are_split_by_hash(tmp_path):
    for red, name in enumerate(("apple", "pear and plum", "zebra")):
        write(tmp_path / name, 40, red)
    write(tmp_path / ".thumbnails", 1)
    (tmp_path / "notes.txt").write_text("no class")
    splits = opened(tmp_path)
    ids = [set(data.ids) for data in splits.values()]
    assert sum(map(len, ids)) == len(set.union(*ids)) == 120
    assert "pear and plum-7.png" in set.union(*ids)
    for data in splits.values():
        assert data.classes == ["apple", "pear and plum", "zebra"]
        assert [round(float(image[0, 0, 0]) * 255) for image, _ in data] == data.labels.tolist()
    for name in splits["train"].ids[:40]:
        class_name, file = name.split("-")
        (tmp_path / class_name / file).unlink()
    assert opened(tmp_path)["test"].ids == splits["test"].ids


def test_split_folders_are_kept_and_tune_is_a_part_of_train(tmp_path):
    for split, classes in {"train": "ab", "test": "bc"}.items():
        for name in classes:
            write(tmp_path / split / name, 24, "abc".index(name))
    with pytest.warns(Notice, match="has no images in"):
        splits = opened(tmp_path)
    assert splits["test"].classes == ["a", "b", "c"]
    assert splits["test"].labels.tolist() == [1] * 24 + [2] * 24
    assert set(splits["test"].ids) == {f"test-{name}-{k}.png" for name in "bc" for k in range(24)}
    assert {*splits["train"].ids, *splits["tune"].ids} == {f"train-{name}-{k}.png" for name in "ab" for k in range(24)}
    assert not set(splits["train"].ids) & set(splits["tune"].ids)
    write(tmp_path / "tune" / "c", 5, 2)
    with pytest.warns(Notice, match="has no images in"):
        splits = opened(tmp_path)
    assert splits["tune"].ids == [f"tune-c-{k}.png" for k in range(5)]
    assert len(splits["train"]) == 48


def test_a_split_that_the_hash_leaves_empty_is_said_to_be_so(tmp_path):
    write(tmp_path / "one", 1)
    said = []
    for split in Folder.splits:
        try:
            Folder(tmp_path, split=split, size=16)
        except InputError as error:
            said.append(str(error))
    assert len(said) == 2
    for line in said:
        assert "by the hash of their names all in" in line
        assert line.endswith("into the folders train/, tune/ and test/.")
        assert "\n" not in line


def test_a_class_may_be_called_train(tmp_path):
    write(tmp_path / "train", 40)
    write(tmp_path / "bus", 40)
    splits = opened(tmp_path)
    assert splits["test"].classes == ["bus", "train"]
    assert sum(map(len, splits.values())) == 80


def test_missing_files_are_reported_in_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    write(tmp_path / "flat", 3)
    write(tmp_path / "only" / "train" / "a", 3)
    for path in ("nowhere", "empty", "flat", "only"):
        with pytest.raises(InputError, match=r"no test images in .*; put them there, or give another PATH\.") as error:
            Folder(tmp_path / path)
        assert "\n" not in str(error.value)
