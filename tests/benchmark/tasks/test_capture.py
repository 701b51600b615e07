"""The only way from images to an Observation."""

import pytest
import torch

from benchmark.registry import open_defense
from benchmark.tasks import capture as captures
from benchmark.tasks.batches import Batch, draw_batches
from benchmark.tasks.capture import Client, capture, capture_task, capturing, client_update
from benchmark.tasks.controls import strangers
from defenses.noise import Noise
from defenses.sparsification import Sparsification
from victims.client import LocalTraining, fed_avg, fed_sgd
from victims.data.photos import Photos
from victims.errors import InputError, Notice
from victims.models.lenet import LeNet
from victims.modules import build
from victims.seeds import private_seed, seed_of
from victims.victim import Victim


@pytest.fixture(scope="module")
def data():
    return Photos(split="tune")


@pytest.fixture(scope="module")
def victim(data):
    return Victim(build(LeNet, image_shape=(3, 32, 32), num_classes=10, seed=0), mean=data.mean, std=data.std)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_the_observation_is_the_defended_gradient_with_labels_as_a_multiset(victim, data):
    indices = (90, 3, 50)
    plain = capture_task(victim, data, Batch("t", indices), Client())
    sparse = capture_task(victim, data, Batch("t", indices), Client(defense=Sparsification(0.9)))
    assert plain.observation.knowledge.labels.tolist() == sorted(data.labels[list(indices)].tolist())
    assert plain.sample_ids == tuple(data.ids[i] for i in indices)
    for name, sent in sparse.observation.update.items():
        kept = sent != 0
        assert torch.equal(sent[kept], plain.observation.update[name][kept])
        assert kept.sum() == sent.numel() - int(0.9 * sent.numel())


def test_the_shuffled_update_is_that_of_other_images_and_the_truth_stays(victim, data):
    batch, client = Batch("t", (90, 3, 50)), Client()
    plain, shuffled = (capture_task(victim, data, batch, client, control) for control in ("none", "shuffled_update"))
    assert torch.equal(plain.images, shuffled.images)
    assert plain.observation.knowledge.labels.tolist() == shuffled.observation.knowledge.labels.tolist()
    other = capture_task(victim, data, Batch("t", strangers(data, batch)), client)
    for name, sent in shuffled.observation.update.items():
        assert torch.equal(sent, other.observation.update[name])
        assert not torch.equal(sent, plain.observation.update[name])


def test_what_is_not_declared_is_not_there(victim, data):
    local = LocalTraining(lr=0.1)
    client = Client(defense=Sparsification(0.9), adapt=False, give_labels=False, local=local, know_lr=False)
    knowledge = capture_task(victim, data, Batch("t", (1,)), client).observation.knowledge
    assert knowledge.labels is None
    assert knowledge.estimate is None
    assert knowledge.statistics is None
    assert knowledge.local.lr is None


def test_an_adaptive_attacker_uses_the_surrogate_that_is_named(victim, data):
    own, named = (Client(defense=Sparsification(0.9), surrogate=name) for name in ("", "parameter"))
    estimates = [capture_task(victim, data, Batch("t", (1,)), c).observation.knowledge.estimate for c in (own, named)]
    assert estimates == [Sparsification.estimate, Sparsification.surrogates["parameter"]]


@pytest.mark.parametrize(
    ("defense", "name", "fix"),
    [
        ("noise:0.1", "parameter", "leave it out"),
        ("clipping:1", "rate", "give one of parameter, or leave it out"),
        ("noise:0.1+sparsification:0.5", "x", "give one of parameter, or leave it out"),
    ],
)
def test_a_surrogate_that_no_part_offers_is_refused_where_the_attacker_would_use_it(defense, name, fix):
    with pytest.raises(InputError, match=f"no part of the defense offers a surrogate '{name}'; {fix}") as error:
        Client(defense=open_defense(defense), surrogate=name)
    assert "\n" not in str(error.value)
    Client(defense=open_defense(defense), surrogate=name, adapt=False)  # as without a defense: nothing to adapt to
    Client(surrogate=name)
    Client(defense=open_defense("noise:0.1+sparsification:0.5"), surrogate="parameter")


@pytest.mark.parametrize("factor", [0.0, torch.inf])
def test_an_update_that_cannot_be_matched_gives_a_notice(data, factor):
    model = build(LeNet, image_shape=(3, 32, 32), num_classes=10, seed=0)
    for parameter in model.parameters():
        parameter.data *= factor
    model.classifier.bias.data = 1e4 * torch.nn.functional.one_hot(data.labels[1], 10).float()
    victim = Victim(model, mean=data.mean, std=data.std)
    with pytest.warns(Notice, match="nothing can be matched"):
        capture_task(victim, data, Batch("t", (1,)), Client())


@pytest.mark.parametrize("local", [None, LocalTraining(lr=0.1, epochs=2, mini_batch=1)])
def test_images_alone_give_the_update_of_the_victims_client(victim, data, local):
    """No data set is needed, and what is computed is FedSGD or FedAvg."""
    images, labels = data.batch((90, 3, 50))
    observation = capture(victim, images, labels, Client(local=local), task="t", num_classes=10)
    plain = fed_avg(victim, images, labels, local) if local else fed_sgd(victim, images, labels)
    assert same(observation.update, plain)
    assert (observation.batch_size, observation.image_shape, observation.num_classes) == (3, (3, 32, 32), 10)


def sent_by(victim, images, labels, defense, clients):
    return client_update(
        victim,
        images,
        labels,
        generator=torch.Generator().manual_seed(5),
        defense=open_defense(defense) if defense else None,
        local=LocalTraining(lr=0.1, clients=clients),
    )


@pytest.mark.parametrize("use", ["sign", "sparsification:0.9", "clipping:0.001:global", "soteria:0.5"])
def test_each_of_several_clients_defends_its_own_update(use, victim, data):
    images, labels = data.batch((90, 3, 50, 7))
    shares = zip(images.chunk(2), labels.chunk(2), strict=True)
    one, other = (sent_by(victim, *share, use, 1) for share in shares)
    for name, update in sent_by(victim, images, labels, use, 2).items():
        torch.testing.assert_close(update, (one[name] + other[name]) / 2)
    with pytest.raises(InputError, match="evenly over 3 clients"):
        sent_by(victim, images, labels, use, 3)


def test_the_noise_of_several_clients_is_drawn_apart(victim, data):
    """The mean of four has half of one's standard deviation."""
    images, labels = data.batch((90, 3, 50, 7))
    plain, noisy = (sent_by(victim, images, labels, use, 4) for use in ("", "noise:0.01"))
    noise = torch.cat([(noisy[name] - plain[name]).flatten() for name in plain])
    assert noise.std() == pytest.approx(0.005, rel=0.05)
    assert len(noise) > 5000


def test_what_is_sent_depends_on_the_generator_of_its_defense(victim, data):
    images, labels = data.batch((90, 3))

    def sent(seed):
        generator = torch.Generator().manual_seed(seed)
        return client_update(victim, images, labels, generator=generator, defense=Noise(0.1))

    assert same(sent(0), sent(0))
    assert not same(sent(0), sent(1))


def test_the_seed_of_a_client_and_the_name_of_a_task_draw_its_noise(victim, data):
    def sent(seed, task):
        client = Client(defense=Noise(0.1), seed=seed)
        return capture_task(victim, data, Batch(task, (90, 3)), client).observation.update

    assert same(sent(0, "a"), sent(0, "a"))
    assert not same(sent(0, "a"), sent(1, "a"))
    assert not same(sent(0, "a"), sent(0, "b"))


@pytest.mark.parametrize("text", ["noise:0.1", "quantization:4", "dp_sgd:1:0.1", "precode:8"])
def test_what_a_client_draws_is_unknown_without_its_images(text, data):
    """Whoever knows all options, the seed, the task and the labels still draws something else."""
    images, labels = data.batch((90, 3))
    defense, shape = open_defense(text), data.image_shape
    net = build(lambda: defense.model(LeNet(image_shape=shape, num_classes=10), shape), seed=0)
    victim, client = Victim(net, mean=data.mean, std=data.std), Client(defense=defense, seed=3)

    def sent():
        return capture(victim, images, labels, client, task="t", num_classes=10).update

    def drawn_from(seed):
        return client_update(victim, images, labels, generator=torch.Generator().manual_seed(seed), defense=defense)

    assert same(sent(), sent())
    assert same(sent(), drawn_from(private_seed(images, labels, 3, "t")))
    others = data.batch((91, 4))[0]
    guesses = [seed_of(3, "defense", "t"), seed_of(3, "t"), private_seed(others, labels, 3, "t")]
    assert not any(same(sent(), drawn_from(guess)) for guess in guesses)


def test_a_private_seed_depends_on_each_image_and_label_alone(data):
    images, labels = data.batch((90, 3))
    seed = private_seed(images, labels, 0)
    assert private_seed(images.double().clone(), labels.int(), 0) == seed
    changed = images.clone()
    changed[1, 2, 5, 5] += 1 / 255
    different = [(changed, labels, 0), (images.flip(0), labels, 0), (images, labels.flip(0), 0), (images, labels, 1)]
    assert len({seed, *(private_seed(*given) for given in different)}) == 5


def test_the_first_task_is_captured_once_and_not_held_for_the_rest_of_the_run(victim, data, monkeypatch):
    seen = []

    def counted(victim, data, batch, *rest, capture_task=capture_task):
        seen.append(batch.task)
        return capture_task(victim, data, batch, *rest)

    monkeypatch.setattr(captures, "capture_task", counted)
    first, second = draw_batches(data, "p", batch_size=2, tasks=2)
    capture = capturing(victim, data, Client())
    checked = capture(first)
    assert capture(first) is checked
    assert capture(second).sample_ids != checked.sample_ids
    assert seen == [first.task, second.task]
    assert capture(first) is not checked


def test_all_clients_of_a_run_compute_on_one_copy_that_no_observation_leads_to(victim, data):
    capture = capturing(victim, data, Client())
    one, other = (capture(batch) for batch in draw_batches(data, "p", batch_size=2, tasks=2))
    assert one.victim is other.victim is not victim
    assert one.observation.victim is other.observation.victim is victim
    assert same(one.victim.parameters, victim.parameters)
