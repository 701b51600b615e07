"""Label confusion: no other counts can be arranged in more ways."""

import itertools
from math import factorial, prod

import pytest

from benchmark.registry import open_defense
from defenses.base import Chain
from defenses.label_confusion import LabelConfusion
from defenses.sparsification import Sparsification
from victims.errors import InputError


@pytest.mark.parametrize(("size", "labels"), [(8, 3), (8, 4), (7, 5), (5, 1), (7, 6), (2, 1)])
def test_no_counts_of_as_many_labels_can_be_arranged_in_more_ways(size, labels):
    counts = LabelConfusion(labels).class_counts(size)
    every = [n for n in itertools.product(range(1, size + 1), repeat=labels) if sum(n) == size]
    assert tuple(counts) in every
    assert counts == sorted(counts, reverse=True)
    assert ways(counts) == max(map(ways, every))


def ways(counts):
    return factorial(sum(counts)) // prod(map(factorial, counts))


def test_in_a_chain_the_first_defense_with_counts_decides_the_batches():
    chain = Chain([Sparsification(0.5), LabelConfusion(2), LabelConfusion(3)])
    assert chain.class_counts(6) == [3, 3]
    assert Chain([Sparsification(0.5)]).class_counts(6) == []
    assert Sparsification(0.5).class_counts(6) == []


def test_the_surrogate_changes_nothing():
    dummy = {}
    assert LabelConfusion.estimate({}, None)(dummy) is dummy


@pytest.mark.parametrize(("labels", "said"), [(0, "1 label or more, not 0"), (-2, "not -2")])
def test_less_than_one_label_is_refused_in_one_line(labels, said):
    with pytest.raises(InputError, match=said) as error:
        open_defense(f"label_confusion:{labels}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("labels", [4, 5])
def test_as_many_labels_as_images_or_more_are_refused_in_one_line(labels):
    with pytest.raises(InputError, match=f"confusion:{labels} needs more than {labels} images, .* has 4") as error:
        LabelConfusion(labels).class_counts(4)
    assert "\n" not in str(error.value)


def test_one_image_is_left_to_the_check_of_what_a_defense_changes():
    assert LabelConfusion(1).class_counts(1) == [1]
