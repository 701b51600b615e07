"""CMA-ES in an attack: a population is one batch, and every instance follows the package alone."""

import cma
import numpy as np
import pytest
import torch
from cma.sigma_adaptation import CMAAdaptSigmaCSA
from test_methods import Plain
from torch.distributions import Normal, kl_divergence

from attacks.engine.optimizers import CMAES, FULL
from attacks.engine.regularizers import latent_divergence
from attacks.ggl import GGL
from attacks.gias_parts import GIz
from attacks.igims import IGIMS, IGIMSAdam
from victims.errors import InputError
from victims.seeds import seed_of


def values_at(candidates):
    """A quadratic with its minimum at 1 in the first variable and at 2 in the second, (R, P)."""
    first, second = candidates
    return (first - 1).square().flatten(2).sum(2) + (second - 2).square().flatten(2).sum(2)


def test_it_finds_the_minimum_of_a_quadratic_for_every_instance():
    search = CMAES([torch.zeros(2, 3), torch.zeros(2, 2, 2)], lr=1.0, population=20, seeds=[3, 4])
    for _ in range(120):
        candidates = search.ask()
        assert [tuple(c.shape) for c in candidates] == [(2, 20, 3), (2, 20, 2, 2)]
        search.tell(values_at(candidates))
    assert values_at(candidates).max() < 1e-3


def test_an_instance_follows_the_packages_own_search():
    start, seed = torch.tensor([[0.5, -1.0, 2.0]]), 11
    ours = CMAES([start], lr=0.7, population=8, seeds=[seed])
    plain = cma.CMAEvolutionStrategy(
        start[0].numpy(), 0.7, {"popsize": 8, "seed": np.nan, "randn": np.random.RandomState(seed).randn, "verbose": -9}
    )
    before = np.random.get_state()[1].copy()
    for _ in range(10):
        (candidates,) = ours.ask()
        asked = plain.ask()
        np.testing.assert_allclose(candidates[0].numpy(), np.array(asked, np.float32), rtol=1e-5)
        ours.tell(candidates.square().sum(2))
        plain.tell(asked, candidates[0].square().sum(1).tolist())
    assert (np.random.get_state()[1] == before).all(), "numpy's global generator does not change"


def test_searches_do_not_influence_each_other():
    together = CMAES([torch.zeros(2, 3)], lr=1.0, population=6, seeds=[5, 6])
    alone = CMAES([torch.zeros(1, 3)], lr=1.0, population=6, seeds=[6])
    for _ in range(5):
        (both,), (one,) = together.ask(), alone.ask()
        assert torch.equal(both[1], one[0])
        together.tell(both.square().sum(2))
        alone.tell(one.square().sum(2))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_values_that_are_not_finite_count_as_the_worst(value):
    search = CMAES([torch.zeros(1, 2)], lr=1.0, population=8, seeds=[1])
    for _ in range(60):
        (candidates,) = search.ask()
        values = (candidates - 0.5).square().sum(2)
        search.tell(torch.where(candidates[..., 0] < 0, value, values))
    assert values.max() < 1e-3


def test_the_covariance_of_many_dimensions_is_diagonal():
    small, large = (CMAES([torch.zeros(1, n)], lr=1.0, population=4, seeds=[1]) for n in (FULL, FULL + 1))
    assert not small.each[0].opts["CMA_diagonal"]
    assert large.each[0].opts["CMA_diagonal"]


def rounds_of_nevergrad(start, seed, evaluations, rounds, f):
    """What the package's CMA does when a round asks for all its candidates and then tells them one after another.

    It hands out what its strategy drew, draws again when that is used up, collects what it is told until it has a
    generation, and gives this to the strategy, which raises if nothing was drawn since the last one.
    """
    d = len(start)
    generation = 4 + int(3 * np.log(d))
    options = {"popsize": generation, "seed": np.nan, "randn": np.random.RandomState(seed).randn, "verbose": -9}
    options |= {"CMA_diagonal": d > FULL, "AdaptSigma": CMAAdaptSigmaCSA}  # before cma 4, CSA at every dimension
    strategy = cma.CMAEvolutionStrategy(np.zeros(d), 1.0, options)
    queue, collected, asked, refused = [], [], [], 0
    for _ in range(rounds):
        candidates = []
        for _ in range(evaluations):
            if not queue:
                queue = strategy.ask()
            candidates.append(queue.pop(0))
        asked.append(np.array(candidates) + start)
        for candidate in candidates:
            collected.append(candidate)
            if len(collected) == generation:
                try:
                    strategy.tell(collected, [f(c + start) for c in collected])
                except RuntimeError:
                    refused += 1
                collected = []
    return np.array(asked), refused


STYLEGAN2 = 14 * 512


@pytest.mark.parametrize(
    ("d", "evaluations", "refused"), [(128, 50, 21), (128, 18, 0), (9, 25, 18), (300, 50, 16), (STYLEGAN2, 50, 8)]
)
def test_small_generations_are_asked_and_told_as_by_nevergrad(d, evaluations, refused):
    start = torch.rand(d, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    scale = np.linspace(1, 3, d)
    expected, lost = rounds_of_nevergrad(start.numpy(), 11, evaluations, 12, lambda z: (scale * (z - 1) ** 2).sum())
    assert lost == refused, "of 12 rounds"
    generation = 4 + int(3 * np.log(d))
    ours = CMAES([start[None]], lr=1.0, population=evaluations, seeds=[11], generation=generation)
    for asked in expected:
        (candidates,) = ours.ask()
        np.testing.assert_allclose(candidates[0].numpy(), asked, rtol=0, atol=1e-6)
        ours.tell((torch.as_tensor(scale) * (candidates - 1).square()).sum(2))


def test_a_round_of_less_than_a_generation_is_refused():
    with pytest.raises(InputError, match="population is 17, less than a generation; give 18 or more"):
        CMAES([torch.zeros(1, 128)], lr=1.0, population=17, seeds=[1], generation=18)


# In the attacks.

STEPS, POPULATION = 5, 6


@pytest.fixture
def observation(capture):
    return capture(dtype=torch.float64).observation


def written_out(attack, G, observation, cost, squash=lambda z: z):
    """The package's CMA-ES on one candidate after another: the least cost of every generation, and the best z."""
    z = G.draw(3, torch.Generator().manual_seed(seed_of(0, "t", 0)))["z"].double()
    seed = seed_of(0, "t", 0, "cma") % 2**32
    options = {"popsize": POPULATION, "seed": np.nan, "randn": np.random.RandomState(seed).randn, "verbose": -9}
    search, least, best = cma.CMAEvolutionStrategy(z.flatten().numpy(), 1.0, options), [], None
    for _ in range(STEPS):
        asked = search.ask()
        told, costs = [], []
        for candidate in asked:
            z = torch.as_tensor(candidate).view(3, -1)
            matching = cost(observation.victim.normalize(G({"z": squash(z)})))
            told.append(matching + attack.alpha_kl * latent_divergence(z[None]).item())
            costs.append(matching)
            if best is None or matching < min([*least, *costs[:-1]], default=np.inf):
                best = z
        search.tell(asked, told)
        least.append(min(costs))
    return least, best


@pytest.mark.parametrize("squashed", [False, True])
def test_ggl_equals_cma_es_on_one_candidate_after_another(observation, small_prior, squashed):
    G = small_prior.double()
    attack = GGL(steps_z=STEPS, population=POPULATION, squashed=squashed, prior=G, restarts=1)
    result = attack.run([observation])
    labels = observation.knowledge.labels[None]

    def cost(x):
        x = x.detach().requires_grad_()
        theta = {name: p.requires_grad_() for name, p in observation.victim.parameters.items()}
        loss = observation.victim.loss(theta, x, labels[0])
        dummy = dict(zip(theta, torch.autograd.grad(loss, list(theta.values())), strict=True))
        dummy = observation.knowledge.estimate({n: u[None] for n, u in observation.update.items()}, observation.victim)(
            {n: g[None] for n, g in dummy.items()}
        )
        return sum((dummy[n][0] - u).square().sum() for n, u in observation.update.items()).item() / len(theta)

    least, best = written_out(attack, G, observation, cost, torch.tanh if squashed else lambda z: z)
    torch.testing.assert_close(torch.stack([c for _, c in result.curve])[:, 0], torch.tensor(least).double())
    z = best.tanh() if squashed else best
    torch.testing.assert_close(result.images[0], observation.victim.normalize(G({"z": z})))
    assert result.gradient_evaluations == STEPS * POPULATION


def test_ggl_counts_what_nevergrad_does_not_learn_from(observation, small_prior):
    d = 3 * small_prior.draw(1, torch.Generator())["z"].numel()
    options = {"steps_z": STEPS, "population": 50, "restarts": 1}
    result = GGL(optimizer="nevergrad", prior=small_prior.double(), **options).run([observation])
    assert result.gradient_evaluations == STEPS * 50
    attack = GGL(optimizer="nevergrad", prior=small_prior.double(), **options)
    attack.begin([observation])
    (strategy,) = attack.session._optimizer.each
    assert strategy.popsize == 4 + int(3 * np.log(d)) < 50
    for _ in range(STEPS - 1):
        attack.advance()
    assert strategy.countiter == STEPS - 1, "one generation a round"


def test_ggls_starts(observation, small_prior):
    z = small_prior.draw(3, torch.Generator().manual_seed(seed_of(0, "t", 0)))["z"].double()
    wanted = {"mean": torch.zeros_like(z), "uniform": (1 + (z / 2**0.5).erf()) / 2, "drawn": z}
    for start, expected in wanted.items():
        attack = GGL(start=start, prior=small_prior.double(), population=4, restarts=1)
        attack.begin([observation])
        torch.testing.assert_close(attack.session.stage.variables["z"][0], expected, rtol=1e-6, atol=1e-6)


def test_ggl_by_adam_equals_a_plain_loop(observation, small_prior):
    """As its code: the rate rises over 5 % of the steps and falls over the last 25 %."""

    def mean_of_squares(gradient, received):
        return sum((g - sent).square().sum() for g, sent in zip(gradient, received, strict=True)) / len(received)

    plain, G = Plain(observation, mean_of_squares, tv=0.0), small_prior.double()
    z = G.draw(3, torch.Generator().manual_seed(seed_of(0, "t", 0)))["z"].double().requires_grad_()
    steps = 24  # of which the rate rises in one and falls in six
    attack = GGL(steps_z=steps, optimizer="adam", eta_adam=0.3, alpha_kl=0.2, prior=G, restarts=1)
    attack.begin([observation])
    adam = torch.optim.Adam([z])
    for step in range(steps - 1):  # after the last one there are no variables
        t = (step + 1) / (steps + 1)
        adam.param_groups[0]["lr"] = 0.3 * (0.5 - 0.5 * np.cos(np.pi * min(1, (1 - t) / 0.25))) * min(1, t / 0.05)
        adam.zero_grad()
        divergence = kl_divergence(Normal(z.mean(1), z.std(1, correction=0)), Normal(0.0, 1.0)).sum()
        (plain.objective((G({"z": z}) - plain.mean) / plain.std) + 0.2 * divergence).backward(inputs=[z])
        adam.step()
        attack.advance()
        torch.testing.assert_close(attack.session.variables["z"][0], z.detach(), rtol=1e-6, atol=1e-6)


def test_igims_starts_a_round_from_latents_and_parameters_of_the_round_before(observation, small_prior):
    """The first generation of round 2 is drawn around round 1's latents and decoded by round 1's parameters."""
    attack = IGIMS(rounds=2, steps_z=2, steps_w=3, population=5, eta_w=0.05, prior=small_prior.double(), restarts=1)
    assert attack.plan == {"z1": 2, "w1": 3, "z2": 2, "w2": 3}
    seen = {}
    for stage in attack_stages(attack, observation):
        seen[stage.name] = stage
    assert not seen["z1"].variables["z"].any(), "mu = 0"
    prior = dict(small_prior.named_parameters())
    for name, w in seen["w1"].variables.items():
        assert torch.equal(w, prior[name].expand_as(w))
    for name, p in prior.items():
        assert not torch.equal(seen["z2"].fixed[name], p.expand_as(seen["z2"].fixed[name])), name
    assert torch.equal(seen["z2"].variables["z"], seen["w1"].fixed["z"])
    assert seen["w2"].lr == seen["w1"].lr / 2
    assert seen["z2"].lr == seen["z1"].lr / 2
    assert attack.session.gradient_evaluations == 4 * 5 + 6


def test_a_round_of_igims_has_all_its_steps(small_prior):
    """M and N are the steps of one round; together the rounds have about as many steps as GIAS (500 + 5000)."""
    for method, M in ((IGIMS, 300), (IGIMSAdam, 1_000)):
        plan = method(**method.presets["paper"], prior=small_prior).plan
        assert {name[0]: n for name, n in plan.items()} == {"z": M, "w": 1_000}
        assert set(plan.values()) == {M, 1_000}
        assert 0.9 < sum(plan.values()) / 5_500 < 1.1
        assert method(**method.presets["paper-imagenet"], prior=small_prior).plan == {"z1": M, "w1": 1_000}
    with pytest.raises(InputError, match="rounds is 0"):
        IGIMS(rounds=0, prior=small_prior)


def attack_stages(attack, observation):
    """Every stage that the attack enters."""
    attack.begin([observation])
    stages = [attack.session.stage]
    for _ in range(sum(attack.plan.values())):
        attack.advance()
        if attack.session.stage is not stages[-1]:
            stages.append(attack.session.stage)
    return stages


def test_parameters_stay_near_their_start(observation, small_prior):
    """lambda_w |w - w_0|_2, per image: a large weight keeps the copies near the prior's parameters."""

    def distance(lambda_w):
        attack = IGIMS(rounds=1, steps_z=1, steps_w=6, population=4, eta_w=0.01, lambda_w=lambda_w,
                       prior=small_prior.double(), restarts=1)  # fmt: skip
        attack.begin([observation])
        for _ in range(6):  # the step after would be the last
            attack.advance()
        return sum((attack.session.variables[n] - p).square().sum() for n, p in small_prior.named_parameters()).sqrt()

    assert distance(10.0) < 0.5 * distance(0.0)


def test_divergence_is_of_the_most_likely_normal_distribution_from_the_standard_one():
    """With mean m and biased variance s^2, m^2 + s^2 is the mean square."""
    z = torch.randn(2, 3, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 1.7 + 0.4
    variance = (z - z.mean(2, keepdim=True)).square().mean(2)
    expected = (z.square().mean(2) - 1 - variance.log()).sum(1) / 2
    torch.testing.assert_close(latent_divergence(z), expected)
    fitted = torch.distributions.Normal(z.mean(2), variance.sqrt())
    divergence = torch.distributions.kl_divergence(fitted, torch.distributions.Normal(0.0, 1.0))
    torch.testing.assert_close(latent_divergence(z), divergence.sum(1))
    assert latent_divergence(torch.zeros(1, 1, 4)).isfinite()


def test_a_population_needs_no_gradients(observation, small_prior, monkeypatch):
    """CMA-ES works with a generator that cannot be differentiated; a gradient-based latent search does not."""

    class NoGradient(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            raise ArithmeticError

    from attacks import ggl, gias
    from priors.base import decode

    for module in (ggl, gias):
        monkeypatch.setattr(module, "decode", lambda *given: NoGradient.apply(decode(*given)))
    GGL(steps_z=2, population=4, prior=small_prior.double(), restarts=1).run([observation])
    with pytest.raises(ArithmeticError):
        GIz(steps_z=2, prior=small_prior, restarts=1).run([observation])
