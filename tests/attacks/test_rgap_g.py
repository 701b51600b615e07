"""R-GAP with a generator: it equals R-GAP where layers determine their input, and improves on it elsewhere."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck
from torch.nn.functional import avg_pool2d, softplus

from attacks import rgap_g
from attacks.rgap import RGAP
from attacks.rgap_g import RGAPg
from priors.base import Generator
from victims.errors import InputError, Notice
from victims.models.fcn3 import FCN3

SIZE = 16
pytestmark = pytest.mark.filterwarnings("ignore::victims.errors.Notice")


class Narrow(nn.Sequential):
    """Like CNN6-d: the second convolution does not determine its input, the others do."""

    widths = (12, 4, 8)

    def __init__(self, *, image_shape, num_classes):
        first, second, third = self.widths
        super().__init__(
            nn.Conv2d(3, first, 3, 2, 1, bias=False), nn.LeakyReLU(0.2),
            nn.Conv2d(first, second, 3, 2, 1, bias=False), nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(second, third, 3, 1, 1, bias=False), nn.LeakyReLU(0.2),
            nn.Flatten(), nn.Linear(third * 16, 1, bias=False),
        )  # fmt: skip


class Narrower(Narrow):
    """The first one does not, either."""

    widths = (4, 3, 8)


class Bent(Narrow):
    """A LeakyReLU follows the logit."""

    def __init__(self, **options):
        super().__init__(**options)
        self.append(nn.LeakyReLU(0.2))


@pytest.fixture
def prior(small_prior):
    """The small one with contrast: its own images are nearly gray."""
    for parameter in small_prior.parameters():
        parameter.mul_(2)
    return small_prior.double()


@pytest.fixture
def near(prior, monkeypatch):
    """A prior with a latent z0; every restart starts near it."""
    z0 = prior.draw(1, torch.Generator().manual_seed(5))["z"]
    monkeypatch.setattr(
        type(prior), "draw", lambda self, n, generator: {"z": z0 + 0.3 * torch.randn(n, 8, generator=generator)}
    )
    return z0


def generated(prior, z):
    """The image (1, 3, 16, 16) in [0, 1] of a latent (1, 8)."""
    return avg_pool2d(prior({"z": z.double()}), 2)


def client(victim, image, label):
    """By autograd: the update, every layer's output, and every output's gradient, by name."""
    model, x = deepcopy(victim.model).requires_grad_(True), victim.normalize(image)
    outputs = {}
    for name, layer in model.named_children():
        x = outputs[name] = layer(x.clone())
    loss = softplus(x * (1 - 2 * label)).sum()
    wanted = {**dict(model.named_parameters()), **outputs}
    gradients = dict(zip(wanted, torch.autograd.grad(loss, list(wanted.values())), strict=True))
    update = {name: gradients[name] for name, _ in model.named_parameters()}
    return update, {n: x.detach()[0] for n, x in outputs.items()}, {n: gradients[n][0] for n in outputs}


@pytest.fixture
def observe(capture):
    """The observation of one image of one's own."""

    def observe(image, label=1, model=Narrow, confidence=1.0, task="t"):
        observation = capture((7,), size=SIZE, rate=None, dtype=torch.float64, model=model, task=task).observation
        with torch.no_grad():
            observation.victim.model[7].weight.mul_(confidence)
        return replace(observation, update=client(observation.victim, image, label)[0])

    return observe


def psnr(result, observation, image):
    return float(-10 * (observation.victim.denormalize(result.images[0]).clamp(0, 1) - image).square().mean().log10())


class Untouchable(Generator):
    image_shape = (3, SIZE, SIZE)
    blocks = ()

    def draw(self, count, generator):
        raise AssertionError("asked for latents")

    def advance(self, state, start=0, stop=None):
        raise AssertionError("asked for an image")


def test_where_every_layer_determines_its_input_it_is_rgap(capture):
    observations = [
        capture((index,), size=SIZE, rate=None, dtype=torch.float64, model=FCN3, task=str(index)).observation
        for index in (7, 60)
    ]
    plain = RGAP(restarts=3).run(observations)
    result = RGAPg(restarts=3, prior=Untouchable()).run(observations)
    assert torch.equal(result.images, plain.images)
    assert torch.equal(result.cost, plain.cost)
    assert result.gradient_evaluations == plain.gradient_evaluations == 3


@pytest.mark.parametrize(("model", "balanced"), [(Narrow, False), (Narrow, True), (Narrower, False)])
def test_an_image_that_the_generator_knows_is_rebuilt(model, balanced, near, prior, observe):
    image = generated(prior, near)
    observation = observe(image, model=model)
    plain = RGAP(balanced=balanced).run([observation])
    attack = RGAPg(prior=prior, balanced=balanced, steps_z=100, steps_w=20)
    with pytest.warns(Notice, match=r"does not determine its input.*the generator's is taken") as said:
        result = attack.run([observation])
    assert psnr(plain, observation, image) < 25
    assert psnr(result, observation, image) > 50
    assert result.cost.item() < 1e-3 < plain.cost.item()
    assert result.gradient_evaluations == 2
    deficient = [layer.layer for layer in result.layers[0] if layer.rank < layer.unknowns]
    assert deficient == (["2"] if model is Narrow else ["2", "0"])
    assert len([w for w in said if "does not determine" in str(w.message)]) == len(deficient)


def test_what_is_minimized_is_equation_11(prior, observe, monkeypatch):
    """Against the matrix that autograd gives, at a layer whose output is known exactly."""
    searched = []
    monkeypatch.setattr(rgap_g, "descend", lambda cost, v, names, *_: searched.append((cost, v, list(names))) or {})
    image = generated(prior, torch.ones(1, 8))
    observation = observe(image)
    victim = observation.victim
    attack = RGAPg(prior=prior, restarts=1)
    attack.begin([observation])
    (cost, v, latents), (_, _, w) = searched
    assert latents == ["z"]
    assert w == [name for name, _ in prior.named_parameters()]

    label = attack.session.stage.fixed["y"].item()
    update, zs, ks = client(victim, image, label)
    z, k, g, layer = zs["2"], ks["2"], update["2.weight"], victim.model[2]

    def both(x):
        weight = layer.weight.detach().requires_grad_()
        out = nn.functional.conv2d(x.reshape(1, 12, 8, 8), weight, stride=2, padding=1)
        (dg,) = torch.autograd.grad((out[0] * k).sum(), weight, create_graph=True)
        return torch.cat([dg.flatten(), out.flatten()])

    a, b = (
        torch.autograd.functional.jacobian(both, torch.zeros(12 * 64).double()),
        torch.cat([g.flatten(), z.flatten()]),
    )
    start = attack.latents()["z"]
    for w_scale in (1.0, 0.7):  # both the latents and the parameters that it is given count
        moved = {name: tensor * w_scale for name, tensor in v.items()}
        with torch.no_grad():
            clone = {name: p * w_scale for name, p in prior.named_parameters()}
            g_z = torch.func.functional_call(prior, clone, ({"z": start[0] * w_scale},))
            f_r = victim.model[1](victim.model[0](victim.normalize(avg_pool2d(g_z, 2))))
        expected = (a @ f_r.flatten() - b).norm()
        torch.testing.assert_close(cost(moved).detach(), expected.detach(), rtol=1e-9, atol=0)
    report = attack.reports[0][2]
    assert report.layer == "2"
    assert report.residual == pytest.approx(float(cost(v) / b.norm()), rel=1e-6)


def test_each_search_has_its_own_steps_and_rate(prior, observe, monkeypatch):
    searched = []
    monkeypatch.setattr(rgap_g, "descend", lambda cost, v, names, steps, eta: searched.append((steps, eta)) or {})
    attack = RGAPg(prior=prior, restarts=1, steps_z=3, steps_w=4, eta_z=0.5, eta_w=0.6)
    attack.begin([observe(generated(prior, torch.ones(1, 8)))])
    assert searched == [(3, 0.5), (4, 0.6)]


def test_equation_11_passes_gradcheck(prior, observe, monkeypatch):
    searched = []
    monkeypatch.setattr(rgap_g, "descend", lambda cost, v, names, *_: searched.append((cost, dict(v))) or {})
    RGAPg(prior=prior, restarts=1).begin([observe(generated(prior, torch.ones(1, 8)))])
    cost, v = searched[0]
    kernel = "blocks.3.conv.weight"
    corner = (
        v[kernel][..., :1, 0, :2, :2].clone().requires_grad_()
    )  # of a few weights: gradcheck evaluates twice per entry

    def moved(z, corner):
        weight = v[kernel].clone()
        weight[..., :1, 0, :2, :2] = corner
        return cost({**v, "z": z, kernel: weight})

    assert gradcheck(moved, (v["z"].clone().requires_grad_(), corner), eps=1e-6, atol=1e-6)


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("confidence", [1, 300, -1, -300])
@pytest.mark.parametrize("model", [Narrow, Bent])
def test_of_the_twins_the_one_of_the_generators_size_is_taken(model, confidence, label, near, prior, observe):
    """Where the label agrees with the prediction, untrained (the smaller one is right) or confident (the larger)."""
    image = generated(prior, near)
    observation = observe(image, label, model=model, confidence=confidence)
    last, logit = (client(observation.victim, image, label)[1][name] for name in "67")
    assert abs(logit) < 0.5 if abs(confidence) == 1 else abs(logit) > 3  # the two margins meet at 1.28
    attack = RGAPg(prior=prior, steps_z=100, steps_w=0)
    result = attack.run([observation])
    assert psnr(result, observation, image) > 40
    assert result.labels.item() == label
    right = attack.reports[int(attack.session.winners())]
    assert float((right[0].input - last).norm() / last.norm()) < 1e-6


def test_runs_are_independent_of_each_other_and_of_other_tasks(prior, observe):
    images = [generated(prior, prior.draw(1, torch.Generator().manual_seed(seed))["z"]) for seed in (1, 2)]
    observations = [observe(image, task=task) for image, task in zip(images, "tu", strict=True)]

    def starts(observations, **options):
        attack = RGAPg(prior=prior, steps_z=3, steps_w=3, **options)
        attack.begin(observations)
        return attack.session.stage.variables["x"]

    together = starts(observations, restarts=3)
    for task in (0, 1):
        alone = starts([observations[task]], restarts=1)
        torch.testing.assert_close(together[3 * task], alone[0], rtol=1e-9, atol=1e-12)
        assert not torch.allclose(together[3 * task], together[3 * task + 2])  # the same label, other latents
    assert not torch.equal(starts(observations[:1], restarts=1), starts(observations[:1], restarts=1, seed=1))


def test_the_parameters_are_searched_on_a_copy(prior, observe):
    before = {name: p.clone() for name, p in prior.named_parameters()}
    observation = observe(torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)).double())
    residuals = {}
    for steps_w in (0, 60):
        attack = RGAPg(prior=prior, restarts=1, steps_z=10, steps_w=steps_w)
        attack.run([observation])
        residuals[steps_w] = attack.reports[0][2].residual
    assert residuals[60] < 0.9 * residuals[0]
    assert all(torch.equal(p, before[name]) for name, p in prior.named_parameters())


def test_refusals_name_what_is_wrong(prior, observe, capture):
    image = torch.rand(1, 3, SIZE, SIZE).double()
    with pytest.raises(InputError, match="--prior"):
        RGAPg()
    with pytest.raises(InputError, match="steps"):
        RGAPg(prior=prior, steps=10)

    class Rectified(Narrow):
        def __init__(self, **options):
            super().__init__(**options)
            self[1] = nn.ReLU()

    with pytest.raises(InputError, match=r"layer 1 \(ReLU\)"):
        RGAPg(prior=prior).begin([observe(image, model=Rectified)])
    with pytest.raises(InputError, match=r"the prior makes \(3, 32, 32\) images"):
        RGAPg(prior=prior).begin([capture((7,), size=40, rate=None, dtype=torch.float64, model=FCN3).observation])
