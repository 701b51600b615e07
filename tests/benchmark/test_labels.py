"""The scores of label recovery against oracles, the batches it is measured on, and its table."""

import re
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from benchmark.labels import labels
from benchmark.scoring.label_accuracy import label_accuracies
from benchmark.tasks.batches import draw_batches
from victims.data.photos import Photos
from victims.errors import InputError

LABELS = st.lists(st.integers(0, 4), min_size=6, max_size=6).map(torch.tensor)


# The scores.


@given(LABELS, LABELS)
def test_counts_are_the_share_of_images_matched_with_one_of_their_label(found, truth):
    alike = (found[:, None] == truth[None]).numpy()
    rows, columns = linear_sum_assignment(alike, maximize=True)
    assert label_accuracies(found, truth)["counts"] == pytest.approx(alike[rows, columns].mean())


@given(LABELS, LABELS)
def test_existence_is_the_share_of_the_true_classes_that_were_found(found, truth):
    present = truth.unique()
    assert label_accuracies(found, truth)["existence"] == pytest.approx(torch.isin(present, found).double().mean())


@pytest.mark.parametrize(("B", "published"), [(16, 0.375), (32, 0.313), (64, 0.281)])
def test_distinct_classes_all_right_score_as_zlr_does_in_the_igims_paper(B, published):
    """Table 2: 64 is ImageNet's column. Half of one class, a quarter of another: ZLR can only find each once."""
    truth = torch.tensor([0] * (B // 2) + [1] * (B // 4) + list(range(2, 2 + B // 4)))
    accuracies = label_accuracies(torch.arange(B), truth)
    assert accuracies["counts"] == pytest.approx(published, abs=6e-4)
    assert accuracies["existence"] == 1


def test_a_found_class_that_is_not_in_the_batch_costs_only_counts():
    assert label_accuracies(torch.tensor([0, 0, 1, 7]), torch.tensor([0, 0, 1, 1])) == {"counts": 0.75, "existence": 1}
    assert label_accuracies(torch.tensor([0, 0, 0, 0]), torch.tensor([0, 0, 1, 1])) == {"counts": 0.5, "existence": 0.5}


def test_the_most_probable_class_counts():
    soft = torch.tensor([[0.2, 0.5, 0.3], [0.9, 0.1, 0.0]])
    assert label_accuracies(soft, torch.tensor([0, 1])) == {"counts": 1, "existence": 1}


def test_for_a_victim_with_one_logit_only_odd_or_even_counts():
    assert label_accuracies(torch.tensor([1]), torch.tensor([7]), parity=True) == {"counts": 1, "existence": 1}
    assert label_accuracies(torch.tensor([1]), torch.tensor([6]), parity=True) == {"counts": 0, "existence": 0}


# The table.

SMALL = {"victim": "lenet", "size": 8, "trials": 2}


def test_the_table_has_a_line_per_method_and_a_column_per_batch_size(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    labels(**SMALL, batch="1,3", methods="alr,idlg,zlr")
    printed = capsys.readouterr().out
    exact = r"1\.000 \[0\.158, 1\.00\]"  # both trials were right: 0.158 is the square root of 0.025
    assert len(re.findall(rf"alr +{exact} +{exact} +bias, scale, softmax\n", printed)) == 2  # counts, existence
    assert len(re.findall(rf"idlg +{exact} +- +non-negative features, one image, signs\n", printed)) == 2
    assert "B = 1" in printed
    assert "B = 3" in printed
    assert "- idlg reads the label of a single image" in printed
    for fact in ("victim lenet", "victim_mode eval", "defense none", "10 classes", "2 random batches"):
        assert fact in printed


def test_clients_share_the_images_of_a_batch_of_every_size(capsys):
    labels(**SMALL, batch="8, 16", methods="zlr, alr", clients=8, lr=0.01)
    assert "B = 16" in capsys.readouterr().out


def test_batches_that_share_images_count_as_one_for_the_interval(capsys, monkeypatch):
    """96 images are 3 batches of 32: the fourth shares images with all of them."""
    monkeypatch.setenv("COLUMNS", "120")
    labels(**SMALL | {"trials": 3}, methods="zlr", batch="32")
    apart = capsys.readouterr().out
    assert len(re.findall(r"zlr +\d\.\d+ \[\d\.", apart)) == 2  # counts, existence
    assert "share images" not in apart
    labels(**SMALL | {"trials": 6}, methods="zlr", batch="32")
    together = capsys.readouterr().out
    assert len(re.findall(r"zlr +\d\.\d+ \[-\]", together)) == 2
    assert "95 % intervals over them; those of 32 share images and count as 1" in together


def test_it_measures_the_defended_update_of_the_drawn_batches(capsys):
    data = Photos(split="test", size=8)
    (batch,) = draw_batches(data, "photos-test-8px", rule="unbalanced", batch_size=8, tasks=1)
    assert sorted(Counter(data.labels[list(batch.indices)].tolist()).values()) == [1, 1, 2, 4]
    once = {**SMALL, "trials": 1, "batch": "8", "batches": "unbalanced"}
    labels(**once, methods="zlr,alr")
    assert re.findall(r"(?:zlr|alr) +(\d\.\d+)", capsys.readouterr().out)[:2] == ["0.5000", "1.000"]
    labels(**once, methods="alr", defense="sparsification:0.99")  # every bias gradient is gone
    assert float(re.findall(r"alr +(\d\.\d+)", capsys.readouterr().out)[0]) < 1


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"batch": "4,x"}, "batch takes whole numbers"),
        ({"batch": "0"}, "batch takes whole numbers"),
        ({"batch": ""}, "batch takes whole numbers"),
        ({"batch": "97"}, "96 images"),
        ({"trials": 0}, "trials is 0"),
        ({"methods": "arl"}, "did you mean 'alr'"),
        ({"victim": "lenett"}, "did you mean 'lenet'"),
        ({"defense": "sparsification"}, "write sparsification:RATE"),
        ({"batches": "distinct", "batch": "11"}, "11 need 11 classes"),
    ],
)
def test_bad_input_is_one_line(options, expected):
    with pytest.raises(InputError, match=expected) as refusal:
        labels(**{**SMALL, "batch": "2", **options})
    assert "\n" not in str(refusal.value)
