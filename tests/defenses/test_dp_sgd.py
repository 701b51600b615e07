"""DP-SGD against clipping in a loop of plain autograd, and its epsilon against the Gaussian mechanism's own."""

import math
import sys
from functools import partial
from statistics import NormalDist

import pytest
import torch
from torch import nn

from benchmark.tasks.capture import client_update
from defenses.base import Chain
from defenses.clipping import Clipping, by_bound
from defenses.dp_sgd import DPSGD
from defenses.precode import Precode
from tests.zoo.layers import hooked_batch_norm, no_statistics
from victims.client import LocalTraining, fed_avg, fed_sgd
from victims.errors import InputError
from victims.losses.base import Own
from victims.losses.class_weights import ClassWeights
from victims.models.lenet import LeNet
from victims.models.resnet18 import ResNet18
from victims.modules import build
from victims.rounds import Rounds, by_round
from victims.victim import Victim, gradient_at


class Net(nn.Sequential):
    """Sigmoid, so that no gradient is zero."""

    def __init__(self):
        super().__init__(nn.Conv2d(3, 4, 3, stride=2), nn.Sigmoid(), nn.Flatten(), nn.Linear(36, 5))


def victim_of(model):
    return Victim(model, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.25))


@pytest.fixture
def victim():
    return victim_of(build(Net, seed=0))


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(4, 3, 8, 8, generator=generator)
    return images, torch.tensor([1, 4, 1, 0])


def private(victim, batch, bound, noise, seed=0, local=None):
    gradient_fn = DPSGD(bound, noise).gradient_fn(
        partial(gradient_at, victim), victim, torch.Generator().manual_seed(seed)
    )
    return fed_avg(victim, *batch, local, gradient_fn) if local else fed_sgd(victim, *batch, gradient_fn)


def of_images(model, images, labels):
    """Every image's gradient as one vector (B, d), by `backward`."""
    rows = []
    for x, y in zip(images, labels, strict=True):
        model.zero_grad()
        x = (x - torch.tensor([0.5, 0.4, 0.3])[:, None, None]) / torch.tensor([0.2, 0.3, 0.25])[:, None, None]
        nn.functional.cross_entropy(model(x[None]), y[None]).backward()
        rows.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    return torch.stack(rows)


def flat(gradient):
    return torch.cat([g.flatten() for g in gradient.values()])


def looped(model, images, labels, bound):
    total = 0
    for g in of_images(model, images, labels):
        norm = math.sqrt(float(g.double() @ g.double()))
        total = total + (g * (bound / norm) if norm > bound else g)
    return total / len(images)


# On the client.


def test_without_noise_it_is_the_mean_of_clipped_gradients(victim, batch):
    norms = of_images(build(Net, seed=0), *batch).norm(dim=1).sort().values
    bound = float(norms[1] + norms[2]) / 2  # clips two of four
    sent = private(victim, batch, bound, 0.0)
    assert {name: g.shape for name, g in sent.items()} == {name: p.shape for name, p in victim.parameters.items()}
    expected = looped(build(Net, seed=0), *batch, bound)
    torch.testing.assert_close(flat(sent), expected, rtol=1e-5, atol=1e-7)
    assert not torch.allclose(expected, flat(fed_sgd(victim, *batch)), rtol=1e-2)


def test_a_bound_that_none_reaches_changes_nothing(victim, batch):
    torch.testing.assert_close(flat(private(victim, batch, 1e6, 0.0)), flat(fed_sgd(victim, *batch)))


def test_no_image_can_change_the_sum_by_more_than_the_bound(victim, batch):
    images, labels = batch
    all_four = 4 * flat(private(victim, batch, 0.01, 0.0))
    for out in range(4):
        rest = [i for i in range(4) if i != out]
        three = 3 * flat(private(victim, (images[rest], labels[rest]), 0.01, 0.0))
        assert float((all_four - three).norm()) == pytest.approx(0.01, rel=1e-4)


def test_one_image_is_clipped_as_a_whole_and_noised(victim, batch):
    one = (batch[0][:1], batch[1][:1])
    g = flat(fed_sgd(victim, *one))
    sent = flat(private(victim, one, 0.5, 0.0))
    torch.testing.assert_close(sent, g / g.norm() * 0.5)
    noise = flat(private(victim, one, 0.5, 2.0)) - sent
    assert float(noise.std()) == pytest.approx(1.0, rel=0.1)  # 297 of them


def test_the_noise_has_its_statistics_and_its_seed(victim, batch):
    clean = flat(private(victim, batch, 0.01, 0.0))
    draws = torch.stack([flat(private(victim, batch, 0.01, 3.0, seed)) - clean for seed in range(30)])
    std = 3.0 * 0.01 / 4
    assert float(draws.std()) == pytest.approx(std, rel=0.03)  # 8910 draws: 0.75 % is one standard error
    assert abs(float(draws.mean())) < 4 * std / math.sqrt(draws.numel())
    assert abs(float((draws[0] * draws[1]).mean())) < 4 * std**2 / math.sqrt(draws.shape[1])
    again = flat(private(victim, batch, 0.01, 3.0, 7)) - clean
    assert torch.equal(again, draws[7])


def test_every_local_step_is_private(victim, batch):
    """Two steps of two images, by the weights and noise of each."""
    images, labels = batch
    sent = private(victim, batch, 0.5, 0.1, local=LocalTraining(mini_batch=2, lr=0.2))
    chance, model = torch.Generator().manual_seed(0), build(Net, seed=0)
    start = torch.cat([p.detach().flatten() for p in model.parameters()])
    for part in (slice(0, 2), slice(2, 4)):
        noise = torch.cat([torch.randn(p.shape, generator=chance).flatten() for p in model.parameters()])
        g = looped(model, images[part], labels[part], 0.5) + 0.1 * 0.5 / 2 * noise
        now = torch.cat([p.detach().flatten() for p in model.parameters()]) - 0.2 * g
        nn.utils.vector_to_parameters(now, model.parameters())
    torch.testing.assert_close(flat(sent), start - now, rtol=1e-3, atol=1e-6)


def test_every_round_has_a_bound_of_its_own(batch):
    models = [build(Net, seed=seed) for seed in (0, 1)]
    with torch.no_grad():
        models[1][3].weight *= 5
    sent = private(victim_of(Rounds(models)), batch, 0.3, 0.0)
    expected = torch.cat([looped(model, *batch, 0.3) for model in models])
    torch.testing.assert_close(flat(sent), expected, rtol=1e-4, atol=1e-7)


def test_an_image_without_gradient_gives_finite_results(batch):
    model = build(Net, seed=0)
    with torch.no_grad():
        model[3].bias[1] = 1e4  # certain of class 1
    sent = private(victim_of(model), batch, 0.1, 0.0)
    assert flat(sent).isfinite().all()
    assert float(flat(sent).norm()) > 0


# Its privacy.


def gaussian_delta(epsilon, sigma):
    """Of one release with sensitivity 1, exactly: Balle & Wang, ICML 2018, theorem 8."""
    cdf = NormalDist().cdf
    a, b = 1 / (2 * sigma), epsilon * sigma
    return cdf(a - b) - math.exp(epsilon) * cdf(-a - b)


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0, 8.0])
def test_epsilon_of_one_step_is_a_bound_near_the_exact_one(sigma):
    low, high = 0.0, 50.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if gaussian_delta(middle, sigma) > 1e-5 else (low, middle)
    assert low <= DPSGD(1.0, sigma).epsilon(1, 1.0) <= 1.1 * low


@pytest.mark.parametrize(("sigma", "steps"), [(1.0, 10), (0.5, 4), (10.0, 3)])
def test_epsilon_of_several_steps_is_renyis_by_hand(sigma, steps):
    """min over alpha of T alpha / (2 sigma^2) + log((alpha - 1) / alpha) - log(delta alpha) / (alpha - 1)."""
    grid = (1 + math.exp(i / 500) for i in range(-6000, 5000))
    best = min(
        steps * a / (2 * sigma**2) + math.log((a - 1) / a) - (math.log(1e-5) + math.log(a)) / (a - 1) for a in grid
    )
    assert DPSGD(1.0, sigma).epsilon(steps, 1.0) == pytest.approx(best, rel=5e-3)


@pytest.mark.filterwarnings("ignore:Optimal order")  # of 100 steps, where only the comparison matters
def test_epsilon_of_sampled_batches_is_smaller_and_grows_with_steps():
    """Abadi et al., section 3.1 (figure 2): q = 0.01, sigma = 4, 10 000 steps, delta 1e-5 are epsilon 1.26."""
    dp = DPSGD(1.0, 4.0)
    assert dp.epsilon(10_000, 0.01) == pytest.approx(1.26, rel=0.2)
    assert dp.epsilon(100, 0.01) < dp.epsilon(10_000, 0.01) < dp.epsilon(10_000, 0.02)


def test_without_noise_epsilon_is_infinite():
    assert DPSGD(1.0, 0.0).epsilon(1, 0.01) == math.inf


def test_a_run_does_not_load_the_accountant(victim, batch, monkeypatch):
    monkeypatch.setitem(sys.modules, "opacus.accountants", None)  # an import would raise
    private(victim, batch, 1.0, 1.0)


# Refusals.


@pytest.mark.parametrize("bound", [0.0, -1.0, math.inf, math.nan])
def test_a_bound_outside_its_range_is_refused_in_one_line(bound):
    with pytest.raises(InputError, match=f"bound.*{bound}") as error:
        DPSGD(bound, 1.0)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("noise", [-0.1, math.inf, math.nan])
def test_noise_outside_its_range_is_refused_in_one_line(noise):
    with pytest.raises(InputError, match=f"noise.*{noise}") as error:
        DPSGD(1.0, noise)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("steps", "rate", "delta"), [(0, 0.1, 1e-5), (1, 0.0, 1e-5), (1, 1.1, 1e-5), (1, 0.1, 0.0)])
def test_epsilon_refuses_what_it_cannot_count(steps, rate, delta):
    with pytest.raises(InputError, match="epsilon"):
        DPSGD(1.0, 1.0).epsilon(steps, rate, delta)


def test_batch_norm_that_mixes_images_is_refused():
    net = build(ResNet18, seed=0, image_shape=(3, 8, 8), num_classes=5)
    mixing = [(net, True), (hooked_batch_norm(), True), (no_statistics(), False)]
    for model, training in mixing:
        victim = Victim(model, mean=(0.5,) * 3, std=(0.5,) * 3, training=training)
        fix = "use --victim-mode eval, or a --victim without" if training else "here; choose a --victim without"
        with pytest.raises(InputError, match=fix) as error:
            DPSGD(1.0, 1.0).gradient_fn(partial(gradient_at, victim), victim, torch.Generator())
        assert "\n" not in str(error.value)
    fine = Victim(net, mean=(0.5,) * 3, std=(0.5,) * 3)
    DPSGD(1.0, 1.0).gradient_fn(partial(gradient_at, fine), fine, torch.Generator())


def test_global_clipping_shortens_each_round_by_itself(batch):
    """A client sends one round before it knows the next."""
    models = [build(Net, seed=seed) for seed in (0, 1)]
    victim, defense = victim_of(Rounds(models)), Clipping(0.05, "global")
    sent = client_update(victim, *batch, generator=torch.Generator(), defense=defense)
    alone = [client_update(victim_of(m), *batch, generator=torch.Generator(), defense=defense) for m in models]
    for part, expected in zip(by_round(victim, sent), alone, strict=True):
        assert part.keys() == expected.keys()
        assert all(torch.equal(part[name], g) for name, g in expected.items())
    received = {name: g[None] for name, g in sent.items()}
    dummy = {name: 10 * g for name, g in received.items()}
    for name, g in by_bound(received, victim)(dummy).items():
        torch.testing.assert_close(g, received[name])


@pytest.mark.parametrize("loss", [ClassWeights("1,5,1,1,2"), Own(nn.CrossEntropyLoss(reduction="sum"))])
def test_a_loss_that_is_no_mean_over_images_is_refused(loss, batch):
    victim = Victim(build(Net, seed=0), mean=(0.5,) * 3, std=(0.5,) * 3, loss=loss)
    with pytest.raises(InputError, match="is not the mean of those of its images") as error:
        private(victim, batch, 1e6, 0.0)
    assert "\n" not in str(error.value)


def test_the_noise_of_a_bottleneck_is_no_weight(batch):
    """PRECODE is nearest to the model in either order: its noise is neither clipped nor shared."""
    torch.manual_seed(0)
    net = Precode(6).model(build(LeNet, image_shape=(3, 8, 8), num_classes=5, seed=0), (3, 8, 8))
    victim = victim_of(net)
    for parts in ([DPSGD(0.1, 0.0), Precode(6)], [Precode(6), DPSGD(0.1, 0.0)]):
        gradient_fn = Chain(parts).gradient_fn(partial(gradient_at, victim), victim, torch.Generator())
        for images, labels in (batch, (batch[0][:1], batch[1][:1])):
            sent = fed_sgd(victim, images, labels, gradient_fn)
            assert sent.keys() == victim.parameters.keys()
        torch.testing.assert_close(torch.cat([g.flatten() for g in sent.values()]).norm(), torch.tensor(0.1))


# The attacker's surrogate.


def stacked(*runs):
    return {name: torch.stack([run[name] for run in runs]) for name in runs[0]}


def test_estimate_repeats_the_clipping_of_one_image_in_each_run(victim, batch):
    """Exactly, without noise; one run's gradient was clipped, the other's was not."""
    ones = [(batch[0][i : i + 1], batch[1][i : i + 1]) for i in range(2)]
    received = stacked(private(victim, ones[0], 0.05, 0.0), private(victim, ones[1], 1e3, 0.0))
    seen = DPSGD.estimate(received, victim)(stacked(*(fed_sgd(victim, *one) for one in ones)))
    for name, g in received.items():
        torch.testing.assert_close(seen[name], g, rtol=1e-5, atol=1e-8)


def test_estimate_shortens_to_the_received_norm_and_keeps_the_direction(victim, batch):
    received = stacked(private(victim, batch, 0.01, 1.0), private(victim, batch, 0.3, 0.1))
    dummy = stacked(fed_sgd(victim, *batch), fed_sgd(victim, *batch))
    seen = DPSGD.estimate(received, victim)(dummy)
    for r in range(2):
        was, now, sent = (torch.cat([g[r].flatten() for g in of.values()]) for of in (dummy, seen, received))
        assert float(now.norm()) == pytest.approx(min(float(was.norm()), float(sent.norm())), rel=1e-5)
        assert float(nn.functional.cosine_similarity(was, now, dim=0)) == pytest.approx(1, abs=1e-6)


def test_every_round_is_estimated_by_itself(batch):
    victim = victim_of(Rounds([build(Net, seed=seed) for seed in (0, 1)]))
    one = (batch[0][:1], batch[1][:1])
    received = stacked(private(victim, one, 0.05, 0.0))
    seen = DPSGD.estimate(received, victim)(stacked(fed_sgd(victim, *one)))
    for name, g in received.items():
        torch.testing.assert_close(seen[name], g, rtol=1e-5, atol=1e-8)


def test_estimate_has_right_gradients_twice_and_finite_ones_at_zero(batch):
    victim = victim_of(nn.Linear(2, 1).double())
    for scale in (0.1, 10.0):  # longer than the received norm, and shorter
        received = {"weight": torch.tensor([[[0.3, -0.4]]]).double() * scale, "bias": torch.tensor([[0.2]]).double()}
        transform = DPSGD.estimate(received, victim)

        def out(w, b, transform=transform):
            return tuple(transform({"weight": w, "bias": b}).values())

        given = (
            torch.tensor([[[0.5, 0.7]]]).double().requires_grad_(),
            torch.tensor([[-0.6]]).double().requires_grad_(),
        )
        assert torch.autograd.gradcheck(out, given)
        assert torch.autograd.gradgradcheck(out, given)
        zero = tuple(torch.zeros_like(g, requires_grad=True) for g in given)
        gradients = torch.autograd.grad(sum(g.sum() for g in out(*zero)), zero)
        assert all(torch.equal(gradient, torch.ones_like(gradient)) for gradient in gradients)


def test_an_update_of_zeros_gives_no_nan(victim, batch):
    received = stacked({name: torch.zeros_like(p) for name, p in victim.parameters.items()})
    seen = DPSGD.estimate(received, victim)(stacked(fed_sgd(victim, *batch)))
    assert flat(seen).isfinite().all()
