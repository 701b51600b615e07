"""Which images form a client's private batch."""

import itertools
import re
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.tasks.manifests import lines, listed
from victims.choices import Group
from victims.data.base import ImageData, digest
from victims.errors import InputError, Notice
from victims.ranges import at_least

FILL = {"cpu": 16, "cuda": 64}
"""Images that fill a device. Measured on a CPU, with two restarts of single images at 32 px: a step of `ig` takes 0.26
(LeNet), 0.62 (ConvNet) and 0.63 (ResNet-20) of the time per task. Not measured on a GPU."""

SMALL = 1 << 19
"""Parameters of a small victim. Measured as above, larger ones lose: ResNet-18 takes 1.9 and `fcn` 3.3 of the time per
task, for what spares their weight gradients needs the same target for all instances."""

RULES = ("random", "distinct", "unbalanced")


@dataclass(frozen=True)
class Batch:
    """The images of a task; its id names the rule that drew them."""

    task: str
    indices: tuple[int, ...]


def draw_batches(
    data: ImageData, prefix: str, *, rule: str = "random", counts: Sequence[int] = (), batch_size: int, tasks: int
) -> list[Batch]:
    """The first batches of a split. They are the same in every run, and more tasks only add to them.

    Images come in the order of the data set's manifest, then in the order of their hashes. None is used again before
    the unused ones are too few for one more batch; then all can be used again, in another order.

    Args:
        prefix: what the images are: data set, split, size. Tasks are named by it, the rule, and a digest of their ids.
        rule: `random`: the next images, whatever their labels. `distinct`: no label twice. `unbalanced`: half of
            the batch from one class, a quarter from another, both rounded down, and each other image from a class of
            its own (IGIMS). Or a file: each line has the ids of one task's images.
        counts: the images of each class in a batch, in descending order, if a defense decides about them.

    Raises:
        InputError: a count is below 1, the images cannot form such batches, the rule is neither known nor a file, or
            there are counts and a rule other than `random`.
    """
    at_least(1, batch=batch_size, tasks=tasks)
    if counts and rule != "random":
        raise InputError(f"the defense forms the batches, of {len(counts)} labels each; leave --batches {rule} out.")
    if rule in RULES:
        counts, rule = (counts, f"{len(counts)}-label") if counts else (class_counts(rule, batch_size), rule)
        drawn = list(itertools.islice(by_rule(data, prefix, rule, batch_size, counts), tasks))
        notice_unlisted(data, prefix, [index for indices in drawn for index in indices])
    else:
        drawn = from_file(data, prefix, Path(rule), batch_size)[:tasks]
        if len(drawn) < tasks:
            raise InputError(f"tasks is {tasks}, but {rule} lists {len(drawn)}; give at most that many.")
        rule = "list"
    notice_repeated(data, prefix, [index for indices in drawn for index in indices])
    # The attacker knows the name of a task, and files have it: it must not show where a user's images or lists are.
    stem = re.sub(r"[^\w.-]", "_", f"{Path(prefix).name}-{rule}-b{batch_size}")
    return [
        Batch(f"{stem}-{number:04d}-{digest(repr((prefix, [data.ids[i] for i in indices])))[:8]}", indices)
        for number, indices in enumerate(drawn)
    ]


def group_size(group: Group, images: int, parameters: int, device: str) -> int:
    """How many tasks are attacked together.

    `auto` fills a device by images, if the victim is small, and looks at nothing else: together with other tasks a task
    has other rounding, and so another row. If a measurement decided, or the number of processes, the same command
    would give other rows on a busy machine or on a larger one.

    Args:
        images: of a task in all its restarts.
        parameters: of the victim.
        device: its kind, cpu or cuda.
    """
    if group != "auto":
        return group
    return max(1, FILL[device] // images) if parameters <= SMALL else 1


def grouped(batches: Sequence[Batch], size: int) -> list[Sequence[Batch]]:
    """Batches that are attacked together, in order.

    Raises:
        InputError: a size below 1.
    """
    at_least(1, group=size)
    return [batches[start : start + size] for start in range(0, len(batches), size)]


def share_of(
    groups: Sequence[Sequence[Batch]], rank: int, world_size: int, done: Collection[str]
) -> list[Sequence[Batch]]:
    """A process's groups that are not done yet.

    The groups of each process do not depend on what is done: processes that start at different times find different
    tasks done, and must still agree on who does what.
    """
    return [group for group in groups[rank::world_size] if not {batch.task for batch in group} <= set(done)]


def by_rule(
    data: ImageData,
    prefix: str,
    rule: str,
    size: int,
    counts: Sequence[int],
    order: Callable[[ImageData, int], list[int]] | None = None,
) -> Iterator[tuple[int, ...]]:
    """Batches without end. The next image takes the place of one that cannot be read.

    Args:
        rule: the name of the rule that gave the counts.
        counts: as `pick` takes them; empty if any images form a batch.
        order: of all images in a turn; by default `in_order`.

    Raises:
        InputError: all images together do not form one batch.
    """
    labels = data.labels.tolist()
    broken: set[int] = set()
    for turn in itertools.count():
        left = {index: labels[index] for index in (order or in_order)(data, turn) if index not in broken}
        while chosen := pick(left, counts) if counts else first(left, size):
            unread = set(chosen) - set(data.readable(chosen))
            broken |= unread
            for index in unread or chosen:
                del left[index]
            if not unread:
                yield chosen
        if len(left) + len(broken) == len(data):
            raise InputError(impossible(prefix, rule, size, counts, left))


def in_order(data: ImageData, turn: int) -> list[int]:
    """All images: in turn 0 in the order of the manifest, then the others by hash; in later turns all by hash."""
    keys = [data.key(image_id) for image_id in data.ids]
    places = {key: place for place, key in enumerate(listed(data.name, data.split))} if turn == 0 else {}
    ranks = [
        (places.get(key, len(places)), digest(f"{key} {turn}" if turn else key), image_id)
        for key, image_id in zip(keys, data.ids, strict=True)
    ]
    return sorted(range(len(ranks)), key=ranks.__getitem__)


def class_counts(rule: str, size: int) -> list[int]:
    """How many images of each class form a batch, the largest class first; empty for any images.

    Raises:
        InputError: an unbalanced batch below 4, which has no quarter.
    """
    if rule == "unbalanced" and size < 4:
        raise InputError(f"batch is {size}, but unbalanced batches have a quarter of one class; give 4 or more.")
    half, quarter = size // 2, size // 4
    return {"random": [], "distinct": [1] * size, "unbalanced": [half, quarter] + [1] * (size - half - quarter)}[rule]


def first(left: Mapping[int, int], size: int) -> tuple[int, ...]:
    """The first `size` images, or none if they are fewer."""
    return tuple(itertools.islice(left, size)) if len(left) >= size else ()


def pick(left: Mapping[int, int], counts: Sequence[int]) -> tuple[int, ...]:
    """The first images that form such a batch, in their order, or none.

    For each count in turn, the class is that of the first image whose class is not in the batch yet and has enough
    images.

    Args:
        left: the label of every unused image, in order.
        counts: the images of each class, in descending order.
    """
    sizes = Counter(left.values())
    wanted: dict[int, int] = {}
    for count in counts:
        label = next((label for label in left.values() if label not in wanted and sizes[label] >= count), None)
        if label is None:
            return ()
        wanted[label] = count
    chosen: list[int] = []
    for index, label in left.items():
        if wanted.get(label):
            wanted[label] -= 1
            chosen.append(index)
    return tuple(chosen)


def impossible(prefix: str, rule: str, size: int, counts: Sequence[int], left: Mapping[int, int]) -> str:
    """Why the readable images do not form one batch."""
    if not counts:
        return f"batch is {size}, but {prefix} has {len(left)} images; give at most that many."
    several = [count for count in counts if count > 1]
    most = [str(count) for _, count in Counter(left.values()).most_common(len(several))]
    sizes = " and ".join(f"{n} in another" if place else f", with {n} images in one" for place, n in enumerate(several))
    has = f", with at most {' and '.join(most)}" if most else ""
    return f"{rule} batches of {size} need {len(counts)} classes{sizes}; {prefix} has {len(set(left.values()))}{has}."


def notice_unlisted(data: ImageData, prefix: str, drawn: Sequence[int]) -> None:
    """Give a Notice if tasks are not formed from the data set's list; `train`, which is not scored, has none."""
    keys = set(listed(data.name, data.split))
    outside = {index for index in drawn if data.key(data.ids[index]) not in keys}
    if not outside or data.split == "train":
        return
    what = "there is no list of its tasks; images come in the order of their hashes."
    if keys:
        here = sum(data.key(image_id) in keys for image_id in data.ids)
        what = f"{here} of the {len(keys)} images of its list are here; {len(outside)} others come after them by hash."
    warnings.warn(f"{prefix}: {what}", Notice, stacklevel=3)


def notice_repeated(data: ImageData, prefix: str, drawn: Sequence[int]) -> None:
    """Give a Notice if images are in several batches, which are then not independent; not on `train`."""
    different = len(set(drawn))
    if different < len(drawn) and data.split != "train":
        what = f"{len(drawn)} images are needed and {different} are used, some in several batches"
        warnings.warn(f"{prefix}: {what}, which are not independent then.", Notice, stacklevel=3)


def from_file(data: ImageData, prefix: str, file: Path, size: int) -> list[tuple[int, ...]]:
    """The batches that a file lists.

    Raises:
        InputError: the file is missing, a line does not have `size` different images or those of another line, or an
            image is missing or cannot be read.
    """
    if not file.is_file():
        raise InputError(
            f"batches is '{file}'; give {', '.join(RULES)}, or a file with the ids of one task's images on each line."
        )
    places = {image_id: index for index, image_id in enumerate(data.ids)}
    drawn = []
    seen: dict[frozenset[str], int] = {}
    for number, ids in lines(file).items():
        if len(ids) != size or len(set(ids)) != size:
            different = f"{len(ids)} images, {len(set(ids))} different ones"
            raise InputError(f"line {number} of {file} has {different}; fix it, or --batch, which is {size}.")
        if unknown := [image_id for image_id in ids if image_id not in places]:
            known = f"ids are such as {data.ids[0]}"
            raise InputError(f"line {number} of {file}: there is no image {unknown[0]} in {prefix}; {known}.")
        if (before := seen.setdefault(frozenset(ids), number)) != number:
            raise InputError(f"lines {before} and {number} of {file} list the same images; remove one of them.")
        drawn.append(tuple(places[image_id] for image_id in ids))
        data.batch(drawn[-1])  # an image that cannot be read is reported now, not after hours
    return drawn
