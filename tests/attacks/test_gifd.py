"""GIFD against plain loops written from its paper, and each of its parts alone."""

import itertools
import math

import pytest
import torch
from test_methods import Plain, agree

from attacks import gifd
from attacks.engine.schedules import ramps
from attacks.ggl import GGL
from attacks.gias import GIAS
from attacks.gifd import GIFD, Radii
from priors.biggan import BigGAN
from priors.stylegan2 import StyleGAN2
from victims.seeds import seed_of

EACH = 8  # steps of a phase
PHASES = ["z", "f1", "f2", "f3"]


@pytest.fixture
def observation(capture):
    return capture(dtype=torch.float64).observation


@pytest.fixture
def make(small_prior):
    def make(**options):
        return GIFD(**{"steps_each": EACH, "prior": small_prior.double(), "restarts": 1, **options})

    return make


def into_l1_ball(d, radius):
    """By bisection on the threshold, for one vector."""
    if d.abs().sum() <= radius:
        return d
    low, high = 0.0, d.abs().max().item()
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if (d.abs() - middle).clamp_min(0).sum() > radius else (low, middle)
    return d.sign() * (d.abs() - high).clamp_min(0)


def written_out(G, plain, variant, ball=0.1):
    """The published phases, one image batch, plain autograd and torch's Adam; returns the cost by phase."""
    z = G.draw(3, torch.Generator().manual_seed(seed_of(0, "t", 0)))["z"].double()
    lengths, h, least = z.norm(dim=1), z, []
    for k in range(1 if variant == "z" else len(G.blocks)):
        if k:
            if k == 1:
                h = h[:, :, None, None]
            block = G.blocks[k - 1]
            h = torch.nn.Sequential.forward(block, h).detach() if k < len(G.blocks) else h
        center, rest = h.clone(), G.blocks[k:]
        h = h.clone().requires_grad_()
        adam, best, costs = torch.optim.Adam([h]), (torch.inf, h), []
        for step in range(EACH):
            t = (step + 1) / (EACH + 1)
            ramp = min(1, t / 0.05) * (0.5 - 0.5 * math.cos(math.pi * min(1, (1 - t) / 0.75)))
            adam.param_groups[0]["lr"] = 0.1 * ramp
            adam.zero_grad()
            pixels = h
            for block in rest:
                pixels = block(pixels)
            x = (pixels - plain.mean) / plain.std
            if variant == "f":
                plain.best = torch.inf  # the last image counts
            (plain.objective(x) + 1e-6 * x.norm() / 32**2).backward(inputs=[h])
            costs.append(plain.last)
            if variant == "f" or costs[-1] < best[0]:
                best = costs[-1], h.detach().clone()
            adam.step()
            with torch.no_grad():
                for b in range(len(h)):
                    if k == 0:
                        h[b] *= lengths[b] / h[b].norm()
                    elif variant == "full":
                        h[b] = center[b] + into_l1_ball(h[b] - center[b], ball * center[b].abs().sum())
        least.append(min(costs))
        h = best[1]
    return least


@pytest.mark.parametrize("variant", ["full", "e", "f", "z"])
def test_gifd_equals_the_phases_in_a_plain_loop(observation, make, small_prior, variant):
    plain, G = Plain(observation), small_prior.double()
    least = written_out(G, plain, variant)
    result = agree(make(variant=variant, tv=1e-2, ball=0.1), plain, observation)
    by_phase = {name: min(c.item() for n, c in result.curve if n == name) for name in PHASES[: len(least)]}
    assert list(by_phase.values()) == pytest.approx(least, rel=1e-5)


def test_a_phase_starts_from_the_best_image_of_the_phase_before(observation, make):
    curve = make().run([observation]).curve
    for before, after in itertools.pairwise(PHASES):
        costs = [cost.item() for name, cost in curve if name == before]
        first = next(cost.item() for name, cost in curve if name == after)
        assert first == pytest.approx(min(costs), rel=1e-9)


def test_the_image_returned_is_the_best_of_all_phases_or_the_last(observation, make, monkeypatch):
    """With a learning rate that makes the last phase diverge after its first step."""
    monkeypatch.setattr(gifd, "ramps", lambda step, steps: 1.0)
    for variant, chosen in {"e": torch.min, "f": lambda costs: costs[-1]}.items():
        result = make(variant=variant, eta=3.0).run([observation])
        costs = torch.stack([cost for _, cost in result.curve])[:, 0]
        assert result.cost.item() == pytest.approx(chosen(costs).item())
        assert costs[-1] > 1.1 * costs.min(), "otherwise both would return the same"


def steps_of(attack, observation):
    """(phase, name, its start, its value) after every step within a phase."""
    attack.begin([observation])
    for _ in range(sum(attack.plan.values())):
        stage = attack.session.stage
        attack.advance()
        if attack.session.stage is stage:
            for name, v in attack.session.variables.items():
                yield stage.name, name, stage.variables[name], v


@pytest.mark.parametrize("radii", [Radii(()), Radii("5,1,3")], ids=["share", "stated"])
def test_balls_and_spheres_hold_after_every_step(observation, make, radii):
    touched = 0
    for phase, name, center, moved in steps_of(make(eta=1.0, ball=0.05, radii=radii, restarts=2), observation):
        if name == "z":
            torch.testing.assert_close(moved.norm(dim=-1), center.norm(dim=-1))
            continue
        used = (moved - center).flatten(2).abs().sum(2)
        allowed = 0.05 * center.flatten(2).abs().sum(2)
        if radii:
            allowed = torch.full_like(used, {"f1": 5, "f2": 1, "f3": 3}[phase])
        assert (used <= allowed * (1 + 1e-9)).all()
        touched += int((used > 0.999 * allowed).sum())
    assert touched > 0, "some ball was reached"


@pytest.fixture
def stylegan2():
    torch.manual_seed(0)
    prior = StyleGAN2(size=32, width=6, style_dim=5, layers_mapping=2).double().eval().requires_grad_(False)
    for name, parameter in prior.named_parameters():
        if name.endswith("strength"):
            parameter.fill_(0.3)  # 0 in a new one, which has no noise
    return prior


def test_latents_and_noise_maps_of_stylegan2_stay_in_balls_of_their_own(observation, stylegan2):
    """The radius of a phase is the l1 norm, of all layers' latents of an image together and of each of its maps."""
    radii, latent_radii = {"f1": 5, "f2": 1, "f3": 3}, {"z": 0.5, "f1": 0.2, "f2": 0.4, "f3": 0.1}
    attack = GIFD(prior=stylegan2, steps_each=EACH, eta=1.0, radii=Radii("5,1,3"),
                  latent_radii=Radii("0.5,0.2,0.4,0.1"), restarts=2)  # fmt: skip
    touched = set()
    for phase, name, center, v in steps_of(attack, observation):
        used = (v - center).flatten(2).abs().sum(2)
        allowed = radii[phase] if name == "h" else latent_radii[phase]
        assert (used <= allowed * (1 + 1e-9)).all(), (phase, name)
        if (used > 0.999 * allowed).any():
            touched.add((phase, name.rstrip("0123456789")))
    assert touched >= {(phase, name) for phase in PHASES for name in ("w", "noise")} | {(phase, "h") for phase in radii}


def test_without_balls_latents_of_every_layer_and_noise_maps_stay_on_their_spheres(observation, stylegan2):
    seen = set()
    for phase, name, center, v in steps_of(GIFD(prior=stylegan2, steps_each=EACH, variant="e", eta=1.0), observation):
        if name == "w":
            torch.testing.assert_close(v.norm(dim=-1), center.norm(dim=-1))
        elif name != "h":
            torch.testing.assert_close(v.square().sum((3, 4)), center.square().sum((3, 4)))
        assert not torch.equal(v, center)
        seen.add((phase, name.rstrip("0123456789")))
    assert seen >= {(phase, name) for phase in PHASES for name in ("w", "noise")}


def test_radii_are_read_and_the_last_one_holds_for_later_phases():
    assert Radii("2000,2500") == Radii([2000, 2500.0])
    assert [Radii("2000,2500").of(k) for k in range(3)] == [2000, 2500, 2500]
    assert [GIFD.presets["paper"]["radii"].of(k) for k in range(9)] == [*range(2000, 6001, 500)]


def test_the_phases_and_radii_of_the_codes_presets():
    """Its lists have a radius for every phase; of the features', the one of phase 0 is not used."""
    biggan = [1000, 2000, 2500, 3000, 3500, 4000, 4500, 5000, 5500, 6000, 6500, 7000, 7500]
    stylegan2 = [1000, 2000, 3000, 4000, 5000, 6000, 8000, 8000]
    with torch.device("meta"):
        generators = {"code": BigGAN(size=256), "code-stylegan2": StyleGAN2(size=1024)}
    for (preset, generator), radii in zip(generators.items(), (biggan, stylegan2), strict=True):
        attack = GIFD(prior=generator, **GIFD.presets[preset])
        assert list(attack.plan) == ["z", *(f"f{k}" for k in range(1, len(radii)))]
        assert set(attack.plan.values()) == {1000}
        assert list(attack.radii) == radii[1:]
    assert list(attack.latent_radii) == stylegan2
    assert type(generators["code"].blocks[8]).__name__ == "Attention", "the code counts it as a layer"
    assert len(generators["code"].blocks) == 13 + 1, "the code's layers, and what it has after them"


@pytest.mark.parametrize("preset", ["paper-stylegan2", "code-stylegan2"])
def test_stylegan2_is_searched_as_published_from_the_gaussian_start(observation, stylegan2, preset):
    """In phase k: features, W+, and the noise maps from 2k - 1 that are below 5 + 2k. In the code, the image of phase k
    is the sum of the colors of block k and later."""
    prior = stylegan2
    attack = GIFD(prior=prior, **{**GIFD.presets[preset], "steps_each": 2, "restarts": 1})
    attack.begin([observation])
    generator = torch.Generator().manual_seed(seed_of(0, "t", 0))
    drawn = {name: tensor.double() for name, tensor in prior.draw_gaussian(3, generator).items()}
    for k, phase in enumerate(PHASES):
        stage = attack.session.stage
        assert stage.name == phase
        if k == 0:
            assert all(torch.equal(v[0], drawn[name]) for name, v in stage.variables.items())
        maps = {f"noise{i}" for i in range(max(0, 2 * k - 1), min(5 + 2 * k, 7))}
        assert stage.variables.keys() == {"w", *(["h"] if k else []), *maps}
        state = {name: v[0].clone() for name, v in {**stage.fixed, **stage.variables}.items()}
        h, skip = state.get("h"), None if preset == "code-stylegan2" else state.get("skip")
        for j in range(k, 4):
            h, colors = by_hand(prior, j, h, state)
            skip = colors if skip is None else prior.blocks[j].fir.upsample(skip) + colors
        image = observation.victim.normalize((skip + 1) / 2)
        torch.testing.assert_close(stage.decode({**stage.fixed, **stage.variables})[0], image)
        attack.advance()
        attack.advance()


def by_hand(prior, j, h, state):
    """The features behind block j, and its own colors."""
    block, w = prior.blocks[j], state["w"]
    h = prior.const.expand(len(w), -1, -1, -1) if j == 0 else h
    for i, conv in zip(range(max(0, 2 * j - 1), 2 * j + 1), block.convs, strict=True):
        h = conv(h, w[:, i], state[f"noise{i}"])
    return h, block.to_rgb(h, w[:, 2 * j + 1])


@pytest.mark.parametrize("method", [GIAS, GGL])
def test_others_as_gifds_authors_ran_them_start_from_the_same_gaussian(capture, method):
    observation = capture().observation
    torch.manual_seed(0)
    prior = StyleGAN2(size=32, width=6, style_dim=5, layers_mapping=2).eval().requires_grad_(False)
    attack = method(prior=prior, **{**method.presets["gifd-stylegan2"], "restarts": 1})
    attack.begin([observation])
    w = prior.draw_gaussian(3, torch.Generator().manual_seed(seed_of(0, "t", 0)))["w"]
    assert torch.equal(attack.session.stage.variables["w"][0], w)


def test_a_prior_without_a_mapping_network_starts_from_its_own_latents(observation, make):
    starts = []
    for start in ("drawn", "gaussian"):
        attack = make(start=start)
        attack.begin([observation])
        starts.append(attack.session.variables["z"])
    assert torch.equal(*starts)


def test_the_number_of_layers_is_at_most_the_generators(make):
    assert list(make().plan) == PHASES
    assert list(make(layers=2).plan) == PHASES[:3]
    assert list(make(layers=9).plan) == PHASES
    assert list(make(variant="z").plan) == ["z"]


def test_ramps_by_hand():
    assert ramps(0, 99) == pytest.approx(0.01 / 0.05)
    assert ramps(9, 99) == pytest.approx(1)
    assert ramps(24, 99) == pytest.approx(1)
    assert ramps(62, 99) == pytest.approx(0.5 - 0.5 * math.cos(math.pi * 0.37 / 0.75))
    assert 0 < ramps(98, 99) < 0.001
    assert ramps(49, 99, down=0.25) == 1
