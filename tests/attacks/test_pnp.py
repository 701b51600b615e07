"""Plug and play compared with what a known prior prescribes, with a plain loop, and with the attacks that it wraps."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch.distributions import Normal

from attacks.dlg import IDLG
from attacks.engine.plug_and_play import annealed, plug_and_play
from attacks.engine.regularizers import total_variation
from attacks.engine.schedules import multistep
from attacks.engine.stage import Stage
from attacks.ig import IG
from attacks.pnp import PlugAndPlay, PnP, PnPGI
from benchmark.config import Config
from benchmark.method_options import options_of
from priors.base import Denoiser
from victims.errors import InputError

GRAY = 0.5


class Wiener(Denoiser):
    """The best denoiser of pixels that are independent and normal, with mean 0.5 and standard deviation 0.1."""

    def forward(self, images, sigma):
        return GRAY + 0.1**2 / (0.1**2 + sigma**2) * (images - GRAY)


class Gray(Denoiser):
    """Finds only gray natural."""

    def forward(self, images, sigma):
        return torch.full_like(images, GRAY)


def test_a_step_climbs_the_density_of_noisy_images(capture):
    """x + eta sigma^2 times the gradient of log p(x), p the density of images with noise of sigma."""
    victim, sigma, eta = capture().observation.victim, 0.2, 0.3
    pixels = 0.3 + 0.4 * torch.rand(2, 3, 3, 8, 8, dtype=torch.float64)
    noisy = Normal(GRAY, (0.1**2 + sigma**2) ** 0.5)
    (score,) = torch.autograd.grad(noisy.log_prob(pixels.requires_grad_()).sum(), pixels)
    victim.to("cpu", torch.float64)
    x = victim.normalize(pixels.detach())
    plug_and_play(x, victim, Wiener(), sigma, eta)
    torch.testing.assert_close(victim.denormalize(x), pixels.detach() + eta * sigma**2 * score)


def test_the_noise_falls_in_equal_ratios_and_then_stays():
    sigmas = [annealed(0.2, 0.02, step, 16) for step in range(17)]
    ratios = [after / before for before, after in pairwise(sigmas)]
    assert sigmas[0] == 0.2
    assert ratios[:14] == pytest.approx([0.1 ** (1 / 14)] * 14)
    assert sigmas[14:] == pytest.approx([0.02] * 3)


def test_it_is_ig_with_a_step_of_the_denoiser_after_each_of_its_own(capture):
    observation, steps, lr = capture(dtype=torch.float64).observation, 5, 0.1
    options = {"prior": Wiener(), "steps": steps, "restarts": 1, "tv": 0.01, "eta": lr, "eta_d": 0.3, "sigma_end": 0.1}
    attack = PnP(**options)
    result = attack.run([observation])

    victim, labels = observation.victim, observation.knowledge.labels[None]
    judge = IG(steps=1, restarts=1)
    judge.begin([observation])
    x = judge.noise().requires_grad_()
    adam, costs = torch.optim.Adam([x], lr=lr), []
    for step in range(steps):
        last, cost = x.detach().clone(), judge.cost(x, labels)
        costs.append(cost.item())
        (grad,) = torch.autograd.grad(cost.sum() + 0.01 * total_variation(x).sum(), x)
        x.grad = grad.sign()
        adam.param_groups[0]["lr"] = lr * multistep(step, steps)
        adam.step()
        with torch.no_grad():
            pixels = victim.denormalize(x).clamp(0, 1)
            sigma = 0.2 * 0.5 ** min(1, (step + 1) / (7 / 8 * steps))
            x.copy_(victim.normalize(pixels + 0.3 * (Wiener()(pixels, sigma) - pixels)))
    assert [cost.item() for _, cost in result.curve] == pytest.approx(costs, rel=1e-9)
    assert result.cost.item() == pytest.approx(costs[-1])  # the last images, whatever they cost
    torch.testing.assert_close(result.images, last)


@pytest.mark.parametrize(("method", "plain"), [(PnP, IG), (PnPGI, PnPGI.__mro__[2])])
def test_with_no_step_of_the_denoiser_it_is_the_attack(method, plain, capture):
    observation, options = capture().observation, {"steps": 4, "restarts": 2}

    def costs(attack):
        return torch.stack([cost for _, cost in attack.run([observation]).curve])

    expected = costs(plain(**options))
    torch.testing.assert_close(costs(method(prior=Gray(), eta_d=0, **options)), expected, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(costs(method(prior=Gray(), eta_d=0.5, **options)), expected, rtol=1e-2)


class InTwoPhases(IG):
    """Something that is no image, then pixels."""

    def __init__(self, **common):
        super().__init__(**common)
        self.plan = {"color": 2, "x": 2}

    def search(self):
        x = self.noise()
        found = yield Stage(
            name="color", variables={"c": x[..., :1, :1]}, lr=0.1, decode=lambda v: v["c"].expand_as(x).contiguous()
        )
        (pixels,) = super().search()
        yield replace(pixels, variables={"x": found["c"].expand_as(x)})


class Mine(PlugAndPlay, InTwoPhases):
    pass


def test_only_stages_on_pixels_are_changed(capture):
    attack = Mine(prior=Gray(), restarts=1, eta_d=1)
    attack.begin([capture().observation])
    for _ in range(2):
        attack.advance()
    assert attack.session.stage.name == "x"
    attack.advance()
    x = attack.victim.denormalize(attack.session.variables["x"])
    torch.testing.assert_close(x, torch.full_like(x, GRAY))


class OneLabel(PlugAndPlay, IDLG):
    pass


class NeedsMore(PlugAndPlay, IDLG):
    needs = frozenset({"labels"})


class NeedsTheSame(NeedsMore):
    pass


def test_it_needs_what_the_attack_needs_and_a_denoiser(capture):
    assert PnP.needs == {"labels", "prior"}
    assert OneLabel.needs == {"prior"}
    assert NeedsMore.needs == NeedsTheSame.needs == {"labels", "prior"}
    observation = capture((3,), give_labels=False).observation
    assert OneLabel(prior=Gray(), steps=3, restarts=1).run([observation]).cost.isfinite()


def test_its_options_are_those_of_the_attack_too():
    assert options_of(PnP).keys() == {"eta_d", "sigma", "sigma_end"} | options_of(IG).keys()
    config = Config(attack="pnp", preset="default", set=["tv=0.5", "eta_d=0.25"])
    assert config.method_options(PnP) == {"tv": 0.5, "eta_d": 0.25}
    with pytest.raises(InputError, match="has no option 'sigma_last'"):
        Config(attack="pnp", preset="default", set=["sigma_last=1"]).method_options(PnP)
    assert not PnP.presets  # those of IG state no denoiser


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"eta_d": 1.1}, "eta_d is 1.1; give a part of the way"),
        ({"eta_d": -0.1}, "eta_d is -0.1"),
        ({"sigma_end": 0.0}, "sigma_end is 0"),
        ({"sigma": 0.3}, "sigma is 0.3; this denoiser takes at most 0.294"),
    ],
    ids=str,
)
def test_options_that_mean_nothing_are_refused_in_one_line(options, match, small_denoiser):
    with pytest.raises(InputError, match=match) as error:
        PnP(prior=small_denoiser, **options)
    assert "\n" not in str(error.value)
