"""Which images form a batch: the lists of tasks, the rules, and refusals."""

import hashlib
import itertools
import re
import warnings
from collections import Counter

import pytest
import torch
from PIL import Image

from benchmark.tasks import manifests
from benchmark.tasks.batches import Batch, draw_batches, group_size, grouped, share_of
from benchmark.tasks.manifests import listed, manifest
from benchmark.tasks.manifests.make import FREE, LENGTH, OFFICIAL, text
from victims.data.base import ImageData, split_of
from victims.data.cifar10 import CIFAR10
from victims.data.files import ImageFiles
from victims.data.photos import Photos
from victims.errors import InputError, Notice

LISTS = [(name, split) for name in OFFICIAL for split in ("tune", "test")]
COUNTS = {"random": None, "distinct": [1] * 8, "unbalanced": [4, 2, 1, 1]}


class Plain(ImageData):
    """`sizes[c]` images of class c, without pixels and without a list of tasks."""

    def __init__(self, sizes, split="test"):
        self.classes, self.split = [str(c) for c in range(len(sizes))], split
        self.labels = torch.tensor([c for c, size in enumerate(sizes) for _ in range(size)])
        self.ids = [f"{split}-{place}" for place in range(len(self.labels))]

    def __getitem__(self, index):
        return torch.zeros(3, 8, 8), int(self.labels[index])


@pytest.fixture(scope="module")
def photos():
    return Photos(split="tune")


def sha(name):
    return hashlib.sha256(name.encode()).hexdigest()


# Lists of tasks.


@pytest.mark.parametrize(("name", "split"), LISTS)
def test_the_shipped_lists_are_those_of_their_rule(name, split):
    assert manifest(name, split).read_text() == text(name, split)


@pytest.mark.parametrize("name", OFFICIAL)
def test_lists_are_disjoint_in_order_and_of_the_official_images(name):
    tune, test = listed(name, "tune"), listed(name, "test")
    assert not set(tune) & set(test)
    official = {key for keys in OFFICIAL[name].values() for key in keys}
    for keys in (tune, test):
        free = FREE.get(name, set())
        assert keys == sorted(set(keys), key=lambda key: (key not in free, sha(key)))
        assert set(keys) <= official
        assert len(keys) == (96 if name == "photos" else LENGTH)


def test_the_list_of_cifar10_by_hand():
    free, others = (sorted((f"test-{p:05d}" for p in places), key=sha) for places in (range(800), range(800, 10_000)))
    assert listed("cifar10", "test") == (free + others)[:1000]
    tune = [f"train-{p:05d}" for p in range(50_000) if p < 4_000 or (p >= 10_000 and p % 10_000 < 1_017)]
    tune = sorted((key for key in tune if int(sha(key), 16) % 8 == 0), key=sha)
    assert listed("cifar10", "tune") == tune[:1000]


class Named(Plain):
    """Images of a data set that has lists, by their official names; the class is not known from the name."""

    def __init__(self, name, split, keys):
        super().__init__([len(keys)], split=split)
        self.name, self.ids = name, list(keys)


@pytest.mark.parametrize(
    ("name", "split", "count"), [("cifar10", "test", 200), ("cifar10", "tune", 200), ("ffhq", "test", 1)]
)
def test_a_copy_that_is_free_to_download_and_all_images_give_the_same_first_tasks(name, split, count):
    ((splits, keys),) = ((splits, keys) for splits, keys in OFFICIAL[name].items() if split in splits)
    own = [key for key in keys if split_of(key, splits) == split]
    copy = [key for key in own if key in FREE[name]]
    size = 4 if count > 1 else 2
    whole, partial = (draw_batches(Named(name, split, some), "p", batch_size=size, tasks=count) for some in (own, copy))
    assert [batch.task for batch in whole] == [batch.task for batch in partial]  # a digest of its images is in the name


def test_there_are_no_other_lists_and_their_lines_are_short():
    assert {path.name for path in manifest("x", "y").parent.glob("*.txt")} == {f"{n}-{s}.txt" for n, s in LISTS}
    assert all(len(line) <= 120 for n, s in LISTS for line in manifest(n, s).read_text().splitlines())


def test_tasks_are_the_list_in_its_order(photos):
    batches = draw_batches(photos, "photos-tune-32px", batch_size=4, tasks=24)
    assert [photos.ids[index] for batch in batches for index in batch.indices] == listed("photos", "tune")


def write_cifar(root, places):
    folder = root / "cifar10" / "test" / "cat"
    folder.mkdir(parents=True)
    for place in places:
        Image.new("RGB", (32, 32), (place % 256, place // 256, 0)).save(folder / f"{place:05d}.png")


@pytest.mark.filterwarnings("ignore:cifar10 has no images")
def test_missing_images_are_skipped_and_unlisted_ones_come_last(tmp_path):
    places = [int(key[-5:]) for key in listed("cifar10", "test")]
    others = [place for place in range(10_000) if place not in set(places)][:10]
    write_cifar(tmp_path, [*places[1:20:3], *others])
    data = CIFAR10(data_dir=tmp_path)
    expected = [f"cat-test-{place:05d}" for place in places[1:20:3]]
    few = draw_batches(data, "p", batch_size=7, tasks=1)
    assert [data.ids[index] for index in few[0].indices] == expected
    with pytest.warns(
        Notice, match="p: 7 of the 1000 images of its list are here; 10 others come after them by hash"
    ) as said:
        many = draw_batches(data, "p", batch_size=1, tasks=17)
    assert len(said) == 1
    by_hash = sorted((f"cat-test-{place:05d}" for place in others), key=lambda name: sha(name.removeprefix("cat-")))
    assert [data.ids[batch.indices[0]] for batch in many] == expected + by_hash


def test_images_in_several_batches_give_a_notice():
    data = Plain([20, 20])
    with warnings.catch_warnings(record=True) as once:
        draw_batches(data, "p", batch_size=4, tasks=10)
    assert not [said for said in once if "several batches" in str(said.message)]
    with pytest.warns(Notice, match="p: 44 images are needed and 40 are used, some in several batches"):
        draw_batches(data, "p", batch_size=4, tasks=11)


def test_without_a_list_images_come_by_hash_with_a_notice():
    data = Plain([20, 20])
    with pytest.warns(Notice, match="there is no list of its tasks; images come") as notices:
        batches = draw_batches(data, "p", batch_size=4, tasks=3)
    assert len(notices) == 1
    drawn = [data.ids[index] for batch in batches for index in batch.indices]
    assert drawn == sorted(data.ids, key=sha)[:12]


@pytest.mark.filterwarnings("error")
def test_a_training_split_without_a_list_gives_no_notice():
    assert len(draw_batches(Plain([20, 20], split="train"), "p", batch_size=4, tasks=3)) == 3


# Rules.

quiet = pytest.mark.filterwarnings("ignore:.*there is no list")


@quiet
@pytest.mark.parametrize("rule", COUNTS)
def test_more_tasks_only_add_to_them_and_nothing_else_changes_them(rule):
    data = Plain([9, 30, 14, 25, 9, 12, 8, 8, 40])
    options = {"rule": rule, "batch_size": 8}
    many = draw_batches(data, "p", tasks=60, **options)
    torch.rand(7)
    for tasks in (1, 5, 23):
        assert draw_batches(data, "p", tasks=tasks, **options) == many[:tasks]
    assert len({batch.indices for batch in many}) == 60  # the images are used up several times


@quiet
@pytest.mark.parametrize("rule", COUNTS)
def test_a_batch_has_the_classes_of_its_rule_and_no_image_twice(rule):
    data = Plain([9, 30, 14, 25, 9, 12, 8, 8, 40])
    for batch in draw_batches(data, "p", rule=rule, batch_size=8, tasks=60):
        assert len(set(batch.indices)) == 8
        counts = sorted(Counter(data.labels[list(batch.indices)].tolist()).values(), reverse=True)
        assert COUNTS[rule] in (None, counts)


@quiet
def test_labels_of_random_batches_repeat_as_often_as_in_the_data():
    data = Plain([50, 50])
    batches = draw_batches(data, "p", batch_size=2, tasks=50)
    same = sum(len(set(data.labels[list(batch.indices)].tolist())) == 1 for batch in batches)
    assert same == pytest.approx(49 / 99 * 50, abs=3 * 3.6)  # three standard deviations


@pytest.mark.parametrize("rule", COUNTS)
def test_no_image_is_used_twice_before_the_others_are_too_few(photos, rule):
    options = {"rule": rule, "batch_size": 8, "tasks": 40}
    batches = [batch.indices for batch in draw_batches(photos, "p", **options)]
    used: set[int] = set()
    for indices in batches:
        if used & set(indices):
            left = Counter(photos.labels[[i for i in range(len(photos)) if i not in used]].tolist()).most_common()
            sizes = [size for _, size in left]
            counts = COUNTS[rule] or [8]
            fits = len(sizes) >= len(counts) and all(a >= b for a, b in zip(sizes, counts, strict=False))
            assert not fits if COUNTS[rule] else sum(sizes) < 8
            used = set()
        used |= set(indices)
    assert len(set(batches)) == 40


@quiet
@pytest.mark.parametrize(
    ("size", "counts"),
    [(4, [2, 1, 1]), (5, [2, 1, 1, 1]), (6, [3, 1, 1, 1]), (7, [3, 1, 1, 1, 1]), (16, [8, 4, 1, 1, 1, 1])],
)
def test_half_and_quarter_are_rounded_down(size, counts):
    data = Plain([20] * 12)
    for batch in draw_batches(data, "p", rule="unbalanced", batch_size=size, tasks=20):
        assert sorted(Counter(data.labels[list(batch.indices)].tolist()).values(), reverse=True) == counts


@quiet
def test_an_unbalanced_batch_is_found_if_one_exists():
    assert len(draw_batches(Plain([1, 2, 4, 1]), "p", rule="unbalanced", batch_size=8, tasks=3)) == 3


@quiet
@pytest.mark.parametrize("counts", [[3, 3, 2], [4, 4], [8]])
def test_a_defense_can_decide_how_many_images_of_each_class_form_a_batch(counts):
    data = Plain([9, 30, 14, 25, 9, 12, 8, 8, 40])
    many = draw_batches(data, "p", counts=counts, batch_size=8, tasks=40)
    for batch in many:
        assert len(set(batch.indices)) == 8
        assert sorted(Counter(data.labels[list(batch.indices)].tolist()).values(), reverse=True) == counts
        assert batch.task.startswith(f"p-{len(counts)}-label-b8-")
    assert draw_batches(data, "p", counts=counts, batch_size=8, tasks=5) == many[:5]


# Names.


@quiet
def test_the_name_of_a_task_has_the_rule_and_changes_with_the_images(photos):
    (batch,) = draw_batches(photos, "photos-tune-32px", batch_size=4, tasks=1)
    assert re.fullmatch(r"photos-tune-32px-random-b4-0000-[0-9a-f]{8}", batch.task)
    names = set()
    for data, prefix, rule, size in itertools.product([photos, Plain([9] * 12)], "pq", COUNTS, (4, 8)):
        names |= {batch.task for batch in draw_batches(data, prefix, rule=rule, batch_size=size, tasks=9)}
    assert len(names) == 2 * 2 * 3 * 2 * 9


@quiet
def test_the_name_of_a_task_can_name_a_file_and_shows_no_users_files(tmp_path):
    data = Plain([9])
    (tmp_path / "my list.txt").write_text("test-0\n")
    for rule in ("random", str(tmp_path / "my list.txt")):
        (batch,) = draw_batches(data, "folder:/home/me/x-test-32px", rule=rule, batch_size=1, tasks=1)
        (tmp_path / f"{batch.task}.csv").write_text("")
        assert re.fullmatch(r"x-test-32px-(random|list)-b1-0000-[0-9a-f]{8}", batch.task)


def test_the_default_tasks_are_pinned():
    data = Photos(split="test")
    batch = draw_batches(data, "photos-test-32px", batch_size=4, tasks=1)[0]
    assert batch == Batch("photos-test-32px-random-b4-0000-a87892a8", (89, 92, 55, 29))
    ids = ["flower-test-x217-y128", "flower-test-x150-y256", "hubble-test-x133-y64", "coffee-test-x217-y320"]
    assert [data.ids[index] for index in batch.indices] == ids
    assert batch.task.endswith(sha(repr(("photos-test-32px", ids)))[:8])


# A list of the user's own.


@pytest.mark.filterwarnings("error")
def test_a_file_with_one_task_on_each_line(tmp_path):
    data = Plain([3, 3])
    data.ids[4] = "two words.png"
    file = tmp_path / "mine.txt"
    file.write_text("# what I want to see\n\ntest-5 test-0\n'two words.png' test-5 # again\n")
    with pytest.warns(Notice, match="3 are used, some in several batches, which are not independent") as said:
        batches = draw_batches(data, "p", rule=str(file), batch_size=2, tasks=2)
    assert len(said) == 1
    assert [batch.indices for batch in batches] == [(5, 0), (4, 5)]
    assert batches[0].task.startswith("p-list-b2-0000-")
    assert draw_batches(data, "p", rule=str(file), batch_size=2, tasks=1) == batches[:1]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("test-0 test-1\ntest-0 test-9", "line 2 of .* no image test-9 in p; ids are such as test-0"),
        ("test-0 test-1 test-2", "line 1 of .* has 3 images, 3 different ones; fix it, or --batch, which is 2"),
        ("test-0 test-0", "2 images, 1 different"),
        ("# mine\ntest-0 test-1\n\ntest-1 test-0", "lines 2 and 4 of .* list the same images; remove one of them"),
        ("test-0 test-1", "tasks is 2, but .* lists 1"),
        ("test-0 'test-1", "cannot be read as lines of image ids .No closing quotation.; fix it"),
        (b"\xff\xfe", "cannot be read as lines of image ids"),
        (None, "give random, distinct, unbalanced, or a file"),
    ],
)
def test_a_list_that_cannot_be_used_is_one_line(tmp_path, content, said):
    file = tmp_path / "mine.txt"
    if content:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=said) as error:
        draw_batches(Plain([3, 3]), "p", rule=str(file), batch_size=2, tasks=2)
    assert "\n" not in str(error.value)


# What cannot be had.


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"batch_size": 0}, "batch is 0; give 1 or more"),
        ({"tasks": 0}, "tasks is 0; give 1 or more"),
        ({"tasks": -1}, "tasks is -1"),
        ({"batch_size": 21}, "batch is 21, but p has 20 images; give at most that many"),
        ({"rule": "distinct", "batch_size": 5}, "distinct batches of 5 need 5 classes; p has 4."),
        ({"rule": "unbalanced", "batch_size": 3}, "give 4 or more"),
        (
            {"rule": "unbalanced", "batch_size": 16},
            "16 need 6 classes, with 8 images in one and 4 in another; p has 4, with at most 9 and 5.",
        ),
        ({"rule": "unbalanced", "batch_size": 20}, "with 10 images in one and 5 in another; .* at most 9 and 5."),
        (
            {"counts": [6, 6, 6], "batch_size": 18},
            "3-label batches of 18 need 3 classes, with 6 images in one and 6 in another and 6 in another; p has 4, "
            "with at most 9 and 5 and 4.",
        ),
        ({"counts": [10], "batch_size": 10}, "need 1 classes, with 10 images in one; p has 4, with at most 9."),
        ({"counts": [1, 1], "rule": "distinct"}, "the defense forms the batches, of 2 labels each; leave --batches d"),
        ({"counts": [1, 1], "rule": "mine.txt"}, "leave --batches mine.txt out"),
        ({"rule": "balanced"}, "batches is 'balanced'; give random, distinct, unbalanced, or a file"),
    ],
)
def test_impossible_batches_are_refused_in_one_line(options, said):
    with pytest.raises(InputError, match=said) as error:
        draw_batches(Plain([9, 5, 4, 2]), "p", **{"batch_size": 2, "tasks": 3, **options})
    assert "\n" not in str(error.value)


class Files(ImageFiles):
    """Twelve images of three classes, of which some are cut off."""

    name = "files"
    classes = tuple("abc")

    def __init__(self, root, broken=()):
        super().__init__(split="test", size=8, resize="shorter")
        files = []
        for place in range(12):
            files.append(root / f"{place}.png")
            Image.new("RGB", (8, 8), (place, 0, 0)).save(files[-1])
            if place in broken:
                files[-1].write_bytes(files[-1].read_bytes()[:30])
        self.take(files, [f"i{place}" for place in range(12)], [0, 1, 2] * 4, root=root, splits=("test",))


@quiet
def test_the_next_image_takes_the_place_of_one_that_cannot_be_read(tmp_path):
    order = sorted(range(12), key=lambda place: sha(f"i{place}"))
    data = Files(tmp_path, broken={order[1], order[6]})
    with pytest.warns(Notice) as notices:
        batches = draw_batches(data, "p", batch_size=5, tasks=4)
    whole = [place for place in order if place not in (order[1], order[6])]
    assert [batch.indices for batch in batches[:2]] == [tuple(whole[:5]), tuple(whole[5:])]
    named = [str(notice.message) for notice in notices if "no image that can be read" in str(notice.message)]
    assert [f"{order[1]}.png" in named[0], f"{order[6]}.png" in named[1], len(named)] == [True, True, 2]


@quiet
@pytest.mark.filterwarnings("ignore:left out")
def test_images_that_cannot_be_read_do_not_count(tmp_path):
    data = Files(tmp_path, broken={2, 5, 8, 11})
    assert len(draw_batches(data, "p", rule="distinct", batch_size=2, tasks=4)) == 4
    with pytest.raises(InputError, match="need 3 classes; p has 2"):
        draw_batches(data, "p", rule="distinct", batch_size=3, tasks=1)
    with pytest.raises(InputError, match="batch is 9, but p has 8 images"):
        draw_batches(data, "p", batch_size=9, tasks=1)
    (tmp_path / "mine.txt").write_text("i0 i2")
    with pytest.raises(InputError, match=r"2\.png is no image that can be read"):
        draw_batches(data, "p", rule=str(tmp_path / "mine.txt"), batch_size=2, tasks=1)


def test_a_list_is_not_read_for_a_data_set_without_one():
    assert listed("", "test") == []
    assert manifests.manifest("cifar10", "train").exists() is False


# Processes.


def test_a_group_below_one_is_refused():
    with pytest.raises(InputError, match="group is 0; give 1 or more"):
        grouped([], 0)


@pytest.mark.parametrize(
    ("group", "images", "device", "size"),
    [(3, 2, "cpu", 3), ("auto", 2, "cpu", 8), ("auto", 3, "cpu", 5), ("auto", 40, "cpu", 1), ("auto", 2, "cuda", 32)],
)
def test_automatic_groups_fill_the_device_by_images(group, images, device, size):
    assert group_size(group, images, 10_000, device) == size
    assert group_size(group, images, 10_000_000, device) == (1 if group == "auto" else size)


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_processes_share_out_all_groups_whatever_each_finds_done(world_size):
    batches = [Batch(f"t{number}", (number,)) for number in range(11)]
    done_when_it_started = [frozenset(b.task for b in batches[:rank]) for rank in range(world_size)]
    taken = []
    for rank, done in enumerate(done_when_it_started):
        mine = share_of(grouped(batches, 2), rank, world_size, done)
        taken += [batch.task for group in mine for batch in group]
    assert len(taken) == len(set(taken))
    left_out = {batch.task for batch in batches} - set(taken)
    assert left_out <= frozenset().union(*done_when_it_started)
