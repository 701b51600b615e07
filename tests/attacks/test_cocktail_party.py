"""The Cocktail Party Attack: separation of images and features, scale, sign and labels without the truth."""

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from attacks.closed_form.first_linear import first_linear_of_features
from attacks.cocktail_party import CocktailParty, spanning_one
from attacks.cocktail_party_fi import CocktailPartyFI
from benchmark.tasks.batches import Batch
from benchmark.tasks.capture import Client, capture_task
from defenses.clipping import Clipping
from defenses.sparsification import Sparsification
from victims.data.photos import Photos
from victims.errors import InputError, Notice
from victims.models.convnet import ConvNet
from victims.models.fcn import FCN
from victims.modules import build
from victims.victim import Victim

DATA = Photos(split="tune")


class Hidden(nn.Sequential):
    """A small VGG-like net, whose first linear layer sees features after a ReLU."""

    def __init__(self, *, image_shape, num_classes):
        super().__init__(
            nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, stride=2, padding=1), nn.ReLU(),
            nn.Flatten(), nn.Linear(16 * 256, 32), nn.ReLU(), nn.Linear(32, num_classes),
        )  # fmt: skip


def observe(indices, model=FCN, defense=None, **options):
    net = build(model, image_shape=(3, 32, 32), num_classes=10, seed=0, **options)
    victim = Victim(net, mean=DATA.mean, std=DATA.std)
    return capture_task(victim, DATA, Batch("t", indices), Client(defense=defense, give_labels=False))


def errors(pixels, truth):
    """The least mean square error of any reconstruction, for every image."""
    return (pixels[:, None] - truth[None]).square().mean((2, 3, 4)).amin(0)


def set_u(attack, task, mixing):
    """The inputs that a U gives which leaves `mixing` (B, B) of the true inputs, found with the truth."""
    attack.begin([task.observation])
    layer = attack.layer(task.observation)
    search = attack.separate(layer)
    M = next(search).fixed["M"][0].double()
    true = task.observation.victim.normalize(task.images).flatten(1).double()
    U = mixing @ true @ torch.linalg.pinv(M)
    with pytest.raises(StopIteration) as returned:
        search.send({"U": U[None]})
    return layer, true, returned.value.value


@pytest.mark.parametrize("defense", [None, Clipping(1e-3, "global")], ids=["none", "clipped"])
def test_scale_sign_and_labels_are_those_of_the_batch_once_its_images_are_separated(defense):
    """Whatever the order and signs of the components: here one turned around, and a cycle of three."""
    task = observe((3, 50, 90), widths="64", defense=defense)
    attack = CocktailParty(steps=2, restarts=1)
    order = [1, 2, 0]
    mixing = torch.diag(torch.tensor([-1.0, 3, 0.1], dtype=torch.float64))[:, order]
    layer, true, (x, dz) = set_u(attack, task, mixing)
    cycled = [int(mixing[i].abs().argmax()) for i in range(3)]
    torch.testing.assert_close(x[0], true[cycled], rtol=1e-3, atol=1e-3)
    images = task.observation.victim.normalize(task.images)[cycled]
    assert torch.equal(attack.labels_by_dz(layer, images[None], dz)[0], task.labels[cycled])
    net = task.observation.victim.model
    z = (images.flatten(1) @ net.fc1.weight.T + net.fc1.bias).requires_grad_()
    (dL,) = torch.autograd.grad(cross_entropy(net.fc2(z.relu()), task.labels[cycled]), z)
    ratio = dz[0] / dL.double()
    seen = dL.abs() > 1e-6
    torch.testing.assert_close(ratio[seen], ratio[seen][:1].expand(int(seen.sum())), rtol=1e-2, atol=1e-3)
    if defense is None:
        torch.testing.assert_close(ratio[seen].mean(), torch.ones((), dtype=torch.float64), rtol=1e-2, atol=0)


def test_a_batch_comes_out_of_the_mixtures_with_its_labels():
    task = observe((3, 50, 90), widths="64")
    result = CocktailParty(steps_u=500, restarts=2).run([task.observation])
    found, gray = errors(result.pixels[0], task.images), errors(torch.full_like(task.images, 0.5), task.images)
    assert found.mean() < gray.mean() / 4
    assert result.labels[0].sort().values.tolist() == task.labels.sort().values.tolist()
    assert result.gradient_evaluations == 2
    assert [stage for stage, _ in result.curve] == ["u"] * 500 + ["x"]
    costs = torch.stack([cost for stage, cost in result.curve if stage == "u"])
    assert costs[-1] < costs[0]


def test_one_image_needs_no_separation():
    task = observe((3,), widths="8x8")
    result = CocktailParty(steps=2, restarts=1).run([task.observation])
    assert errors(result.pixels[0], task.images).item() < 1e-8
    assert result.labels.tolist() == [task.labels.tolist()]


def test_the_objective_is_the_sum_of_its_terms():
    attack = CocktailParty(ne=2.0, decor=3.0, T=4.0, tv=5.0)
    attack.begin([observe((3, 50), widths="8").observation])
    v = {"U": torch.randn(1, 2, 2), "M": torch.randn(1, 2, 3072)}
    U = v["U"][0] / v["U"][0].norm(dim=1, keepdim=True)
    s = U @ v["M"][0]
    images = s.reshape(2, 3, 32, 32)
    tv = images.diff(dim=3).abs().mean() + images.diff(dim=2).abs().mean()
    ne = ((s - s.mean(1, keepdim=True)).cosh().log().mean(1) - 0.3745672074).square().mean()
    decor = 2 * ((4 * (U[0] @ U[1]).abs()).exp() - 1) / 4
    torch.testing.assert_close(attack.objective(v), (3 * decor - 2 * ne + 5 * tv)[None])
    attack = CocktailPartyFI(l1=2.0, nv=3.0, steps_x=1)
    s = torch.tensor([[[1.0, -2], [3, 4]], [[-1, -1], [5, -2]]])
    expected = [2 * 10 / 4 + 3 * (1 + 0) / 2, 2 * 9 / 4 + 3 * (0 + 2) / 2]
    torch.testing.assert_close(attack.regularizer(s), torch.tensor(expected))


def test_an_image_that_would_span_more_than_pixels_can_is_scaled():
    fits, wide = torch.tensor([-0.01, 0.5, 1.02]), torch.tensor([-1.0, 0.5, 2])
    images = torch.stack([fits, wide])[:, None, None].expand(2, 3, 2, 3)
    expected = torch.stack([torch.tensor([0, 0.5, 1]), torch.tensor([0, 0.5, 1])])[:, None, None].expand(2, 3, 2, 3)
    assert torch.equal(spanning_one(images), expected)
    assert torch.equal(spanning_one(torch.full((1, 3, 2, 2), 0.25)), torch.full((1, 3, 2, 2), 0.25))


def test_a_sparsified_update_still_gives_images_and_says_nothing_wrong():
    task = observe((3, 50), widths="64", defense=Sparsification(0.5))
    result = CocktailParty(steps_u=300, restarts=1).run([task.observation])
    gray = errors(torch.full_like(task.images, 0.5), task.images)
    assert errors(result.pixels[0], task.images).mean() < gray.mean()
    assert result.cost.isfinite().all()


def test_copies_of_an_image_are_one_component_and_a_notice_says_so():
    task = observe((3, 3, 50), widths="64")
    with pytest.warns(Notice, match="fc1 has rank 2, and the batch has 3 images"):
        result = CocktailParty(steps_u=300, restarts=1).run([task.observation])
    assert result.pixels.isfinite().all()
    assert result.cost.isfinite().all()


def test_features_are_separated_and_images_found_by_them():
    task = observe((3, 50, 90), model=Hidden)
    attack = CocktailPartyFI(steps_z=200, restarts=1)
    result = attack.run([task.observation])
    gray = errors(torch.full_like(task.images, 0.5), task.images)
    assert errors(result.pixels[0], task.images).mean() < gray.mean() / 2
    assert result.labels[0].sort().values.tolist() == task.labels.sort().values.tolist()
    assert result.gradient_evaluations == 1
    assert [stage for stage, _ in result.curve] == ["u"] * 1000 + ["z"] * 200 + ["x"]


def test_the_features_distance_is_one_minus_the_cosine_of_the_layers_inputs():
    task = observe((3, 50), model=Hidden)
    attack = CocktailPartyFI(fi=2.0, tv=0.0)
    attack.begin([task.observation])
    x, below = attack.noise(), list(task.observation.victim.model)[:5]
    z = torch.randn(len(x), 2, 4096)
    expected = []
    for images, target in zip(x, z, strict=True):
        f = nn.Sequential(*below)(images)
        expected.append(2 * (1 - (f * target).sum(1) / f.norm(dim=1) / target.norm(dim=1)).mean())
    torch.testing.assert_close(attack.features_apart("5", {"z": z}, x), torch.stack(expected))


def test_without_steps_on_features_alone_images_are_matched_from_noise():
    attack = CocktailPartyFI(steps_z=0, steps=9)
    assert list(attack.plan) == ["u", "x"]
    assert sum(attack.plan.values()) == 9
    with pytest.raises(InputError, match="3 stages"):
        CocktailPartyFI(steps=2)


@pytest.mark.parametrize("steps_z", [0, 1])
def test_images_are_matched_by_features_and_gradients_together(steps_z):
    """The last stage against a plain loop from the features and labels that were found before."""
    task, eta, fi, tv, steps = observe((3, 50), model=Hidden), 0.5, 2.0, 0.3, 5
    attack = CocktailPartyFI(steps_u=20, steps_z=steps_z, steps_x=steps, eta_x=eta, fi=fi, tv=tv, restarts=1)
    attack.begin([task.observation])
    while attack.session.stage.name != "x":
        attack.advance()
    stage, victim = attack.session.stage, task.observation.victim
    z, labels = stage.fixed["z"][0], stage.fixed["y"][0]
    x = stage.variables["x"][0].clone().requires_grad_()
    net = victim.model.requires_grad_(True)
    theta, received = list(net.parameters()), torch.cat([g.flatten() for g in task.observation.update.values()])
    adam = torch.optim.Adam([x])
    for step in range(steps - 1):
        gradient = torch.autograd.grad(cross_entropy(net(x), labels), theta, create_graph=True)
        dummy = torch.cat([g.flatten() for g in gradient])
        cost = 1 - (dummy * received).sum() / dummy.norm() / received.norm()
        f = nn.Sequential(*list(net)[:5])(x)
        cost = cost + fi * (1 - (f * z).sum(1) / f.norm(dim=1) / z.norm(dim=1)).mean()
        cost = cost + tv * (x.diff(dim=3).abs().mean() + x.diff(dim=2).abs().mean())
        adam.param_groups[0]["lr"] = eta * (1 + math.cos(math.pi * step / steps)) / 2
        adam.zero_grad()
        cost.backward(inputs=[x])
        adam.step()
        x.data = torch.max(torch.min(x.data, (1 - victim.mean) / victim.std), -victim.mean / victim.std)
        attack.advance()
        torch.testing.assert_close(attack.session.variables["x"][0], x.detach(), rtol=1e-3, atol=1e-3)


class NoLinear(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(3, 10, 32), nn.Flatten())


@pytest.mark.parametrize(
    ("attack", "model", "said"),
    [
        (CocktailParty, ConvNet(image_shape=(3, 32, 32), num_classes=10), "layer body.0 is a Conv2d.*--victim fcn"),
        (CocktailParty, FCN("3", image_shape=(3, 32, 32), num_classes=10), "no more than 3 images.*--batch 3"),
        (CocktailPartyFI, NoLinear(), "NoLinear has none"),
        (CocktailPartyFI, nn.Sequential(nn.Flatten(), nn.Linear(3072, 10, bias=False)), "has none"),
    ],
    ids=["sees features", "too narrow", "no linear layer", "no bias"],
)
def test_victims_without_such_a_layer_are_refused(attack, model, said):
    victim = Victim(model, mean=DATA.mean, std=DATA.std)
    task = capture_task(victim, DATA, Batch("t", (3, 50, 90, 7)), Client())
    with pytest.raises(InputError, match=said) as refusal:
        attack().begin([task.observation])
    assert "\n" not in str(refusal.value)


def test_the_layer_of_features_is_the_first_that_sees_one_vector_of_an_image():
    class Patches(nn.Module):
        def __init__(self):
            super().__init__()
            self.rows, self.head, self.out = nn.Linear(32, 9), nn.Linear(9, 20), nn.Linear(20, 5)

        def forward(self, x):
            return self.out(self.head(self.rows(x).relu().mean((1, 2))).relu())

    victim = Victim(Patches(), mean=DATA.mean, std=DATA.std)
    assert first_linear_of_features(victim, (3, 32, 32), "x").name == "head"
    frozen = Patches()
    frozen.head.bias.requires_grad_(False)
    assert first_linear_of_features(Victim(frozen, mean=DATA.mean, std=DATA.std), (3, 32, 32), "x").name == "out"
