import pytest
import torch

from benchmark.tasks.batches import Batch, draw_batches
from benchmark.tasks.module import GradientDataModule, mean_image, strangers
from defenses.sparsification import Sparsification
from victims.data.photos import Photos
from victims.errors import InputError, Notice
from victims.models.lenet import LeNet
from victims.victim import Victim, build


@pytest.fixture(scope="module")
def data():
    return Photos(split="tune")


def make_module(data, batches=(), **changes):
    model = build(LeNet, image_shape=(3, 32, 32), num_classes=10, seed=0)
    victim = changes.pop("victim", None) or Victim(model, mean=data.mean, std=data.std)
    options = {"defense": None, "adapt": True, "give_labels": True, "control": "none", "seed": 0, "steps": 1}
    return GradientDataModule(data, victim, batches, **{**options, **changes})


def test_strangers_share_the_labels_and_no_image(data):
    for batch in draw_batches(data, "p", batch_size=4, tasks=24):
        others = strangers(data, batch)
        assert not set(others) & set(batch.indices)
        assert len(set(others)) == 4
        assert torch.equal(data.labels[list(others)], data.labels[list(batch.indices)])


def test_strangers_of_another_class_where_a_class_is_used_up(data):
    label = int(data.labels[0])
    whole_class = tuple(torch.nonzero(data.labels == label).flatten().tolist())
    others = strangers(data, Batch("t", whole_class))
    assert not set(others) & set(whole_class)
    with pytest.raises(InputError, match="control"):
        strangers(data, Batch("t", tuple(range(len(data)))))


def test_the_observation_is_the_defended_gradient_with_labels_as_a_multiset(data):
    indices = (90, 3, 50)
    plain = make_module(data).capture(Batch("t", indices))
    sparse = make_module(data, defense=Sparsification(0.9)).capture(Batch("t", indices))
    assert plain.observation.knowledge.labels.tolist() == sorted(data.labels[list(indices)].tolist())
    assert plain.sample_ids == tuple(data.ids[i] for i in indices)
    for name, sent in sparse.observation.update.items():
        kept = sent != 0
        assert torch.equal(sent[kept], plain.observation.update[name][kept])
        assert kept.sum() == sent.numel() - int(0.9 * sent.numel())


def test_the_shuffled_update_is_that_of_other_images_and_the_truth_stays(data):
    batch = Batch("t", (90, 3, 50))
    plain, shuffled = (make_module(data, control=control).capture(batch) for control in ("none", "shuffled_update"))
    assert torch.equal(plain.images, shuffled.images)
    assert plain.observation.knowledge.labels.tolist() == shuffled.observation.knowledge.labels.tolist()
    other = make_module(data).capture(Batch("t", strangers(data, batch)))
    for name, sent in shuffled.observation.update.items():
        assert torch.equal(sent, other.observation.update[name])
        assert not torch.equal(sent, plain.observation.update[name])


def test_what_is_not_declared_is_not_there(data):
    knowledge = make_module(data, defense=Sparsification(0.9), adapt=False, give_labels=False)
    knowledge = knowledge.capture(Batch("t", (1,))).observation.knowledge
    assert knowledge.labels is None
    assert knowledge.estimate is None


@pytest.mark.parametrize("factor", [0.0, torch.inf])
def test_an_update_that_cannot_be_matched_is_said(data, factor):
    model = build(LeNet, image_shape=(3, 32, 32), num_classes=10, seed=0)
    for parameter in model.parameters():
        parameter.data *= factor
    model.classifier.bias.data = 1e4 * torch.nn.functional.one_hot(data.labels[1], 10).float()
    victim = Victim(model, mean=data.mean, std=data.std)
    with pytest.warns(Notice, match="nothing can be matched"):
        make_module(data, victim=victim).capture(Batch("t", (1,)))


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
