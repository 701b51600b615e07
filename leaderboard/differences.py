"""How two entries of a board differ over the images that both attacked."""

from collections import defaultdict
from collections.abc import Mapping

from leaderboard.board import Entry, EntryWithRows, clusters_of, score_of
from leaderboard.harm import Sample
from leaderboard.rows import FlatRow
from leaderboard.statistics import UNBOUNDED, Score, joined, known


def difference(a: EntryWithRows, b: EntryWithRows, metric: str) -> Score | None:
    """Mean difference a - b over the images that both have (same seed, task, image); None where there are none.

    The mean image has no seed: it is compared with every one.
    """
    ours, theirs = of_seeds(a, b), of_seeds(b, a)
    values = {
        sample: ours[sample][metric] - theirs[sample][metric]
        for sample in ours.keys() & theirs.keys()
        if known(ours[sample].get(metric)) and known(theirs[sample].get(metric))
    }
    return _difference(a[0], b[0], metric, values, clusters_of(values))


def of_seeds(one: EntryWithRows, other: EntryWithRows) -> Mapping[Sample, FlatRow]:
    """The rows of one entry; those of a mean image for each of the other's seeds."""
    entry, rows = one
    if entry.control != "mean_image":
        return rows
    seeds = {seed for seed, _, _ in other[1]}
    return {(seed, task, image): row for (_, task, image), row in rows.items() for seed in seeds}


def difference_by_image(a: EntryWithRows, b: EntryWithRows, metric: str) -> Score | None:
    """Mean difference a - b over the images that both attacked, also in different batches.

    Of each image the means over seeds and batches are compared. Images that stood in one batch on either side are one
    cluster; the batches that count are those of the side that has fewer.
    """
    ours, theirs = (_of_images(samples, metric) for _, samples in (a, b))
    shared = ours.keys() & theirs.keys()
    # Two settings may have batches of one name.
    tasks = [{(f"{side} {task}", i) for _, task, i in rows if i in shared} for side, (_, rows) in enumerate((a, b))]
    fewer = min(tasks, key=lambda pairs: len({task for task, _ in pairs}))
    task_of = {image: task for task, image in sorted(fewer)}
    values = {(0, task_of[image], image): ours[image] - theirs[image] for image in shared}
    score = _difference(a[0], b[0], metric, values, joined(set.union(*tasks)))
    return score and score._replace(batches=len({task for task, _ in fewer}))


def _of_images(samples: Mapping[Sample, FlatRow], metric: str) -> dict[str, float]:
    """The mean of a score of every image over seeds and batches."""
    found = defaultdict(list)
    for (_, _, image), row in samples.items():
        if known(value := row.get(metric)):
            found[image].append(value)
    return {image: sum(values) / len(values) for image, values in found.items()}


def _difference(
    a: Entry, b: Entry, metric: str, values: Mapping[Sample, float], names: Mapping[str, str]
) -> Score | None:
    """Of differences a - b by sample; None where there are none, or where they are of distances that differ.

    Args:
        names: of the clusters of all tasks.
    """
    if metric == "lpips" and a["lpips_backbone"] != b["lpips_backbone"]:
        return None
    (low, high), (other_low, other_high) = (side.ranges.get(metric, UNBOUNDED) for side in (a, b))
    return score_of(values, names, (low - other_high, high - other_low))
