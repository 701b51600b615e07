"""GIAS and its parts against plain loops, and the noise of a generator that is drawn again in every step."""

import numpy as np
import pytest
import torch
from test_methods import STEPS, TV, Plain, agree, minimize, of_tensors, one_cosine
from torch.func import functional_call
from torch.nn import BatchNorm2d

from attacks.gias import GIAS
from attacks.gias_parts import GIw, GIz, GIzx
from priors.stylegan2 import StyleGAN2
from victims.errors import InputError
from victims.models.resnet20 import ResNet20
from victims.seeds import seed_of


@pytest.fixture
def observation(capture):
    return capture(dtype=torch.float64).observation


def test_gi_z(observation, small_prior):
    plain, G = Plain(observation), small_prior.double()
    latents_by_hand(plain, G, 3e-2, STEPS)
    agree(GIz(steps=STEPS, tv=TV, eta_z=3e-2, prior=G, restarts=1), plain, observation)


def latents_by_hand(plain, G, eta, steps):
    """A search of the latents of restart 0; returns those of the least cost."""
    z = small_start(G).requires_grad_()
    trail = {}

    def objective():
        before = plain.best
        value = plain.objective((G({"z": z}) - plain.mean) / plain.std)
        if plain.best < before:
            trail["z"] = z.detach().clone()
        return value

    minimize([z], objective, eta, steps)
    return trail["z"]


def parameters_by_hand(plain, G, z, eta, steps):
    """A search of a copy of the parameters for every image."""
    copies = [{n: p.clone().requires_grad_() for n, p in G.named_parameters()} for _ in range(3)]

    def objective():
        images = [functional_call(G, w, ({"z": z[b : b + 1]},)) for b, w in enumerate(copies)]
        return plain.objective((torch.cat(images) - plain.mean) / plain.std)

    minimize([p for w in copies for p in w.values()], objective, eta, steps)


def small_start(G):
    return G.draw(3, torch.Generator().manual_seed(seed_of(0, "t", 0)))["z"].double()


@pytest.mark.parametrize("tensors", ["all", "top3"])
def test_gias(tensors, observation, small_prior):
    order = np.argsort([-g.norm().item() for g in observation.update.values()])
    measure = of_tensors(*order[:3]) if tensors == "top3" else one_cosine
    plain, G = Plain(observation, measure), small_prior.double()
    z = latents_by_hand(plain, G, 3e-2, STEPS // 2)
    parameters_by_hand(plain, G, z, 1e-3, STEPS // 2)
    options = {"steps_z": STEPS // 2, "steps_w": STEPS // 2, "eta_z": 3e-2, "tv": TV, "tensors": tensors}
    agree(GIAS(prior=G, restarts=1, **options), plain, observation)


def test_gi_w(observation, small_prior):
    plain, G = Plain(observation), small_prior.double()
    parameters_by_hand(plain, G, small_start(G), 3e-3, STEPS)
    agree(GIw(steps=STEPS, tv=TV, eta_w=3e-3, prior=G, restarts=1), plain, observation)


def test_gi_zx(observation, small_prior):
    plain, G, half = Plain(observation), small_prior.double(), STEPS // 2
    z = latents_by_hand(plain, G, 3e-2, half)
    x = ((G({"z": z}) - plain.mean) / plain.std).requires_grad_()
    beyond = []

    def box(step):
        before = x.detach().clone()
        plain.box(x)
        beyond.append(not torch.equal(x, before))

    minimize([x], lambda: plain.objective(x), 0.3, half, after=box)
    assert any(beyond), "the box matters"
    options = {"steps_z": half, "steps_x": half, "eta_z": 3e-2, "eta_x": 0.3, "tv": TV}
    agree(GIzx(prior=G, restarts=1, **options), plain, observation)


@pytest.fixture
def noisy_prior():
    """A StyleGAN2 of 32 px whose noise has a strength."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        G = StyleGAN2(size=32, width=4, style_dim=4, layers_mapping=2).double().eval().requires_grad_(False)
    for name, parameter in G.named_parameters():
        if name.endswith("strength"):
            parameter.fill_(0.3)
    return G


def test_gias_redraws_the_noise_of_the_generator_in_every_step(observation, noisy_prior):
    plain, G, half = Plain(observation), noisy_prior, STEPS // 2
    start = G.draw(3, torch.Generator().manual_seed(seed_of(0, "t", 0)))
    noise = {name: tensor.double() for name, tensor in start.items() if name.startswith("noise")}
    w, trail = start["w"].double().requires_grad_(), {}

    def again(stage):
        def after(step):
            for name, tensor in noise.items():
                generator = torch.Generator().manual_seed(seed_of(0, "t", 0, stage, step + 1, name))
                noise[name] = torch.randn(tensor.shape, generator=generator).double()

        return after

    def latent():
        before = plain.best
        value = plain.objective((G({"w": w, **noise}) - plain.mean) / plain.std)
        if plain.best < before:
            trail["w"] = w.detach().clone()
        return value

    minimize([w], latent, 3e-2, half, after=again("z"))
    copies = [{n: p.clone().requires_grad_() for n, p in G.named_parameters()} for _ in range(3)]

    def parameters():
        state = {"w": trail["w"], **noise}
        states = [{name: tensor[b : b + 1] for name, tensor in state.items()} for b in range(3)]
        images = [functional_call(G, copy, (one,)) for copy, one in zip(copies, states, strict=True)]
        return plain.objective((torch.cat(images) - plain.mean) / plain.std)

    minimize([p for copy in copies for p in copy.values()], parameters, 1e-3, half, after=again("w"))
    attack = GIAS(steps_z=half, steps_w=half, tv=TV, noise="redrawn", prior=G, restarts=1)
    agree(attack, plain, observation)


@pytest.mark.parametrize("method", [GIz, GIw, GIzx, GIAS])
def test_noise_redrawn_does_not_depend_on_group_or_chunk(method, capture, noisy_prior):
    observations = [capture(task=task, dtype=torch.float64).observation for task in "tu"]

    def curve(observations, noise="redrawn", **options):
        result = method(steps=6, restarts=2, prior=noisy_prior, noise=noise, **options).run(observations)
        return torch.stack([cost for _, cost in result.curve])

    together = curve(observations)
    torch.testing.assert_close(curve(observations, chunk=1), together)
    torch.testing.assert_close(curve(observations[1:]), together[:, 1:])
    fixed = curve(observations, "fixed")
    assert torch.equal(fixed[0], together[0])  # the start is the same
    assert not torch.allclose(fixed[1:], together[1:])


@pytest.mark.parametrize("noise", ["fixed", "redrawn"])
def test_gi_zx_starts_its_pixels_from_the_images_that_cost_least(noise, observation, noisy_prior):
    curve = GIzx(steps_z=8, steps_x=1, noise=noise, prior=noisy_prior, restarts=1).run([observation]).curve
    *latents, pixels = [cost.item() for _, cost in curve]
    assert [name for name, _ in curve][-2:] == ["z", "x"]
    assert min(latents) != latents[-1] or noise == "fixed", "noise that is redrawn last costs more here"
    assert pixels == pytest.approx(min(latents), rel=1e-9)


@pytest.mark.parametrize("method", [GIz, GIw, GIzx, GIAS])
def test_without_noise_in_the_generator_nothing_is_redrawn(method, observation, small_prior):
    G = small_prior.double()
    results = [method(steps=6, noise=noise, prior=G).run([observation]) for noise in ("fixed", "redrawn")]
    assert torch.equal(results[0].images, results[1].images)


@pytest.mark.parametrize(
    ("preset", "variation"),
    [
        ("paper", lambda d: d.abs().mean()),
        ("paper-literal", lambda d: 2 * d.square().sum()),  # each of two neighbors has the other among its own
        ("code", lambda d: d.abs().mean()),
    ],
)
def test_the_variation_of_gias_presets(preset, variation, small_prior):
    x = torch.randn(2, 3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = [variation(one[..., 1:] - one[..., :-1]) + variation(one[..., 1:, :] - one[..., :-1, :]) for one in x]
    weight = {"code": 1e-6}.get(preset, 1e-4)
    found = GIAS(prior=small_prior, **GIAS.presets[preset]).penalty({}, x)
    torch.testing.assert_close(found, weight * torch.stack(expected))


def test_paper_presets_share_their_latent_search(small_prior):
    """Figure 1 and appendix G."""
    made = [method(prior=small_prior, **method.presets["paper"]) for method in (GIAS, GIz, GIzx)]
    assert {(attack.plan["z"], attack.eta_z, attack.tv, attack.restarts) for attack in made} == {(1500, 3e-2, 1e-4, 4)}


@pytest.mark.parametrize("first", [1, 10])
def test_gias_weighs_the_first_batch_norm_layer(first, capture, small_prior):
    observation = capture(model=ResNet20, rate=None, bn="exact").observation
    model, known = observation.victim.model, observation.knowledge.statistics
    x = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    norms = []

    def distance(name):
        def hook(module, inputs):
            flat = inputs[0].transpose(0, 1).flatten(1)
            mean, variance = known[name]
            norms.append((flat.mean(1) - mean).norm() + (flat.var(1, correction=0) - variance).norm())

        return hook

    hooks = [m.register_forward_pre_hook(distance(n)) for n, m in model.named_modules() if isinstance(m, BatchNorm2d)]
    model(x)
    for hook in hooks:
        hook.remove()
    attack = GIAS(prior=small_prior, tv=0.0, alpha_bn=0.5, first_bn=first, restarts=1)
    attack.begin([observation])
    found = attack.penalty({f"bn {name}": statistics[None] for name, statistics in known.items()}, x[None])
    torch.testing.assert_close(found, 0.5 * (first * norms[0] + sum(norms[1:]))[None])
    assert (GIAS.presets["code"]["alpha_bn"], GIAS.presets["code"]["first_bn"]) == (1e-4, 10)  # of its options and loss
    assert len(norms) == len(known) > 1


def test_gias_refuses_an_invalid_choice_of_tensors(small_prior):
    with pytest.raises(InputError, match="firstK"):
        GIAS(prior=small_prior, tensors="some")


@pytest.mark.parametrize(("method", "second"), [(GIAS, "w"), (GIzx, "x")])
def test_code_presets_continue_from_the_best_restart_only(method, second, observation, small_prior):
    assert method.presets["code"]["keep"] == "best"
    steps = {"steps_z": STEPS // 2, f"steps_{second}": STEPS // 2}
    attack = method(**steps, prior=small_prior.double(), restarts=3, keep="best")
    result = attack.run([observation])
    assert result.gradient_evaluations == 3 * STEPS // 2 + STEPS // 2
    latents = GIz(steps=STEPS // 2, prior=small_prior, restarts=3)
    best = latents.run([observation])
    costs = [cost.item() for stage, cost in result.curve if stage == "z"]
    assert min(costs) == pytest.approx(best.cost.item(), rel=1e-6)
    first = next(cost.item() for stage, cost in result.curve if stage == second)
    assert first == pytest.approx(best.cost.item(), rel=1e-6)
