"""Pictures and labels of an audit as people have them: every picture gets the model's label, or one line says why."""

import warnings

import numpy as np
import pytest
from PIL import Image

from benchmark.audit.tables import arrange
from victims.data.folder import Folder
from victims.errors import InputError, Notice


def write(path, red, kind="PNG"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((16, 16, 3), red, np.uint8)).save(path, kind)


def opened(tmp_path, table=None, classes=None):
    """The data of an audit of the pictures in tmp_path/mine."""
    labels = None
    if table is not None:
        labels = tmp_path / "labels.csv"
        labels.write_bytes(table if isinstance(table, bytes) else table.encode())
    arrange(tmp_path / "mine", labels, tmp_path / "out" / "test", classes)
    return Folder(tmp_path / "out", size=16)


def found(data):
    """Label by red value: pictures are told apart by what they show."""
    return {round(float(image[0].mean()) * 255): label for image, label in data}


@pytest.mark.parametrize(
    "table",
    [
        b"\xef\xbb\xbffile,label\r\na.png,ill\r\nb.png,well\r\n",
        "file;label\na.png;ill\nb.png;well\n",
        "File\tLabel\na.png\till\nb.png\twell\n".encode("utf-16"),
        ' "FILE" , Label \n a.png , ill \n\n b.png , well \n',
        "patient,label,file\n7,ill,a.png\n8,well,b.png,more\n",
        "file,label\na,ill\nb,well\n",
        "sep=;\r\nFile ; LABEL\r\na.png;ill\r\nb.png;well\r\n",
        "file;label\ra.png;ill\rb.png;well\r",
        b'\xef\xbb\xbf"file";"label";"note"\r\n"a.png";"ill";"one, two"\r\n"b.png";"well";"three; ""four"""\r\n',
        "\n;\n LABEL ;\tFile\nill;a.png\nwell;b.png\n",
    ],
)
def test_a_table_of_a_spreadsheet_is_read(table, tmp_path):
    write(tmp_path / "mine" / "a.png", 50)
    write(tmp_path / "mine" / "b.png", 100)
    data = opened(tmp_path, table)
    assert data.classes == ["ill", "well"]
    assert found(data) == {50: 0, 100: 1}


def test_numbers_are_the_models_classes(tmp_path):
    lines = ["file,label"]
    for label in (0, 2, 10, 11):
        write(tmp_path / "mine" / f"{label}.png", 20 * label)
        lines.append(f"{label}.png,{label}")
    assert found(opened(tmp_path, "\n".join(lines))) == {0: 0, 40: 2, 200: 10, 220: 11}
    assert len(opened(tmp_path, "\n".join(lines)).classes) == 12
    assert len(opened(tmp_path, "\n".join(lines), "100").classes) == 100
    floats = "\n".join([lines[0], *(f"{line}.0" for line in lines[1:])])
    assert found(opened(tmp_path, floats)) == {0: 0, 40: 2, 200: 10, 220: 11}


def test_a_list_of_classes_gives_their_order(tmp_path):
    (tmp_path / "names.txt").write_text("\ufeffzebra\napple\n\nbus\n", "utf-8")
    names = str(tmp_path / "names.txt")
    write(tmp_path / "mine" / "a.png", 50)
    write(tmp_path / "mine" / "b.png", 100)
    for table in ("file,label\na.png,zebra\nb.png,bus\n", "file,label\na.png,0\nb.png,2\n"):
        data = opened(tmp_path, table, names)
        assert data.classes == ["zebra", "apple", "bus"]
        assert found(data) == {50: 0, 100: 2}


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbftench, Tinca\r\ncock\r\n",
        b"tench, Tinca\rcock",
        '"tench, Tinca"\n\n  cock  \n'.encode("utf-16"),
    ],
)
def test_a_list_of_classes_may_be_of_a_spreadsheet(text, tmp_path):
    write(tmp_path / "mine" / "a.png", 50)
    (tmp_path / "names.txt").write_bytes(text)
    data = opened(tmp_path, "file,label\na.png,1\n", str(tmp_path / "names.txt"))
    assert data.classes == ["tench, Tinca", "cock"]
    assert found(data) == {50: 1}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("file,label\nm\u00fcller.png,ill\n".encode("cp1252"), "cannot be read as a table; give a CSV in UTF-8"),
        (b"label,file\nill\n", "names , which is not in"),
        (b"label,picture\nill,a.png\n", "needs a first line file,label"),
        (b"file,label\n", "needs a first line file,label, and a line for every picture"),
    ],
)
def test_a_table_that_is_none_is_refused_in_one_line(table, message, tmp_path):
    write(tmp_path / "mine" / "a.png", 50)
    with pytest.raises(InputError, match=message):
        opened(tmp_path, table)


def test_class_folders_may_be_some_of_the_models_classes(tmp_path):
    write(tmp_path / "mine" / "cat" / "1.png", 50)
    write(tmp_path / "mine" / "dog" / "1.png", 100)
    (tmp_path / "mine" / "bird").mkdir()
    data = opened(tmp_path)
    assert data.classes == ["bird", "cat", "dog"]
    assert found(data) == {50: 1, 100: 2}
    (tmp_path / "names.txt").write_text("dog\nfrog\ncat\nbird\n")
    with warnings.catch_warnings(action="error"):  # this is the normal case of an audit
        assert found(opened(tmp_path, classes=str(tmp_path / "names.txt"))) == {50: 2, 100: 0}
    write(tmp_path / "mine" / "bird" / "1.png", 150)
    assert opened(tmp_path).classes == ["bird", "cat", "dog"]  # none is left from the audit before


def test_class_folders_that_are_numbers_say_their_order(tmp_path):
    for label in (1, 2, 10):
        write(tmp_path / "mine" / str(label) / "x.png", 20 * label)
    with pytest.warns(Notice, match="ordered as text, 1, 10, 2.*give --classes"):
        assert found(opened(tmp_path)) == {20: 0, 200: 1, 40: 2}
    with warnings.catch_warnings(action="error"):
        assert found(opened(tmp_path, classes="11")) == {20: 1, 40: 2, 200: 10}


def test_files_of_the_same_name_in_several_folders_are_several_pictures(tmp_path):
    lines = ["file,label"]
    for patient in range(6):
        write(tmp_path / "mine" / f"p{patient}" / "scan.png", 40 * patient)
        lines.append(f"p{patient}\\scan.png,ill" if patient % 2 else f"p{patient}/scan.png,ill")
    data = opened(tmp_path, "\n".join(lines))
    assert len(found(data)) == len(set(data.ids)) == 6
    assert opened(tmp_path, "\n".join(lines)).ids == data.ids


def test_what_is_listed_is_decoded_by_its_content(tmp_path):
    write(tmp_path / "mine" / "a.gif", 50, "GIF")
    write(tmp_path / "mine" / "b.scan", 100)
    write(tmp_path / "mine" / "c", 150)
    (tmp_path / "mine" / "d.dcm").write_bytes(b"no picture")
    data = opened(tmp_path, "file,label\n" + "".join(f"{name},x\n" for name in ("a.gif", "b.scan", "c", "d.dcm")))
    with pytest.warns(Notice, match=r"mine/d\.dcm is no image"):  # the user's own file, not the link
        kept = data.readable(range(4))
    assert {round(float(data[k][0].mean()) * 255) for k in kept} == {50, 100, 150}


@pytest.mark.parametrize(
    ("table", "classes", "message"),
    [
        ("file,label\na.png,cow\n", "names.txt", "cow is none of the model's 2 classes, cat, dog; fix --classes"),
        ("file,label\na.png,2\n", "names.txt", "2 is none of the model's 2 classes, cat, dog"),
        ("file,label\na.png,2\n", "nowhere.txt", "classes is '.*nowhere.txt'; give a file"),
        ("file,label\na.png,cat\n", "twice.txt", "has 2 classes cat; give each one name"),
        ("file,label\na.png,cat\n", "empty.txt", "has no classes"),
        ("file,label\na.png,cat\na.png,dog\n", None, r"gives a\.png the labels cat and dog; keep one"),
        ("file,label\na.png,0\n", "999999999999", "classes is .*999999999999; give their number, at most 100000"),
        ("file,label\na.png,20261128\n", None, "labels up to 20261128; give the model's classes"),
        ("file,label\na.png,.cat\n", None, "the label '.cat'; give a name without / or a dot in front"),
        ("file,label\n" + "é" * 300 + ",cat\n", None, "which is not in"),
    ],
)
def test_labels_that_are_no_classes_are_refused_in_one_line(table, classes, message, tmp_path):
    write(tmp_path / "mine" / "a.png", 50)
    for name, text in {"names.txt": "cat\ndog\n", "twice.txt": "cat\ncat\n", "empty.txt": "\n"}.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message) as error:
        opened(tmp_path, table, classes if classes is None or classes.isdecimal() else str(tmp_path / classes))
    assert "\n" not in str(error.value)


def test_class_folders_that_are_not_in_the_list_are_named(tmp_path):
    write(tmp_path / "cow" / "a.png", 50)
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    with pytest.raises(InputError, match=r"classes\.txt does not list cow; add what is missing"):
        Folder(tmp_path, size=16)
