"""The layers that classify, found by what they compute and not by their order."""

import pytest
import torch
from torch import nn

import gibench
from attacks.labels import find
from attacks.labels.base import classifier
from benchmark.tasks.capture import Client, capture
from defenses.precode import Guarded, Precode
from victims.classifier import classifiers
from victims.errors import InputError
from victims.modules import build, passing
from victims.rounds import Rounds
from victims.victim import Victim

SHAPE, CLASSES, B = (3, 8, 8), 5, 4
LABELS = torch.tensor([3, 1, 3, 0])


class Net(nn.Module):
    """An unused projector is registered after the classifier."""

    def __init__(self):
        super().__init__()
        self.classifier = nn.Linear(64, CLASSES)
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Flatten())
        self.projector = nn.Linear(64, CLASSES)

    def forward(self, x):
        return self.classifier(self.body(x))


class Projected(Net):
    """The projector is used, for something else."""

    def forward(self, x):
        self.projector(self.body(x))
        return super().forward(x)


class Distilled(Net):
    """The logits are the mean of two heads, which start at zero."""

    def __init__(self):
        super().__init__()
        for layer in (self.classifier, self.projector):
            nn.init.zeros_(layer.weight)

    def forward(self, x):
        features = self.body(x)
        return (self.classifier(features) + self.projector(features.square())) / 2


class Summed(Distilled):
    """The logits are the sum of both heads."""

    def forward(self, x):
        return 2 * super().forward(x)


class LogSoftmax(Net):
    def forward(self, x):
        return super().forward(x).log_softmax(-1)


class Parametrized(Net):
    def __init__(self):
        super().__init__()
        self.classifier = nn.utils.parametrizations.weight_norm(self.classifier)


class Tied(Net):
    """The classifier's weight is another layer's too, under whose name it is known."""

    def __init__(self):
        super().__init__()
        del self.classifier
        self.classifier = nn.Linear(64, CLASSES)
        self.classifier.weight = self.projector.weight


class Named(Net):
    """One layer under two names; the forward calls it by the second."""

    def __init__(self):
        super().__init__()
        self.head = self.classifier

    def forward(self, x):
        return self.head(self.body(x))


class Odd(Net):
    def forward(self, x):
        return super().forward(x).square()


def observe(make):
    images = torch.rand(B, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    victim = Victim(build(make, seed=0).double(), mean=(0.0,) * 3, std=(1.0,) * 3)
    return capture(victim, images, LABELS, Client(give_labels=False), task="t", num_classes=CLASSES), images


@pytest.mark.parametrize("classes", [2, 3, 4, 5])
def test_an_activation_after_several_logits_is_no_classifier(classes):
    """By some draws of weights all logits are above zero, where ReLU changes nothing."""
    for width in range(3, 43):
        head = nn.Sequential(nn.Flatten(), nn.Linear(48, width), nn.ReLU(), nn.Linear(width, classes), nn.ReLU())
        with pytest.raises(InputError, match="they come after '4'"):
            classifiers(head, (3, 4, 4))


@pytest.mark.parametrize("make", [Net, Projected, LogSoftmax, Parametrized])
def test_one_layer_makes_the_logits(make):
    assert classifiers(build(make, seed=0), SHAPE) == {"classifier": 1.0}


@pytest.mark.parametrize(("make", "share"), [(Distilled, 0.5), (Summed, 1.0)])
def test_two_heads_make_the_logits_together(make, share):
    assert classifiers(make(), SHAPE) == {"classifier": share, "projector": share}


def test_of_several_rounds_the_last_ones_layer_is_meant():
    models = [build(Net, seed=seed) for seed in range(3)]
    assert classifiers(Rounds(models), SHAPE) == {"rounds.2.classifier": 1.0}


class InRange(Net):
    """It takes pixels alone, and its first parameter is of another type than the rest."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1, dtype=torch.bfloat16))

    def forward(self, x):
        if not (x.min() >= 0 and x.max() <= 1):
            raise ValueError("pixels are in [0, 1]")
        return super().forward(x**2.2)


def test_a_model_is_shown_pixels_of_its_main_type():
    assert next(InRange().parameters()).dtype == torch.bfloat16
    assert classifiers(build(InRange, seed=0), SHAPE) == {"classifier": 1.0}


def test_other_logits_are_refused():
    with pytest.raises(InputError, match="the logits of Odd are the output of none of its 2 linear layers"):
        classifiers(Odd(), SHAPE)


def test_looking_changes_nothing():
    model = build(Net, seed=0)
    model.body.eval()
    before, state = {name: p.clone() for name, p in model.state_dict().items()}, torch.get_rng_state()
    modes = [module.training for module in model.modules()]
    classifiers(model, SHAPE)
    assert all(torch.equal(p, before[name]) for name, p in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert [module.training for module in model.modules()] == modes


@pytest.mark.parametrize("make", [Net, Projected, Distilled])
@pytest.mark.parametrize("name", ["alr", "ilrg"])
def test_labels_are_read_from_the_layers_that_make_the_logits(make, name):
    observation, _ = observe(make)
    assert find(name)(observation).tolist() == sorted(LABELS.tolist())


def test_several_heads_are_one_layer_on_all_features():
    observation, images = observe(Distilled)
    features = observation.victim.model.body(images)
    both = torch.cat([features, features.square()], 1)
    layer = classifier(observation)
    logits = observation.victim.model(images)
    torch.testing.assert_close(both @ layer.W.T + layer.b, logits)
    errors = (logits.softmax(1) - nn.functional.one_hot(LABELS, CLASSES)) / B
    torch.testing.assert_close(layer.dW, errors.T @ both)
    torch.testing.assert_close(layer.db, errors.sum(0))


def test_a_parametrized_classifier_has_no_plain_weight_to_read():
    with pytest.raises(InputError, match=r"classifier\.weight, which is computed from others"):
        find("alr")(observe(Parametrized)[0])
    images = torch.rand(B, *SHAPE)
    with pytest.raises(
        InputError,
        match="'classifier' computes its weight from others, as under weight norm; choose one of projector",
    ):
        gibench.capture(Parametrized(), images, LABELS, defense="soteria:0.3")


def test_soteria_prunes_the_layer_that_makes_the_logits():
    update = gibench.capture(build(Net, seed=0), torch.rand(B, *SHAPE), LABELS, defense="soteria:0.5").update
    assert (update["classifier.weight"] == 0).all(0).sum() >= 16


@pytest.mark.parametrize(("make", "weight"), [(Tied, "projector.weight"), (Named, "classifier.weight")])
def test_soteria_prunes_a_weight_that_goes_by_another_name(make, weight):
    images = torch.rand(B, *SHAPE, generator=torch.Generator().manual_seed(1))
    plain, pruned = (gibench.capture(build(make, seed=0), images, LABELS, defense=d) for d in (None, "soteria:0.5"))
    zeros = [(observation.update[weight] == 0).all(0) for observation in (plain, pruned)]
    live = int((~zeros[0]).sum())
    assert int(zeros[1].sum() - zeros[0].sum()) == live // 2


class Positions(Net):
    """A layer of which only the size of the images matters."""

    def __init__(self):
        super().__init__()
        self.place = nn.Linear(2, 64)

    def forward(self, x):
        return self.classifier(self.body(x) + self.place(x.new_ones(2)))


@pytest.mark.parametrize(
    ("make", "layer", "seen"),
    [
        (Net, "projector", "the victim never calls 'projector' as a layer"),
        (Net, "body.0", "'body.0' is no linear layer of this victim; choose one of classifier, projector"),
        (Positions, "place", "what enters 'place' does not depend on the images"),
    ],
)
def test_soteria_at_a_layer_without_images_is_refused_by_its_own_line(make, layer, seen):
    with pytest.raises(InputError, match=seen) as refused:
        gibench.capture(make(), torch.rand(B, *SHAPE), LABELS, defense=f"soteria:0.3:{layer}")
    assert "\n" not in str(refused.value)


def test_soteria_at_a_layer_that_leaves_nothing_is_refused():
    """The projector is called, but nothing comes of it."""
    with pytest.raises(InputError, match=r"soteria:0\.3:projector changes nothing"):
        gibench.capture(Projected(), torch.rand(B, *SHAPE), LABELS, defense="soteria:0.3:projector")


@pytest.mark.parametrize(
    ("make", "guarded"),
    [
        (Net, ["classifier"]),
        (Projected, ["classifier"]),
        (Distilled, ["classifier", "projector"]),
        (Parametrized, ["classifier"]),
        (Tied, ["classifier"]),
        (Named, ["classifier"]),
    ],
)
def test_precode_sits_before_the_layers_that_make_the_logits(make, guarded):
    model = build(make, seed=0).double()
    before = model(torch.rand(1, *SHAPE).double())
    model = Precode(4).model(model, SHAPE)
    assert [name for name, module in model.named_modules() if isinstance(module, Guarded)] == guarded
    encoders = [model.get_submodule(f"{name}.0.encoder") for name in guarded]
    with passing({str(i): layer for i, layer in enumerate(encoders)}) as seen:
        after = model(torch.rand(1, *SHAPE).double())
    assert after.shape == before.shape
    assert [len(calls) for calls in seen.values()] == [1] * len(guarded)


@pytest.mark.parametrize("make", [Net, Distilled, Parametrized, Tied, Named])
def test_what_follows_a_bottleneck_is_not_matched(make):
    observation = gibench.capture(build(make, seed=0), torch.rand(B, *SHAPE), LABELS, defense="precode:4")
    received = {name: g[None] for name, g in observation.update.items()}
    matched = observation.knowledge.estimate(received, observation.victim)(received)
    heads = {id(p) for m in observation.victim.model.modules() if isinstance(m, Guarded) for p in m.parameters()}
    names = {name for name, p in observation.victim.model.named_parameters() if id(p) not in heads}
    assert matched.keys() == names & observation.update.keys()
    assert "body.0.weight" in names


def test_precode_before_no_linear_layer_is_refused():
    with pytest.raises(InputError, match=r"the logits of Odd .* come after 'classifier' \(Linear\)") as refused:
        gibench.capture(Odd(), torch.rand(B, *SHAPE), LABELS, defense="precode:4")
    assert "\n" not in str(refused.value)
