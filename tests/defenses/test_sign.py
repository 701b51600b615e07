"""Signs, and the attacker's surrogate of them."""

import inspect

import numpy as np
import pytest
import torch

from attacks.engine.distances import cosine
from benchmark.registry import open_defense
from benchmark.tasks.capture import Client
from benchmark.tasks.capture import capture as capture_images
from defenses.sign import Sign
from victims.client import LocalTraining
from victims.errors import InputError

G = {"w": torch.tensor([[0.3, -1.2], [0.0, 2e-30]]), "b": torch.tensor(-7.0)}


def signs(update):
    return Sign()(update, torch.Generator())


def one(update):
    return {name: g[None] for name, g in update.items()}


@pytest.fixture
def update(capture):
    """Of a LeNet on photographs, undefended."""
    return capture(rate=None).observation.update


def test_only_signs_are_sent(update):
    assert signs(G)["w"].tolist() == [[1, -1], [0, 1]]
    assert signs(G)["b"].item() == -1
    for name, sent in signs(update).items():
        assert np.array_equal(sent.numpy(), np.sign(update[name].numpy()))


def test_the_clients_update_is_not_changed(update):
    before = {name: g.clone() for name, g in update.items()}
    signs(update)
    assert all(torch.equal(update[name], g) for name, g in before.items())


def test_the_command_line_takes_it_without_parameters():
    assert isinstance(open_defense("sign"), Sign)
    with pytest.raises(InputError, match="sign"):
        open_defense("sign:2")


# The attacker's surrogate.


def test_its_values_are_those_derived_by_hand():
    """Means 2 and 10: each run and tensor has its own."""
    dummy = {"w": torch.tensor([[-1.0, 3.0], [0.0, 20.0]])}
    seen = Sign.estimate({"w": dummy["w"].sign()}, None)(dummy)["w"]
    assert torch.allclose(seen, torch.tensor([[-1 / 3, 3 / 5], [0.0, 2 / 3]]))


def test_at_the_truth_it_is_nearer_to_the_signs_than_the_gradient_and_agrees_with_all(update):
    sent = one(signs(update))
    seen = Sign.estimate(sent, None)(one(update))
    assert all(torch.equal(g.sign(), sent[name]) for name, g in seen.items())
    assert cosine(seen, sent) < 0.6 * cosine(one(update), sent)


def test_lengths_do_not_matter(update):
    plain, longer = (
        Sign.estimate(one(signs(update)), None)(one({n: k * g for n, g in update.items()})) for k in (1, 64)
    )
    assert all(torch.allclose(plain[name], longer[name], rtol=1e-5) for name in update)


def test_its_gradients_are_those_of_finite_differences():
    generator = torch.Generator().manual_seed(0)
    dummy = [torch.randn(2, *shape, generator=generator).double().requires_grad_() for shape in ((3,), (2, 2), (4,))]

    def seen(*tensors):
        return tuple(Sign.estimate(dict(enumerate(dummy)), None)(dict(enumerate(tensors))).values())

    assert torch.autograd.gradcheck(seen, dummy)
    assert torch.autograd.gradgradcheck(seen, dummy)


def test_after_local_training_it_has_the_size_of_what_is_received(capture):
    """Signs come in units of a gradient, 1 / (lr T) each: a distance in l2 is as near at the truth as without."""
    from_truth = []
    for local in (None, LocalTraining(epochs=1, lr=0.01)):
        client = Client(defense=Sign(), local=local)
        task = capture(rate=None, dtype=torch.float64)
        victim = task.observation.victim
        sent = capture_images(victim, task.images.double(), task.labels, client, task="t", num_classes=10)
        received, dummy = one(sent.gradient()), one(task.observation.update)
        seen = sent.knowledge.estimate(received, victim)(dummy)
        apart = sum(float((seen[name] - g).square().sum()) for name, g in received.items())
        from_truth.append(apart / sum(float(g.square().sum()) for g in received.values()))
    assert from_truth[1] == pytest.approx(from_truth[0], rel=1e-6)
    assert from_truth[0] < 0.6


def test_zeros_stay_zeros_and_their_gradients_small():
    dummy = {"w": torch.zeros(2, 3, requires_grad=True), "b": torch.zeros(2, requires_grad=True)}
    seen = Sign.estimate(dummy, None)(dummy)
    gradients = torch.autograd.grad(sum(g.sum() for g in seen.values()), list(dummy.values()))
    assert all((g.abs() <= 1).all() for g in gradients)  # which NaN is not
    assert not any(g.any() for g in seen.values())


def test_estimate_needs_no_instance():
    assert isinstance(inspect.getattr_static(Sign, "estimate"), staticmethod)
