"""Images from files: how they are resized, and broken files."""

import os
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision import transforms

from victims.data.channels import in_channels
from victims.data.decode import decode
from victims.data.files import RULES, ImageFiles, by_class, images_in
from victims.errors import InputError, Notice


class Files(ImageFiles):
    name = "files"
    classes = ("only",)
    mean = std = (0.5, 0.5, 0.5)

    def __init__(self, pictures, ids=None, *, split="test", size=16, resize="shorter"):
        super().__init__(split=split, size=size, resize=resize)
        ids = ids or [path.name for path in pictures]
        self.take(pictures, ids, [0] * len(ids), root=pictures[0].parent, splits=("test",))


def photograph(path, width, height):
    rng = np.random.default_rng(width)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 7, 3), np.uint8))
    coarse.resize((width, height), Image.Resampling.BICUBIC).save(path)
    return path


def test_a_digest_of_the_split_tells_its_images(tmp_path):
    first, second = (photograph(tmp_path / name, side, 40) for name, side in (("a.png", 60), ("b.png", 70)))
    whole = Files([first, second]).split_digest()
    assert Files([first, second]).split_digest() == whole != Files([first]).split_digest()
    first.rename(tmp_path / "c.png")
    assert Files([tmp_path / "c.png", second]).split_digest() != whole
    second.rename(first)
    assert Files([first, tmp_path / "c.png"], ["a.png", "b.png"]).split_digest() != whole  # the other way round
    arrays = [np.zeros((16, 16, 3), np.uint8), np.ones((16, 32, 3), np.uint8)[:, ::2]]
    data = Files([first])
    data.pictures = arrays
    digest = data.split_digest()
    arrays[1] = arrays[1] * 2
    assert data.split_digest() != digest


def test_a_stamp_tells_when_any_file_was_written(tmp_path):
    files = [photograph(tmp_path / name, 60, 40) for name in ("a.png", "b.png")]
    stamp = Files(files).stamp()
    assert Files(files).stamp() == stamp != Files(files[:1]).stamp()
    status, content = files[1].stat(), files[1].read_bytes()
    files[1].write_bytes(content[::-1])
    os.utime(files[1], ns=(status.st_atime_ns, status.st_mtime_ns))  # as a copy with its times
    assert Files(files).stamp() != stamp
    assert in_channels(Files(files), 1).stamp() == Files(files).stamp()


def test_what_macos_keeps_of_files_is_no_image(tmp_path):
    """As macOS writes them beside each file on other disks."""
    photograph(tmp_path / "a.png", 20, 20)
    (tmp_path / "._a.png").write_bytes(b"\0\5\x16\7")
    assert images_in(tmp_path) == [tmp_path / "a.png"]


def test_ids_have_escapes_for_what_no_table_can_hold(tmp_path):
    """Control characters, and bytes of a file's name that are no text."""
    file = photograph(tmp_path / "a.png", 20, 20)
    names = ["a\tb\n.png", os.fsdecode(b"c\xff.png"), "d\x9b.png", "\u00e9 \u6f22.png"]
    assert Files([file] * 4, names).ids == [r"a\tb\n.png", r"c\udcff.png", r"d\x9b.png", "\u00e9 \u6f22.png"]


# What the code of the papers does, at the sizes that they use (torchvision's transforms).
PUBLISHED = {
    ("gias", 32): [transforms.Resize(36), transforms.CenterCrop(32)],
    ("gias", 64): [transforms.Resize(72), transforms.CenterCrop(64)],
    ("gias", 128): [transforms.Resize(144), transforms.CenterCrop(128)],
    ("gifd", 64): [transforms.Resize(64), transforms.CenterCrop(64)],
    ("ggl", 224): [transforms.Resize(256), transforms.CenterCrop(224)],
}


@pytest.mark.parametrize(("rule", "size"), PUBLISHED)
@pytest.mark.parametrize("sides", [(300, 200), (90, 150), (64, 64)])
def test_the_papers_rules_are_those_of_their_code(tmp_path, rule, size, sides):
    file = photograph(tmp_path / "a.png", *sides)
    ours, _ = Files([file], size=size, resize=rule)[0]
    published = transforms.Compose([*PUBLISHED[rule, size], transforms.ToTensor()])
    assert torch.equal(ours, published(Image.open(file)))


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_gives_the_center_at_the_size(tmp_path, rule):
    ramp = np.linspace(0, 255, 120)[None, :, None].repeat(60, 0).repeat(3, 2)
    Image.fromarray(ramp.astype(np.uint8)).save(tmp_path / "a.png")
    image, _ = Files([tmp_path / "a.png"], size=20, resize=rule)[0]
    assert image.shape == (3, 20, 20)
    assert image.mean() == pytest.approx(0.5, abs=0.02)
    share = 20 / (2 * round(20 * {"gias": 9 / 8, "ggl": 8 / 7}.get(rule, 1)))  # of the width that is kept
    spread = image.amax() - image.amin()
    assert spread == pytest.approx(0.95 * share, abs=0.02)


def test_the_default_is_bicubic_with_antialiasing(tmp_path):
    file = photograph(tmp_path / "a.png", 48, 48)
    ours, _ = Files([file], size=16)[0]
    bicubic = Image.open(file).resize((16, 16), Image.Resampling.BICUBIC)
    assert torch.equal(ours, transforms.functional.to_tensor(bicubic))
    stripes = np.zeros((48, 48, 3), np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(tmp_path / "b.png")
    assert (Files([tmp_path / "b.png"], size=16)[0][0] - 0.5).abs().max() < 0.05  # without it: 0 and 1


def test_images_of_any_kind_come_as_rgb(tmp_path):
    files = []
    for mode, suffix in (("L", ".png"), ("RGBA", ".png"), ("P", ".png"), ("L", ".JPEG"), ("CMYK", ".JPG")):
        files.append(tmp_path / f"{mode}{suffix}")
        Image.new(mode, (20, 20), 7 if mode in "LP" else None).save(files[-1])
    (tmp_path / "notes.txt").write_text("no image")
    assert images_in(tmp_path) == sorted(files)
    data = Files(files)
    assert data.batch(range(len(data)))[0].shape == (len(files), 3, 16, 16)


RAMP = np.linspace(20, 230, 64 * 64).reshape(64, 64).round().astype(np.uint8)


def pixels(path):
    return np.asarray(decode(path)).astype(int)


@pytest.mark.parametrize(
    ("name", "picture"),
    [
        ("sixteen.png", lambda: Image.fromarray(RAMP.astype(np.uint16) * 257)),
        ("sixteen.tif", lambda: Image.fromarray(RAMP.astype(np.uint16) * 257)),
        ("big_endian.tif", lambda: Image.fromarray((RAMP.astype(np.uint16) * 257).astype(">u2"))),
        ("floats.tif", lambda: Image.fromarray(RAMP.astype(np.float32) / 255)),
        ("palette.gif", lambda: Image.fromarray(RAMP).convert("P")),
        ("opaque.png", lambda: Image.fromarray(np.dstack([RAMP, RAMP, RAMP, np.full_like(RAMP, 255)]))),
        ("gray_alpha.png", lambda: Image.fromarray(RAMP).convert("LA")),
        ("cmyk.tif", lambda: Image.fromarray(np.dstack([255 - RAMP] * 3 + [0 * RAMP]), "CMYK")),
    ],
)
def test_every_depth_and_mode_shows_the_same_picture(tmp_path, name, picture):
    picture().save(tmp_path / name)
    assert images_in(tmp_path) == [tmp_path / name]
    assert np.abs(pixels(tmp_path / name) - RAMP[..., None]).max() <= 1


def test_one_bit_is_black_and_white(tmp_path):
    Image.fromarray(RAMP > 128).save(tmp_path / "a.png")
    assert (pixels(tmp_path / "a.png") == 255 * (RAMP > 128)[..., None]).all()


@pytest.mark.parametrize("kind", ["alpha", "palette", "color"])
def test_what_is_transparent_is_white(tmp_path, kind):
    image = Image.fromarray(np.dstack([RAMP, 0 * RAMP, RAMP]))
    if kind == "alpha":
        image.putalpha(Image.fromarray(255 * (RAMP > 128).astype(np.uint8)))
        image.save(tmp_path / "a.png")
        hidden = RAMP <= 128
    else:
        image = Image.fromarray(200 * (RAMP > 128).astype(np.uint8))
        image.convert("P" if kind == "palette" else "L").save(tmp_path / "a.png", transparency=0)
        hidden = RAMP <= 128
    assert (pixels(tmp_path / "a.png")[hidden] == 255).all()
    assert (pixels(tmp_path / "a.png")[~hidden] != 255).any(-1).all()


def test_a_photograph_stands_upright(tmp_path):
    tags = Image.Exif()
    tags[0x0112] = 6  # to be turned by 90 degrees, clockwise
    Image.fromarray(RAMP).save(tmp_path / "a.png", exif=tags)
    assert (pixels(tmp_path / "a.png") == np.rot90(RAMP, -1)[..., None]).all()


@pytest.mark.parametrize("orientation", range(9))
def test_a_malformed_entry_of_exif_does_not_matter(orientation, tmp_path):
    """The resolution is text, which is not written again; one picture for each of the eight ways to turn it."""
    entries = ((0x0112, 3, 1, struct.pack(">HH", orientation, 0)), (0x011A, 2, 4, b"72\0\0"))
    exif = struct.pack(">IH", 8, len(entries)) + b"".join(struct.pack(">HHI4s", *each) for each in entries) + bytes(4)
    Image.fromarray(RAMP).save(tmp_path / "a.png", exif=b"Exif\0\0MM\0*" + exif)
    tags = Image.Exif()
    tags[0x0112] = orientation
    Image.fromarray(RAMP).save(tmp_path / "b.png", exif=tags)
    with Image.open(tmp_path / "b.png") as whole:
        expected = np.asarray(ImageOps.exif_transpose(whole))
    assert (pixels(tmp_path / "a.png") == expected[..., None]).all()


def test_of_a_photograph_with_a_preview_the_first_picture_is_taken(tmp_path):
    """As phones write them; other files of several frames are refused."""
    preview = Image.fromarray(255 - RAMP)
    Image.fromarray(RAMP).save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[preview], quality=100)
    with Image.open(tmp_path / "a.jpg") as image:
        assert (image.format, image.n_frames) == ("MPO", 2)
    assert np.abs(pixels(tmp_path / "a.jpg") - RAMP[..., None]).max() <= 1


def animation(path):
    Image.fromarray(RAMP).save(path, save_all=True, append_images=[Image.fromarray(255 - RAMP)])


@pytest.mark.parametrize(
    ("name", "save", "message"),
    [
        (
            "12_bits.png",
            lambda path: Image.fromarray(RAMP.astype(np.uint16) * 17).save(path),
            "16-bit numbers up to 3910",
        ),
        ("depth.tif", lambda path: Image.fromarray(RAMP.astype(np.float32)).save(path), "numbers from 20 to 230"),
        ("nan.tif", lambda path: Image.fromarray(np.full((9, 9), np.nan, np.float32)).save(path), "from nan to nan"),
        ("long.tif", lambda path: Image.fromarray(RAMP.astype(np.int32)).save(path), "whole numbers of 32 bits"),
        ("moving.gif", animation, "2 frames; save the one to use"),
        ("pages.tif", animation, "2 frames; save the one to use"),
    ],
)
def test_what_needs_a_choice_is_refused_with_it(tmp_path, name, save, message):
    save(tmp_path / name)
    photograph(tmp_path / "z.png", 20, 20)
    with pytest.raises(InputError, match=message) as error:
        decode(tmp_path / name)
    assert "\n" not in str(error.value)
    assert "; save" in str(error.value)
    with pytest.warns(Notice, match=name):  # and the others are used
        assert Files(images_in(tmp_path)).readable(range(2)) == [1]


def png_with_a_broken_chunk(path):
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"IHDR") + 4 : raw.index(b"IHDR") + 8] = (2**31 - 1).to_bytes(4, "big")  # the width
    header = raw[raw.index(b"IHDR") : raw.index(b"IHDR") + 17]
    raw[raw.index(b"IHDR") + 17 : raw.index(b"IHDR") + 21] = zlib.crc32(header).to_bytes(4, "big")
    return bytes(raw)


@pytest.mark.parametrize(
    "content",
    [
        lambda path: b"",
        lambda path: b"no image",
        lambda path: path.read_bytes()[:200],  # cut off
        png_with_a_broken_chunk,  # too large for any memory: not an OSError in Pillow
        lambda path: b"P6\n1 x 255\n",  # a number that is none: a ValueError in Pillow
    ],
)
def test_a_file_that_cannot_be_read_is_named_in_one_line(tmp_path, content):
    photograph(tmp_path / "good.png", 40, 40)
    (tmp_path / "bad.png").write_bytes(content(tmp_path / "good.png"))
    data = Files(images_in(tmp_path))
    with pytest.raises(InputError, match=r"bad\.png is no image that can be read") as error:
        data[0]
    assert "\n" not in str(error.value)
    with pytest.warns(Notice, match=r"bad\.png"):
        assert data.readable(range(2)) == [1]


def test_a_file_that_is_gone_is_named(tmp_path):
    data = Files([photograph(tmp_path / "a.png", 20, 20)])
    (tmp_path / "a.png").unlink()
    with pytest.raises(InputError, match=r"a\.png"):
        data[0]


def test_what_cannot_be_opened_is_reported_in_one_line(tmp_path):
    file = photograph(tmp_path / "a.png", 20, 20)
    for options, said in (
        ({"split": "val"}, "'val'"),
        ({"split": "train"}, "no train images"),
        ({"size": 7}, "8 or more"),
        ({"resize": "squash"}, "shorter, gifd, gias, ggl"),
        ({"ids": ["same", "same"]}, "2 images called same"),
    ):
        with pytest.raises(InputError, match=said) as error:
            Files([file, file] if "ids" in options else [file], **options)
        assert "\n" not in str(error.value)


def test_classes_without_images_are_named_in_one_notice(tmp_path):
    for name in ("a", "b", "f"):
        (tmp_path / name).mkdir()
    photograph(tmp_path / "b" / "1.png", 20, 20)
    with pytest.warns(Notice, match=r"^data has no images in .* of a, c, d and 2 more\.$") as notices:
        found = by_class("data", tmp_path, {name: label for label, name in enumerate("abcdef")})
    assert found == {tmp_path / "b" / "1.png": 1}
    assert len(notices) == 1
