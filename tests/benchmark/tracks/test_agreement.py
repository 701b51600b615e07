"""The rule by which scores agree finds what is wrong, and leaves rounding alone."""

import pytest
import torch

from benchmark.scoring.metrics import psnr
from benchmark.tracks.agreement import BYTES, SPREAD, verdict


def share_that_differs(error, spread, sample):
    """Of 4000 records that say `error` dB more than there is, verified where rounding is of this spread."""
    noise = torch.randn(4000, sample, generator=torch.Generator().manual_seed(0)) * spread
    return sum(not verdict([[(20 + error, 20 + n)] for n in tasks])[0] for tasks in noise.tolist()) / len(noise)


@pytest.mark.parametrize("sample", [1, 3, 8])
def test_an_honest_record_differs_in_at_most_two_of_a_hundred_cases_where_rounding_does_most(sample):
    assert share_that_differs(0, SPREAD, sample) < 0.02


@pytest.mark.parametrize(("error", "spread"), [(1.36, 0), (1.5, 0.08), (2.3, SPREAD)])
def test_the_least_error_that_three_tasks_find_in_nineteen_of_twenty_cases(error, spread):
    assert share_that_differs(error, spread, 3) > 0.95
    assert share_that_differs(-error, spread, 3) > 0.95


def test_rows_in_another_order_differ_though_their_mean_is_right():
    values = [14.0, 19.0, 24.0]
    pairs = [[(before, now)] for before, now in zip(values, [*values[1:], values[0]], strict=True)]
    assert not verdict(pairs)[0]


def test_a_single_wrong_task_differs():
    assert not verdict([[(23.5, 20.0)], *[[(20.0, 20.0)]] * 7])[0]


def test_images_of_a_batch_may_move_as_far_as_they_were_measured_to_and_no_further():
    assert verdict([[(20.0, 20.11), (20.0, 21.85), (20.0, 20.03), (20.0, 20.29)]])[0]
    assert not verdict([[(20.0, 16.5), (20.0, 23.5), (20.0, 20.0), (20.0, 20.0)]])[0]


@pytest.mark.parametrize(
    ("shifts", "agrees"),
    [
        ([[2.0, -2.0]], True),  # of images alone, which may move further
        ([[0.3, 0.3], [0.3, 0.3]], False),  # in the mean
        ([[1.0, 1.0], [-1.0, -1.0]], False),  # of each task
    ],
)
def test_tasks_and_images_have_limits_of_their_own(shifts, agrees):
    pairs = [[(20.0, 20.0 + by) for by in task] for task in shifts]
    assert verdict(pairs, of_task=0.1, of_image=1.0)[0] is agrees


def test_beyond_what_bytes_hold_there_is_only_rounding():
    bytes_of = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    rounded = (bytes_of * 255).round() / 255
    assert float(psnr(rounded[None], bytes_of[None])) == pytest.approx(BYTES, abs=0.1)
    assert verdict([[(95.0, 70.0)]])[0]
    assert not verdict([[(95.0, 50.0)]])[0]
