"""The update is that of the model and the loss as they were given, which torch computes here; or they are refused."""

import random
import weakref
from copy import deepcopy
from dataclasses import replace
from functools import wraps

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import gibench
from attacks.labels import methods
from defenses.base import Defense
from victims.errors import InputError

X, Y = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(1)), torch.tensor([1, 2, 3, 4])


class Net(nn.Module):
    """Logits from two convolutions; subclasses change how the layers are called."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.bn, self.act = nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.Sigmoid()
        self.conv2, self.fc = nn.Conv2d(8, 8, 3, 2, 1), nn.Linear(128, 10)
        self.more()

    def more(self) -> None: ...

    def stem(self, x):
        return self.act(self.bn(self.conv(x)))

    def forward(self, x):
        return self.fc(self.act(self.conv2(self.stem(x))).flatten(1))


def expected(model, loss=F.cross_entropy, train=False, labels=Y):
    model = model.train(train) or model  # one of the models returns nothing
    model.zero_grad()
    loss(model(X.clone()), labels.clone()).backward()
    return {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in model.named_parameters()}


def assert_as_given(model, loss=F.cross_entropy, train=False, labels=Y, **options):
    update = gibench.capture(model, X, labels, loss=loss, mode="train" if train else "eval", **options).update
    found = expected(model, loss, train, labels)
    assert found["conv.weight"].any()
    for name, gradient in update.items():
        torch.testing.assert_close(gradient, found[name], rtol=1e-3, atol=1e-6)


class Closure(Net):
    def more(self):
        self.stems = [lambda x: torch.sigmoid(self.bn(self.conv(x)))]

    def stem(self, x):
        return self.stems[0](x)


class Adapter(Net):
    def more(self):
        self.adapt = nn.Conv2d(3, 8, 1, 2)
        self.conv.register_forward_hook(lambda layer, given, out: out + self.adapt(given[0]))


class Child(nn.Module):
    def __init__(self, parent):
        super().__init__()
        self.parent = weakref.ref(parent)

    def forward(self, x):
        return x * self.parent().scale


class Parent(Net):
    def more(self):
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.act = nn.Sequential(Child(self), nn.Sigmoid())


def doubled(function):
    """A decorator: what it makes has the function in its closure, and attributes."""

    @wraps(function)
    def twice(*given):
        return 2 * function(*given)

    twice.scale = 1.5
    return twice


class Nested(Net):
    def more(self):
        layer, layers = self.conv, [self.bn, self.act]
        self.first = doubled(lambda x: layer(x))
        self.others = (lambda x, own=self.act: own(x), lambda x: layers[1](layers[0](x)))

        def again(x, times=2):
            return x if not times else again(layer(x), 0)

        self.again = again

    def stem(self, x):
        return self.others[0](self.others[1](self.first(x)) * self.first.scale + self.again(x))


class Skips(Net):
    """One hook keeps what another adds, in a variable that both have."""

    def more(self):
        kept, layer = None, self.conv2

        def before(module, given):
            nonlocal kept
            kept = given[0]

        def after(module, given, out):
            return out + kept[..., ::2, ::2] if layer.training is not None else out

        self.conv2.register_forward_pre_hook(before)
        self.conv2.register_forward_hook(after)


class Hooked(Net):
    def more(self):
        self.act = nn.Hardsigmoid()
        self.act.register_forward_hook(lambda layer, given, out: 2 * out)


class HalfStem(Net):
    def more(self):
        self.conv.bfloat16(), self.bn.bfloat16()

    def stem(self, x):
        return self.act(self.bn(self.conv(x.to(torch.bfloat16)))).float()


class Sharp(nn.Hardsigmoid):
    def forward(self, x):
        return F.relu6(4 * x + 3) / 6


class Sharper(Net):
    def more(self):
        self.act = Sharp()


class Twice(Net):
    def more(self):
        self.act = nn.Hardsigmoid()
        self.same = nn.Sequential(self.act, nn.Tanh(), self.act)

    def stem(self, x):
        return self.same(self.bn(self.conv(x)))


class Reads(Net):
    def stem(self, x):
        return self.act(self.bn(self.conv(x)) * self.bn.momentum)


class Silent(Net):
    def train(self, mode=True):
        super().train(mode)


class Follows(Net):
    """Uses a derivative in its images, which needs gradients to be on."""

    def stem(self, x):
        seen = x if x.requires_grad else x.clone().requires_grad_()
        return super().stem(x) + torch.autograd.grad(self.conv(seen).sum(), seen, create_graph=True)[0].mean()


@pytest.mark.parametrize("make", [Net, Closure, Adapter, Nested, Skips, Parent, Sharper, Twice, Hooked, Follows])
def test_the_update_is_that_of_the_model(make):
    assert_as_given(make())


def test_a_model_may_read_the_momentum_of_its_batch_norm():
    assert_as_given(Reads(), train=True)


def test_a_model_that_was_called_before_keeps_nothing_of_it():
    model = Skips()
    model(X.flip(0))
    assert_as_given(model)


def test_parts_of_a_coarser_type_are_compared_by_its_rounding():
    assert gibench.capture(HalfStem(), X, Y, mode="train").update["conv.weight"].any()


def test_local_steps_of_a_model_that_differentiates_in_its_forward():
    assert gibench.capture(Follows(), X, Y, lr=0.1, epochs=2).update["conv.weight"].any()


class Own(Defense):
    def __init__(self):
        self.draws = torch.Generator().manual_seed(0)

    @staticmethod
    def estimate(received, victim):
        return lambda gradient: gradient

    def model(self, model, image_shape):
        with torch.no_grad():
            model.fc.weight.add_(torch.randn(model.fc.weight.shape, generator=self.draws))
        return model


def test_a_defense_that_draws_weights_changes_the_model_once():
    assert gibench.capture(Net(), X, Y, defense=Own()).update["conv.weight"].any()


class Marked(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.variable = x
        return x * 1

    @staticmethod
    def backward(ctx, g):
        return g * 1


def test_a_function_of_ones_own_is_no_weight_of_a_loss():
    assert_as_given(Net(), lambda z, y: F.cross_entropy(Marked.apply(z), y))


def test_what_the_caller_trains_on_does_not_move_an_observation():
    model = Closure()
    observation = gibench.capture(model, X, Y)
    before = observation.victim.logits({}, X)
    with torch.no_grad():
        model.conv.weight.zero_()
    assert torch.equal(observation.victim.logits({}, X), before)


class Ignores(Net):
    def more(self):
        self.relu = nn.ReLU(inplace=True)

    def stem(self, x):
        x = self.conv(x)
        self.relu(x)
        return x


class Listed(Net):
    def more(self):
        self.layers = [self.conv, self.bn, self.act]

    def stem(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


class ByClass(Net):
    def more(self):
        self.layers = nn.ModuleList([self.conv, self.bn, self.act])

    def stem(self, x):
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d | nn.BatchNorm2d | nn.Sigmoid):
                x = layer(x)
        return x


class GhostNorm(nn.BatchNorm2d):
    def forward(self, x):
        return torch.cat([super(GhostNorm, self).forward(part) for part in x.split(4)])


class Ghost(Net):
    def more(self):
        self.bn = GhostNorm(8)


@pytest.mark.parametrize("make", [Ignores, Listed, ByClass, Ghost])
def test_a_model_whose_layers_cannot_be_replaced_is_refused(make):
    images, labels = torch.cat([X, X.flip(0)]), torch.cat([Y, Y])
    with pytest.raises(InputError, match=r"changes where its layers are replaced by equal ones .*: use what layers"):
        gibench.capture(make(), images, labels, mode="train")


class Uncopied(Net):
    def more(self):
        self.layers = (layer for layer in [self.conv])


def test_a_model_that_cannot_be_copied_is_refused_in_one_line():
    with pytest.raises(InputError, match=r"Uncopied cannot be copied \(TypeError: .*generator.*\); give the plain"):
        gibench.capture(Uncopied(), X, Y)


class Dropped(Net):
    def stem(self, x):
        return super().stem(x) if random.random() < 0.99 else torch.zeros(len(x), 8, 8, 8)


def test_a_model_that_draws_from_another_generator_than_torchs_is_refused():
    with pytest.raises(InputError, match="Dropped in eval mode draws random numbers"):
        gibench.capture(Dropped(), X, Y)


class LoRA(nn.Linear):
    """Adds the product of A and B to its weights in eval mode, as loralib does."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.a, self.b = nn.Parameter(torch.randn(2, sizes[0])), nn.Parameter(torch.randn(sizes[1], 2))
        self.merged = False

    def train(self, mode=True):
        super().train(mode)
        if mode == self.merged:
            self.weight.data += (-1 if mode else 1) * (self.b @ self.a).data
            self.merged = not mode
        return self

    def forward(self, x):
        return super().forward(x) if self.merged else super().forward(x) + x @ self.a.T @ self.b.T


class Merges(Net):
    def more(self):
        self.conv2 = nn.Sequential(nn.Flatten(), LoRA(512, 128), nn.Unflatten(1, (8, 4, 4)))


def test_reading_labels_leaves_the_weights_as_they_are():
    observation = gibench.capture(Merges(), X, Y, mode="train", give_labels=False)
    before = deepcopy(observation.victim.model.state_dict())
    assert methods()["ilrg"](observation).tolist() == [1, 2, 3, 4]
    assert all(torch.equal(before[name], now) for name, now in observation.victim.model.state_dict().items())


def test_labels_are_read_from_a_model_whose_train_returns_nothing():
    observation = gibench.capture(Silent(), X, Y, give_labels=False)
    assert methods()["ilrg"](observation).tolist() == [1, 2, 3, 4]


# Losses


def smoothed(logits, targets):
    return F.cross_entropy(logits, targets.mul_(0.9).add_(0.1 / logits.shape[1]))


def margin(logits, targets):
    logits[torch.arange(len(targets)), targets] -= 0.5
    return F.cross_entropy(logits, targets)


@pytest.mark.parametrize(("loss", "labels"), [(smoothed, torch.eye(10)[Y]), (margin, Y)])
def test_a_loss_may_write_into_what_it_is_given(loss, labels):
    before = labels.clone()
    assert_as_given(Net(), loss, labels=labels)
    assert torch.equal(labels, before)


def test_a_loss_with_a_term_of_weights_that_it_keeps_is_refused():
    model = Net()
    with pytest.raises(InputError, match="it has a gradient in weights that it keeps, which no update would have"):
        gibench.capture(model, X, Y, loss=lambda z, y: F.cross_entropy(z, y) + model.fc.weight.square().sum())


def test_a_loss_that_gives_another_value_in_each_call_is_refused():
    with pytest.raises(InputError, match="it gives another value in a second call"):
        gibench.capture(Net(), X, Y, loss=lambda z, y: F.cross_entropy(z + torch.randn_like(z), y))


# Local training, statistics, the caller's settings


class Counts(Net):
    def more(self):
        self.register_buffer("passes", torch.zeros(()))

    def stem(self, x):
        self.passes += self.training
        return super().stem(x) * (1 + 0.1 * self.passes)


def test_local_steps_of_a_model_that_remembers_passes_are_refused():
    with pytest.raises(InputError, match="a pass of Counts changes what the next one gives"):
        gibench.capture(Counts(), X, Y, mode="train", lr=0.1, epochs=2)
    assert gibench.capture(Counts(), X, Y, mode="train", lr=0.1).update["conv.weight"].any()
    assert gibench.capture(Counts(), X, Y, lr=0.1, epochs=2).update["conv.weight"].any()


class Shared(Net):
    def stem(self, x):
        return self.act(self.bn(self.bn(self.conv(x))))


def test_no_statistics_are_recovered_of_a_layer_that_is_called_twice():
    with pytest.raises(InputError, match="bn is called 2 times, and its running statistics mix those of all"):
        gibench.capture(Shared(), X, Y, mode="train", bn="recovered")


@pytest.mark.parametrize(
    "setting", [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)]
)
def test_the_callers_settings_move_nothing(setting):
    model = Net()
    outside = gibench.capture(model, X, Y)
    cost = gibench.attack("ig", outside, steps=3).cost
    with setting():
        inside = gibench.capture(model, X.clone(), Y.clone())
        assert all(torch.equal(outside.update[name], g) for name, g in inside.update.items())
        assert torch.equal(gibench.attack("ig", inside, steps=3).cost, cost)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda update: {f"module.{name}": g for name, g in update.items()},
            "the update lacks 'bn.bias'; give a tensor",
        ),
        (lambda update: {**update, "more": X}, "the update has 'more'; give a tensor for each trained parameter"),
        (
            lambda update: {**update, "fc.weight": update["fc.weight"].T},
            r"'fc.weight' .* \(128, 10\) on cpu; give .* \(10",
        ),
        (lambda update: {**update, "fc.bias": update["fc.bias"].double()}, "'fc.bias' of the update is torch.float64"),
        (lambda update: {**update, "fc.bias": update["fc.bias"].numpy()}, "'fc.bias' of the update is a ndarray; give"),
    ],
)
def test_an_update_from_elsewhere_fits_the_victim(change, said):
    observation = gibench.capture(Net(), X, Y)
    assert gibench.attack("ig", replace(observation, update=dict(observation.update)), steps=1).cost.isfinite().all()
    with pytest.raises(InputError, match=said):
        gibench.attack("ig", replace(observation, update=change(observation.update)), steps=1)


def test_scores_are_of_floats():
    with pytest.raises(InputError, match=r"reconstruction is torch.uint8; give floats in \[0, 1\]"):
        gibench.score((X * 255).byte(), X)


def test_quantized_weights_do_not_decide_the_type_of_images():
    model = Net()
    model.register_parameter("table", nn.Parameter(torch.zeros(10**5, dtype=torch.int8), requires_grad=False))
    assert gibench.capture(model, X, Y).update["conv.weight"].dtype == torch.float32
