"""Tests that every label method must pass. A method is tested because it is in the folder."""

import subprocess
import sys
from copy import deepcopy
from dataclasses import replace
from typing import get_args

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD

from attacks.ig import IG
from attacks.labels import find, infer, methods, names
from attacks.labels.base import Need
from benchmark.registry import open_loss
from tests.attacks.labels.conftest import SHAPE, N, Normed, Small, constant
from victims.client import LocalTraining
from victims.errors import InputError
from victims.models.lenet import LeNet
from victims.modules import build
from victims.observation import Knowledge

METHODS = methods()
every_method = pytest.mark.parametrize("name", METHODS)


def batch(name, size):
    """Labels with repeats, of as many images as the method takes."""
    labels = torch.randint(N, (size,), generator=torch.Generator().manual_seed(size)).tolist()
    return labels[:1] if "one image" in METHODS[name].needs else labels


def is_an_answer(labels, observation):
    assert labels.dtype == torch.long
    assert labels.shape == (observation.batch_size,)
    assert torch.equal(labels, labels.sort().values)
    assert 0 <= labels.min() <= labels.max() < N


def test_the_folder_is_the_registry():
    assert list(METHODS) == names() == ["alr", "idlg", "ilrg", "llg", "row_sums", "zlr"]


def test_names_and_a_mistyped_name_import_no_torch():
    code = "import sys; from attacks.labels import find, names; names()\n"
    code += "try: find('al')\nexcept ValueError as error: print(error, 'torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "did you mean 'alr'?" in said
    assert said.endswith("False\n")


@every_method
@pytest.mark.parametrize("size", [1, 5, 3 * N])
@pytest.mark.parametrize("training", [False, True])
def test_there_is_one_sorted_label_for_every_image(name, size, training, observe):
    observation = observe(batch(name, size), build(Normed, seed=1), training=training)
    is_an_answer(METHODS[name](observation), observation)


@every_method
def test_the_label_of_a_single_image_is_exact(name, observe):
    for label in range(N):
        assert METHODS[name](observe([label], seed=label)).tolist() == [label]


@every_method
def test_after_local_training_the_update_counts_in_units_of_a_gradient(name, observe):
    """One step of it at any learning rate is the gradient; without the rate its length is not known."""
    sgd = observe(batch(name, 5))
    update = {parameter: 0.3 * g for parameter, g in sgd.update.items()}
    avg = replace(sgd, update=update, knowledge=Knowledge(local=LocalTraining(lr=0.3)))
    assert torch.equal(METHODS[name](avg), METHODS[name](sgd))
    unscaled = replace(avg, knowledge=Knowledge(local=LocalTraining()))
    if "scale" not in METHODS[name].needs:
        is_an_answer(METHODS[name](unscaled), unscaled)
    else:
        with pytest.raises(InputError, match="unknown learning rate") as refusal:
            METHODS[name](unscaled)
        assert "\n" not in str(refusal.value)


@every_method
@pytest.mark.parametrize("damage", [0.0, torch.nan, torch.inf, -1.0, 1e30])
def test_a_damaged_update_still_gets_an_answer(name, damage, observe):
    observation = observe(batch(name, 9))
    for tensor in observation.update.values():
        tensor.mul_(damage)
    is_an_answer(METHODS[name](observation), observation)


@every_method
def test_noise_and_zeros_still_get_an_answer(name, observe):
    observation = observe(batch(name, 9))
    noise = torch.Generator().manual_seed(0)
    for tensor in observation.update.values():
        tensor.add_(torch.randn(tensor.shape, generator=noise, dtype=tensor.dtype))
        tensor.mul_(torch.rand(tensor.shape, generator=noise, dtype=tensor.dtype) < 0.2)  # whole rows may be gone
    is_an_answer(METHODS[name](observation), observation)


@every_method
def test_same_update_same_labels_and_no_side_effect(name, observe):
    observation = observe(batch(name, 9))
    before = {key: tensor.clone() for key, tensor in observation.update.items()}
    first, second = (METHODS[name](observation) for _ in range(2))
    assert torch.equal(first, second)
    assert all(torch.equal(tensor, before[key]) for key, tensor in observation.update.items())


@every_method
def test_given_labels_are_ignored(name, observe):
    observation = observe(batch(name, 9))
    wrong = (METHODS[name](observation) + 1) % N
    told = replace(observation, knowledge=Knowledge(labels=wrong))
    assert torch.equal(METHODS[name](told), METHODS[name](observation))
    completed = infer(told, name)
    assert torch.equal(completed.knowledge.labels, METHODS[name](observation))
    assert torch.equal(told.knowledge.labels, wrong)


@every_method
def test_the_scale_of_the_victims_precision_does_not_matter(name, observe):
    observation = observe(batch(name, 9))
    labels = METHODS[name](observation)
    observation.victim.to("cpu", torch.float32)
    single = replace(observation, update={key: tensor.float() for key, tensor in observation.update.items()})
    assert torch.equal(METHODS[name](single), labels)


@every_method
def test_the_average_of_small_local_steps_is_read_as_a_gradient(name, observe):
    """FedAvg: (theta_0 - theta_T) / (lr T)."""
    labels, lr, T = batch(name, 9), 1e-3, 3
    observation = observe(labels)
    images = torch.rand(len(labels), *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    net = deepcopy(observation.victim.model).requires_grad_()
    sgd = SGD(net.parameters(), lr=lr)
    for _ in range(T):
        sgd.zero_grad()
        cross_entropy(net(images), torch.tensor(labels)).backward()
        sgd.step()
    before = observation.victim.parameters
    average = {key: (before[key] - after.detach()) / (lr * T) for key, after in net.named_parameters()}
    assert not torch.equal(average["3.weight"], observation.update["3.weight"])
    assert torch.equal(METHODS[name](replace(observation, update=average)), METHODS[name](observation))


class Signed(nn.Identity):
    """Features of both signs."""


CANNOT = {
    "one logit": (None, build(Small, classes=1, seed=0)),
    "single image": ("one image", build(Small, seed=0)),
    "bias": ("bias", build(Small, bias=False, seed=0)),
    "never negative": ("non-negative features", build(Small, activation=Signed, seed=0)),
}


@every_method
@pytest.mark.parametrize("reason", CANNOT)
def test_an_unsuitable_update_is_refused_in_one_line_with_an_alternative(name, reason, observe):
    need, net = CANNOT[reason]
    single = "one image" in METHODS[name].needs and need != "one image"
    observation = observe([1] if single else [1, 1, 0], net)
    if need is not None and need not in METHODS[name].needs:
        is_an_answer(METHODS[name](observation), observation)
        return
    with pytest.raises(InputError, match=reason) as refusal:
        METHODS[name](observation)
    assert str(refusal.value).startswith(f"{name} ")
    assert "\n" not in str(refusal.value)
    assert "choose" in str(refusal.value)


LOSSES = {
    "cross_entropy": set(METHODS),
    "label_smoothing:0.2": {"alr", "ilrg"},
    "class_weights:1,2,3,4,5,6,7": {"idlg", "row_sums", "zlr"},
    "bce": {"idlg", "row_sums", "zlr"},
    "focal:2": {"idlg", "row_sums", "zlr"},
    "torch.nn.functional.cross_entropy": set(),
}
"""By loss, the methods that hold under it."""


@every_method
@pytest.mark.parametrize("text", LOSSES)
def test_under_another_loss_the_label_of_a_single_image_is_exact_or_the_method_refused(name, text, observe):
    holds = name in LOSSES[text]
    for label in range(N):
        observation = observe([label], seed=label, loss=open_loss(text))
        if holds:
            assert METHODS[name](observation).tolist() == [label]
            continue
        with pytest.raises(InputError, match=f"^{name} does not hold under the client's loss") as refusal:
            METHODS[name](observation)
        assert "\n" not in str(refusal.value)


@every_method
@pytest.mark.parametrize("text", LOSSES)
@pytest.mark.parametrize("labels", [[1], [1, 1, 0]], ids=["one image", "three"])
def test_a_refusal_names_every_method_that_holds_and_no_other(name, text, labels, observe):
    observation = observe(labels, loss=open_loss(text))
    hold = {each for each in LOSSES[text] if len(labels) == 1 or "one image" not in METHODS[each].needs}
    if name in hold:
        is_an_answer(METHODS[name](observation), observation)
        return
    with pytest.raises(InputError) as refusal:
        METHODS[name](observation)
    cure = str(refusal.value).partition("; ")[2]
    assert {each for each in METHODS if each in cure} == hold


@pytest.mark.parametrize("name", ["alr", "ilrg"])
def test_counts_under_label_smoothing_are_exact_where_features_do_not_depend_on_the_image(name, observe):
    labels = [0, 2, 2, 2, 5, 6, 6]
    net = constant(build(Small, seed=0))
    observation = observe(labels, net, loss=open_loss("label_smoothing:0.3"))
    assert METHODS[name](observation).tolist() == labels


@every_method
def test_a_method_says_what_it_needs_and_what_it_is(name):
    assert METHODS[name].needs <= set(get_args(Need))
    assert METHODS[name].__doc__


# How attacks get them.


def test_an_attack_runs_on_recovered_labels(capture):
    observation = capture((3, 50, 90), give_labels=False, rate=None, model=LeNet).observation
    attack = IG(steps=2, restarts=1)
    with pytest.raises(InputError, match="labels"):
        attack.check(observation)
    given = capture((3, 50, 90), rate=None, model=LeNet).observation
    completed = infer(observation, "alr")
    assert torch.equal(completed.knowledge.labels, given.knowledge.labels)
    assert torch.equal(attack.run([completed]).images, IG(steps=2, restarts=1).run([given]).images)


def test_names():
    with pytest.raises(InputError, match="did you mean 'alr'") as refusal:
        find("arl")
    assert all(name in str(refusal.value) for name in METHODS)
    assert find("attacks.labels.alr.alr") is METHODS["alr"]
    for wrong in ("nowhere.at_all", "attacks.labels.alr.nothing"):
        with pytest.raises(InputError, match="cannot import") as refusal:
            find(wrong)
        assert "\n" not in str(refusal.value)
