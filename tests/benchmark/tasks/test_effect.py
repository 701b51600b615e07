"""A defense that changes nothing is refused before anything is written."""

import pytest
import torch
from torch import nn

import gibench
from benchmark.config import Config
from benchmark.labels import labels
from benchmark.priors.federation import simulate
from benchmark.registry import registered
from benchmark.run import run
from benchmark.tasks.effect import differ
from benchmark.utility import utility
from defenses.base import Chain, Defense
from defenses.label_confusion import LabelConfusion
from defenses.sparsification import Sparsification
from victims.errors import InputError
from victims.models.lenet import LeNet
from victims.modules import build

SHAPE, B = (3, 32, 32), 4
LABELS = torch.tensor([3, 1, 3, 1])


class Plain(Defense):
    """Overrides nothing."""

    @staticmethod
    def estimate(received, victim):
        return lambda gradient: gradient


class Same(Plain):
    """Overrides every place, and changes nothing at any."""

    def model(self, model, image_shape):
        return nn.Sequential(model, nn.Identity())

    def gradient_fn(self, gradient_fn, victim, generator):
        return lambda *given: dict(gradient_fn(*given))

    def __call__(self, update, generator):
        torch.rand(3, generator=generator)
        return {name: g / 3 * 3 for name, g in update.items()}


class Softer(Plain):
    """Acts on the model alone."""

    def model(self, model, image_shape):
        return nn.Sequential(model, Halved())


class Halved(nn.Module):
    def forward(self, x):
        return x / 2


class Unused(Plain):
    """Puts noise into a layer that no forward uses."""

    def model(self, model, image_shape):
        model.spare = nn.Linear(2, 2)
        return model

    def gradient_fn(self, gradient_fn, victim, generator):
        def noisy(theta, images, labels):
            moved = theta["spare.weight"] + torch.randn(2, 2, generator=generator)
            return gradient_fn({**theta, "spare.weight": moved.detach()}, images, labels)

        return noisy


@pytest.fixture
def images():
    return torch.rand(B, *SHAPE, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def model():
    return build(LeNet, image_shape=SHAPE, num_classes=10, seed=0)


def checked(defense, **options):
    config = Config(**{"victim": "lenet", "batch": B, "defense": defense, **options})
    data = config.make_data()
    config.check_defense(config.make_victim(data), data, *config.make_batches(data, 1))


@pytest.mark.parametrize("text", [use for defense in registered("defense").values() for use in defense.examples])
def test_every_defense_changes_something(text):
    checked(text)


@pytest.mark.parametrize("text", ["none", "noise:0", "sparsification:0", "soteria:0", "sparsification:0+noise:0.1"])
def test_none_and_zero_on_an_axis_say_so_themselves(text):
    checked(text)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("clipping:1000", "clipping:1000"),
        ("dp_sgd:1000:0", "dp_sgd:1000:0"),
        ("noise:1e-12", "noise:1e-12"),
        ("quantization:1000000000", "quantization:1000000000"),
        ("soteria:0.0001", "soteria:0.0001"),
        ("sparsification:0.5+clipping:1000:global", "clipping:1000:global"),
        ("clipping:1000+noise:0.1", "clipping:1000"),
        ("noise:0.1+noise:0.1+dp_sgd:1000:0", "dp_sgd:1000:0"),
        ("sign+sign", "sign"),
    ],
)
def test_a_part_that_leaves_the_update_alone_is_refused(text, part):
    with pytest.raises(InputError, match=f"the defense {part} changes nothing: the update .* of norm 1") as refused:
        checked(text)
    assert "\n" not in str(refused.value)


def test_a_part_counts_after_the_parts_before_it():
    """The noise makes the update longer than the bound; without it, nothing is clipped."""
    checked("noise:1+clipping:30:global")
    with pytest.raises(InputError, match="clipping:30:global changes nothing"):
        checked("clipping:30:global+noise:1")


def test_each_client_defends_its_own_update():
    """The bound lies between the norm of the mean update and those of three of the clients."""
    checked("clipping:2.4:global", lr=0.1, clients=B)
    with pytest.raises(InputError, match=r"clipping:4:global changes nothing"):
        checked("clipping:4:global", lr=0.1, clients=B)


def test_one_image_has_one_label_anyway():
    with pytest.raises(InputError, match=r"label_confusion:1 changes nothing: .* it needs 2 images or more in a step"):
        Config(victim="lenet", batch=1, defense="label_confusion:1").check_defense(*one_image())


@pytest.mark.parametrize(
    "options",
    [{"batch": 1}, {"lr": 0.1, "mini_batch": 1}, {"lr": 0.1, "clients": B}, {"batch": 1, "defense": "mixup:9+noise:1"}],
    ids=str,
)
def test_one_image_in_a_step_has_none_to_be_mixed_with(options):
    with pytest.raises(InputError, match=r"changes nothing: .* needs 2 images or more in a step, not 1: give larger"):
        checked(**{"defense": "mixup:0.2", **options})
    checked(**{"defense": "mixup:0.2", "lr": 0.1, "mini_batch": 3})


def one_image():
    config = Config(victim="lenet", batch=1, defense="none")
    data = config.make_data()
    return config.make_victim(data), data, *config.make_batches(data, 1)


def test_the_images_of_a_capture_are_those_of_the_defense(model, images):
    gibench.capture(model, images, LABELS, defense="label_confusion:2")
    with pytest.raises(InputError, match=r"LabelConfusion forms batches with 4 images of a class, .* has 2, 2;"):
        gibench.capture(model, images, LABELS, defense=LabelConfusion(1))


@pytest.mark.parametrize("defense", [Plain, Same, Unused])
def test_an_own_defense_is_tried_too(defense, model, images):
    with pytest.raises(InputError, match=f"the defense {defense.__name__} changes nothing"):
        gibench.capture(model, images, LABELS, defense=defense())
    with pytest.raises(InputError, match=f"the defense {defense.__name__} changes nothing"):
        gibench.capture(model, images, LABELS, defense=Chain([Sparsification(0.5), defense()]))
    with pytest.raises(InputError, match=rf"the defense {__name__}.{defense.__name__} changes nothing"):
        checked(f"{__name__}.{defense.__name__}")


def test_an_own_defense_may_act_on_the_model_alone(model, images):
    gibench.capture(model, images, LABELS, defense=Softer())
    checked(f"{__name__}.Softer")


def test_nothing_is_written(tmp_path):
    config = Config(
        attack="ig",
        victim="lenet",
        batch=B,
        tasks=1,
        steps=1,
        devices=1,
        wandb="off",
        out=tmp_path / "out",
        defense="clipping:1000",
    )
    with pytest.raises(InputError, match="clipping:1000 changes nothing"):
        run(config)
    assert not (tmp_path / "out").exists()


SMALL = {"victim": "lenet", "size": 8, "trials": 1}


@pytest.mark.parametrize(
    "command",
    [
        lambda defense: labels(**SMALL, methods="alr", batch="2", defense=defense),
        lambda defense: utility(**SMALL, steps=1, seeds=1, batch=2, defense=defense),
        lambda defense: simulate(Config(victim="lenet", batch=2, rounds=2, defense=defense), SHAPE, 2, "cpu"),
    ],
    ids=["labels", "utility", "the clients of GIML"],
)
@pytest.mark.parametrize("defense", ["clipping:1000", f"{__name__}.Same"])
def test_every_command_tries_the_defense(command, defense):
    with pytest.raises(InputError, match=f"the defense {defense} changes nothing"):
        command(defense)


@pytest.mark.parametrize(
    "options",
    [
        {"rounds": 2},
        {"lr": 0.001, "epochs": 2, "mini_batch": 2},
        {"lr": 0.001, "clients": 2},
        {"precision": "float64"},
        {"victim": "cnn6"},
    ],
    ids=str,
)
def test_whatever_the_client_computes(options):
    checked("precode:8+noise:0.1+sign", **options)
    with pytest.raises(InputError, match=rf"{__name__}.Same changes nothing"):
        checked(f"precode:8+{__name__}.Same+noise:0.1", **options)


@pytest.mark.parametrize(
    "options",
    [
        {"defense": "dp_sgd:1e9:0", "lr": 0.1},
        {"defense": "dp_sgd:1e9:0", "lr": 0.001, "epochs": 2},
        {"defense": "dp_sgd:1e9:0", "amp": "bf16"},
        {"defense": "mixup:0.2", "lr": 0.1, "mini_batch": 1},
    ],
    ids=str,
)
def test_rounding_on_the_client_is_no_effect_of_a_defense(options):
    with pytest.raises(InputError, match="changes nothing"):
        checked(**options)


class Float32(nn.Module):
    def forward(self, x):
        return x.float() @ torch.ones(x.shape[1], 10)


def test_a_model_that_keeps_its_type_is_tried_in_it(images):
    model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 8), Float32())
    gibench.capture(model, images, LABELS, defense="noise:0.1")
    with pytest.raises(InputError, match="clipping:1e9 changes nothing"):
        gibench.capture(model, images, LABELS, defense="clipping:1e9")


def test_what_is_not_finite_differs():
    one = {"w": torch.ones(3)}
    assert not differ(one, {"w": torch.ones(3) + 1e-7})
    assert differ(one, {"w": torch.ones(3) + 1e-5})
    assert differ(one, {"w": torch.full((3,), torch.nan)})
    assert differ(one, {**one, "v": torch.ones(1)})
