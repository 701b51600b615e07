"""Each method against a plain loop written from its paper: one restart, one task, no engine."""

import numpy as np
import pytest
import torch
from scipy.ndimage import median_filter
from torch.func import functional_call
from torch.nn import BatchNorm2d
from torch.nn.functional import cosine_similarity, cross_entropy
from torch.optim.lr_scheduler import MultiStepLR

from attacks.dlg import DLG, IDLG
from attacks.gias import GIAS
from attacks.gias_parts import GIw, GIz, GIzx
from attacks.ig import IG
from priors.stylegan2 import StyleGAN2
from victims.errors import InputError
from victims.models.resnet20 import ResNet20
from victims.seeds import seed_of

STEPS, TV = 40, 1e-2


def one_cosine(gradient, received):
    g, target = (torch.cat([t.flatten() for t in tensors]) for tensors in (gradient, received))
    return 1 - cosine_similarity(g, target, dim=0)


class Plain:
    """The victim, the received gradient and the objective, without the engine."""

    def __init__(self, observation, measure=one_cosine, tv=TV):
        self.model = observation.victim.model.requires_grad_(True)
        self.theta = list(self.model.parameters())
        self.received, self.measure, self.tv = list(observation.update.values()), measure, tv
        self.labels = observation.knowledge.labels
        self.mean, self.std = observation.victim.mean, observation.victim.std
        self.best, self.image = torch.inf, None

    def cost(self, x, loss):
        gradient = torch.autograd.grad(loss, self.theta, create_graph=True)
        masked = [g.where(sent != 0, 0) for g, sent in zip(gradient, self.received, strict=True)]  # it adapts
        cost = self.measure(masked, self.received)
        self.last = cost.item()
        if cost.item() < self.best:
            self.best, self.image = cost.item(), x.detach().clone()
        return cost

    def objective(self, x):
        cost = self.cost(x, cross_entropy(self.model(x), self.labels))
        tv = (x[..., 1:] - x[..., :-1]).abs().mean() + (x[..., 1:, :] - x[..., :-1, :]).abs().mean()
        return cost + self.tv * tv

    def box(self, x):
        x.data = torch.max(torch.min(x.data, (1 - self.mean) / self.std), -self.mean / self.std)


def drawn(*shape, salt=()):
    """The start of restart 0 of the task `t`."""
    generator = torch.Generator().manual_seed(seed_of(0, "t", 0, *salt))
    return torch.randn(shape, generator=generator).double().requires_grad_()


def minimize(variables, objective, lr, steps, before=lambda: None, after=lambda step: None):
    optimizer = torch.optim.Adam(variables, lr=lr)
    scheduler = MultiStepLR(optimizer, [int(steps * k / 8) for k in (3, 5, 7)], gamma=0.1)
    for step in range(steps):
        optimizer.zero_grad()
        objective().backward(inputs=variables)
        before()
        optimizer.step()
        scheduler.step()
        after(step)


@pytest.fixture
def observation(capture):
    return capture(dtype=torch.float64).observation


def agree(attack, plain, observation):
    result = attack.run([observation])
    assert result.cost.item() == pytest.approx(plain.best, rel=1e-5)
    torch.testing.assert_close(result.images[0], plain.image, rtol=1e-4, atol=1e-5)
    assert result.cost.item() < result.curve[0][1].item()  # it did get somewhere
    return result


def test_ig(observation):
    plain, x = Plain(observation), drawn(3, 3, 32, 32)
    minimize([x], lambda: plain.objective(x), 0.1, STEPS, lambda: x.grad.sign_(), lambda step: plain.box(x))
    agree(IG(steps=STEPS, tv=TV, restarts=1), plain, observation)


def squares(gradient, received):
    return sum(((g - sent) ** 2).sum() for g, sent in zip(gradient, received, strict=True))


def of_tensors(*numbers):
    """One cosine over the tensors of these numbers."""
    return lambda gradient, received: one_cosine(*([g[i] for i in numbers] for g in (gradient, received)))


def largest_tenth(gradient, received):
    kept = [s.abs() >= s.abs().flatten().sort().values[-max(1, s.numel() // 10)] for s in received]
    return one_cosine(*([t[k] for t, k in zip(tensors, kept, strict=True)] for tensors in (gradient, received)))


@pytest.mark.parametrize(
    ("options", "measure"),
    [
        ({"cost": "squared_l2"}, squares),
        ({"tensors": "last2"}, of_tensors(6, 7)),
        ({"tensors": "first3"}, of_tensors(0, 1, 2)),
        ({"compress": 0.9}, largest_tenth),
    ],
)
def test_ig_with_other_costs(options, measure, observation):
    plain, x = Plain(observation, measure), drawn(3, 3, 32, 32)
    minimize([x], lambda: plain.objective(x), 0.1, STEPS, lambda: x.grad.sign_(), lambda step: plain.box(x))
    agree(IG(steps=STEPS, tv=TV, restarts=1, **options), plain, observation)


def test_ig_uses_the_tensors_of_largest_norm(observation):
    order = np.argsort([-g.norm().item() for g in observation.update.values()])
    plain, x = Plain(observation, of_tensors(*order[:3])), drawn(3, 3, 32, 32)
    minimize([x], lambda: plain.objective(x), 0.1, STEPS, lambda: x.grad.sign_(), lambda step: plain.box(x))
    agree(IG(steps=STEPS, tv=TV, restarts=1, tensors="top3"), plain, observation)


def test_ig_unboxed_unsigned_with_a_median_filter(observation):
    """After steps 15 and 30; scipy's `mirror` is torch's reflect."""
    plain, x = Plain(observation), drawn(3, 3, 32, 32)

    def smooth(step):
        if (step + 1) % 15 == 0:
            x.data = torch.from_numpy(median_filter(x.detach().numpy(), size=(1, 1, 3, 3), mode="mirror"))

    minimize([x], lambda: plain.objective(x), 0.1, STEPS, after=smooth)
    agree(IG(steps=STEPS, tv=TV, restarts=1, boxed=False, signed=False, median_every=15), plain, observation)


@pytest.mark.parametrize(
    ("preset", "tv", "eta", "signed"),
    [
        ("gias", 1e-4, 0.1, False),
        ("gifd", 1e-4, 0.1, False),
        ("paper-fedavg", 1e-6, 1, True),
        ("code", 1e-4, 0.1, True),
    ],
)
def test_ig_as_it_was_run(preset, tv, eta, signed, observation):
    plain, x = Plain(observation, tv=tv), drawn(3, 3, 32, 32)
    sign = (lambda: x.grad.sign_()) if signed else (lambda: None)
    minimize([x], lambda: plain.objective(x), eta, STEPS, sign, lambda step: plain.box(x))
    agree(IG(**{**IG.presets[preset], "steps_x": STEPS, "restarts": 1}), plain, observation)


@pytest.mark.parametrize("options", [{"compress": 1.0}, {"compress": -0.1}, {"median_every": -1}, {"tensors": "some"}])
def test_ig_refuses_invalid_options(options):
    with pytest.raises(InputError, match=next(iter(options))) as refusal:
        IG(**options)
    assert "\n" not in str(refusal.value)


def one_call_of_lbfgs(variables, cost):
    """STEPS iterations in one call of torch's optimizer, where DLG's code calls it again every 20."""
    optimizer = torch.optim.LBFGS(variables, lr=1, max_iter=STEPS, max_eval=1000, tolerance_grad=0, tolerance_change=0)

    def closure():
        optimizer.zero_grad()
        value = cost()
        value.backward(inputs=variables)
        return value

    optimizer.step(closure)


@pytest.mark.parametrize("rate", [None, 0.5])
def test_dlg(rate, capture):
    observation = capture(rate=rate, dtype=torch.float64, give_labels=False).observation
    plain, x, y = Plain(observation, squares), drawn(3, 3, 32, 32), drawn(3, 10, salt=("labels",))
    seen = {}

    def cost():
        before, probabilities = plain.best, y.softmax(-1)
        value = plain.cost(x, -(probabilities * plain.model(x).log_softmax(-1)).sum(1).mean())
        if plain.best < before:
            seen["labels"] = probabilities.detach()
        return value

    one_call_of_lbfgs([x, y], cost)
    result = agree(DLG(steps=STEPS, restarts=1), plain, observation)
    torch.testing.assert_close(result.labels[0], seen["labels"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rate", [None, 0.5])
def test_idlg(rate, capture):
    task = capture((50,), rate=rate, dtype=torch.float64, give_labels=False)
    plain, x = Plain(task.observation, squares), drawn(1, 3, 32, 32)
    one_call_of_lbfgs([x], lambda: plain.cost(x, -plain.model(x).log_softmax(-1)[0, task.labels[0]]))
    result = agree(IDLG(steps=STEPS, restarts=1), plain, task.observation)
    assert torch.equal(result.labels[0], task.labels)


def test_idlg_gives_every_task_its_own_label(capture):
    tasks = [capture((index,), task=str(index)) for index in (3, 50, 90)]
    truth = torch.stack([task.labels for task in tasks])
    assert len(set(truth.flatten().tolist())) > 1
    result = IDLG(steps=2, restarts=2).run([task.observation for task in tasks])
    assert torch.equal(result.labels, truth)


def test_gi_z(observation, small_prior):
    plain, G = Plain(observation), small_prior.double()
    z = small_prior.draw(3, torch.Generator().manual_seed(seed_of(0, "t", 0)))["z"].double().requires_grad_()
    minimize([z], lambda: plain.objective((G({"z": z}) - plain.mean) / plain.std), 3e-2, STEPS)
    agree(GIz(steps=STEPS, tv=TV, eta_z=3e-2, prior=G, restarts=1), plain, observation)


@pytest.mark.parametrize("tensors", ["all", "top3"])
def test_gias(tensors, observation, small_prior):
    order = np.argsort([-g.norm().item() for g in observation.update.values()])
    measure = of_tensors(*order[:3]) if tensors == "top3" else one_cosine
    plain, G = Plain(observation, measure), small_prior.double()
    z = small_prior.draw(3, torch.Generator().manual_seed(seed_of(0, "t", 0)))["z"].double().requires_grad_()
    trail = {}

    def latent():
        before = plain.best
        value = plain.objective((G({"z": z}) - plain.mean) / plain.std)
        if plain.best < before:
            trail["z"] = z.detach().clone()
        return value

    minimize([z], latent, 3e-2, STEPS // 2)
    copies = [{n: p.clone().requires_grad_() for n, p in G.named_parameters()} for _ in range(3)]

    def parameters():
        images = [functional_call(G, w, ({"z": trail["z"][b : b + 1]},)) for b, w in enumerate(copies)]
        return plain.objective((torch.cat(images) - plain.mean) / plain.std)

    minimize([p for w in copies for p in w.values()], parameters, 1e-3, STEPS // 2)
    options = {"steps_z": STEPS // 2, "steps_w": STEPS // 2, "eta_z": 3e-2, "tv": TV, "tensors": tensors}
    agree(GIAS(prior=G, restarts=1, **options), plain, observation)


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


@pytest.mark.parametrize("method", [GIz, GIw, GIzx, GIAS])
def test_without_noise_in_the_generator_nothing_is_redrawn(method, observation, small_prior):
    G = small_prior.double()
    results = [method(steps=6, noise=noise, prior=G).run([observation]) for noise in ("fixed", "redrawn")]
    assert torch.equal(results[0].images, results[1].images)


@pytest.mark.parametrize(
    ("preset", "variation"),
    [
        ("paper", lambda d: d.abs().mean()),
        ("paper-literal", lambda d: d.square().sum()),
        ("code", lambda d: d.abs().mean()),
    ],
)
def test_the_variation_of_gias_presets(preset, variation, small_prior):
    x = torch.randn(2, 3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = [variation(one[..., 1:] - one[..., :-1]) + variation(one[..., 1:, :] - one[..., :-1, :]) for one in x]
    weight = {"code": 1e-6}.get(preset, 1e-4)
    found = GIAS(prior=small_prior, **GIAS.presets[preset]).penalty({}, x)
    torch.testing.assert_close(found, weight * torch.stack(expected))


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
    assert {preset.get("first_bn", 1) for preset in GIAS.presets.values()} == {1}
    assert len(norms) == len(known) > 1


def test_gias_refuses_an_invalid_choice_of_tensors(small_prior):
    with pytest.raises(InputError, match="firstK"):
        GIAS(prior=small_prior, tensors="some")


def test_gias_code_preset_continues_from_the_best_restart_only(observation, small_prior):
    attack = GIAS(steps_z=STEPS // 2, steps_w=STEPS // 2, prior=small_prior.double(), restarts=3, keep="best")
    result = attack.run([observation])
    assert result.gradient_evaluations == 3 * STEPS // 2 + STEPS // 2
    latents = GIz(steps=STEPS // 2, prior=small_prior, restarts=3)
    best = latents.run([observation])
    costs = [cost.item() for stage, cost in result.curve if stage == "z"]
    assert min(costs) == pytest.approx(best.cost.item(), rel=1e-6)
    first_w = next(cost.item() for stage, cost in result.curve if stage == "w")
    assert first_w == pytest.approx(best.cost.item(), rel=1e-6)
