"""The DataModule: which process gets which tasks, and what it captures."""

import pytest
import torch

from benchmark.tasks import module as datamodule
from benchmark.tasks.batches import draw_batches
from benchmark.tasks.capture import Client
from benchmark.tasks.module import GradientDataModule, mean_image
from victims.data.photos import Photos
from victims.errors import InputError
from victims.models.lenet import LeNet
from victims.victim import Victim, build


@pytest.fixture(scope="module")
def data():
    return Photos(split="tune")


def make_module(data, batches, **options):
    model = build(LeNet, image_shape=(3, 32, 32), num_classes=10, seed=0)
    return GradientDataModule(data, Victim(model, mean=data.mean, std=data.std), batches, Client(), steps=1, **options)


def test_the_first_task_is_captured_once(data, monkeypatch):
    captured = []

    def counted(victim, data, batch, *rest, capture_task=datamodule.capture_task):
        captured.append(batch.task)
        return capture_task(victim, data, batch, *rest)

    monkeypatch.setattr(datamodule, "capture_task", counted)
    first, second = draw_batches(data, "p", batch_size=2, tasks=2)
    module = make_module(data, [first, second])
    checked = module.first()
    assert module.capture(first) is checked
    assert module.capture(second).observation.task == second.task
    assert captured == [first.task, second.task]
    assert module.capture(first) is not checked  # it is not held for the rest of the run


def test_a_process_without_the_first_task_does_not_hold_it(data):
    first, second = draw_batches(data, "p", batch_size=2, tasks=2)
    module = make_module(data, [first, second])
    checked = module.first()
    assert module.capture(second).sample_ids != checked.sample_ids
    assert module.capture(first) is not checked


def test_a_group_below_one_is_refused(data):
    with pytest.raises(InputError, match="group is 0; give 1 or more"):
        make_module(data, [], group=0)


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_processes_share_out_all_groups_whatever_each_finds_done(data, world_size):
    batches = draw_batches(data, "p", batch_size=4, tasks=11)
    done_when_it_started = [frozenset(b.task for b in batches[:rank]) for rank in range(world_size)]
    taken = []
    for rank, done in enumerate(done_when_it_started):
        module = make_module(data, batches, group=2)
        module.take(rank, world_size, done)
        taken += [batch.task for group in module.groups for batch in group]
    assert len(taken) == len(set(taken))
    left_out = {batch.task for batch in batches} - set(taken)
    assert left_out <= frozenset().union(*done_when_it_started)


def test_mean_image(data):
    images, _ = data.batch(range(len(data)))
    torch.testing.assert_close(mean_image(data), images.mean(0))
