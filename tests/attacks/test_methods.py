"""Each method against a plain loop written from its paper: one restart, one task, no engine."""

import pytest
import torch
from torch.func import functional_call
from torch.nn.functional import cosine_similarity, cross_entropy
from torch.optim.lr_scheduler import MultiStepLR

from attacks.gi_z import GIz
from attacks.gias import GIAS
from attacks.ig import IG
from victims.seeds import seed_of

STEPS, TV = 40, 1e-2


class Plain:
    """The victim, the received gradient and the objective, spelled out."""

    def __init__(self, observation):
        self.model = observation.victim.model.requires_grad_(True)
        self.theta = list(self.model.parameters())
        self.received = torch.cat([g.flatten() for g in observation.update.values()])
        self.labels = observation.knowledge.labels
        self.mean, self.std = observation.victim.mean, observation.victim.std
        self.best, self.image = torch.inf, None

    def objective(self, x):
        loss = cross_entropy(self.model(x), self.labels)
        g = torch.cat([t.flatten() for t in torch.autograd.grad(loss, self.theta, create_graph=True)])
        g = torch.where(self.received == 0, 0, g)  # the adapting attacker's mask
        cost = 1 - cosine_similarity(g, self.received, dim=0)
        if cost.item() < self.best:
            self.best, self.image = cost.item(), x.detach().clone()
        tv = (x[..., 1:] - x[..., :-1]).abs().mean() + (x[..., 1:, :] - x[..., :-1, :]).abs().mean()
        return cost + TV * tv


def minimise(variables, objective, lr, steps, before=lambda: None, after=lambda: None):
    optimiser = torch.optim.Adam(variables, lr=lr)
    scheduler = MultiStepLR(optimiser, [int(steps * k / 8) for k in (3, 5, 7)], gamma=0.1)
    for _ in range(steps):
        optimiser.zero_grad()
        objective().backward(inputs=variables)
        before()
        optimiser.step()
        scheduler.step()
        after()


@pytest.fixture
def observation(capture):
    return capture(dtype=torch.float64).observation


def agree(attack, plain, observation):
    result = attack.run([observation])
    assert result.cost.item() == pytest.approx(plain.best, rel=1e-5)
    torch.testing.assert_close(result.images[0], plain.image, rtol=1e-4, atol=1e-5)
    assert result.cost.item() < result.curve[0][1].item()  # it did get somewhere


def test_ig(observation):
    plain = Plain(observation)
    x = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(seed_of(0, "t", 0))).double()
    x.requires_grad_()

    def sign():
        x.grad.sign_()

    def box():
        x.data = torch.max(torch.min(x.data, (1 - plain.mean) / plain.std), -plain.mean / plain.std)

    minimise([x], lambda: plain.objective(x), 0.1, STEPS, sign, box)
    agree(IG(steps=STEPS, tv=TV, restarts=1), plain, observation)


def test_gi_z(observation, small_prior):
    plain, G = Plain(observation), small_prior.double()
    z = small_prior.draw(3, torch.Generator().manual_seed(seed_of(0, "t", 0))).double().requires_grad_()
    minimise([z], lambda: plain.objective((G(z) - plain.mean) / plain.std), 3e-2, STEPS)
    agree(GIz(steps=STEPS, tv=TV, eta_z=3e-2, prior=G, restarts=1), plain, observation)


def test_gias(observation, small_prior):
    plain, G = Plain(observation), small_prior.double()
    z = small_prior.draw(3, torch.Generator().manual_seed(seed_of(0, "t", 0))).double().requires_grad_()
    trail = {}

    def latent():
        before = plain.best
        value = plain.objective((G(z) - plain.mean) / plain.std)
        if plain.best < before:
            trail["z"] = z.detach().clone()
        return value

    minimise([z], latent, 3e-2, STEPS // 2)
    copies = [{n: p.clone().requires_grad_() for n, p in G.named_parameters()} for _ in range(3)]

    def parameters():
        images = [functional_call(G, w, (trail["z"][b : b + 1],)) for b, w in enumerate(copies)]
        return plain.objective((torch.cat(images) - plain.mean) / plain.std)

    minimise([p for w in copies for p in w.values()], parameters, 1e-3, STEPS // 2)
    agree(GIAS(steps_z=STEPS // 2, steps_w=STEPS // 2, eta_z=3e-2, tv=TV, prior=G, restarts=1), plain, observation)


def test_gias_code_preset_goes_on_from_the_best_restart_alone(observation, small_prior):
    attack = GIAS(steps_z=STEPS // 2, steps_w=STEPS // 2, prior=small_prior.double(), restarts=3, keep="best")
    result = attack.run([observation])
    assert result.gradient_evaluations == 3 * STEPS // 2 + STEPS // 2
    latents = GIz(steps=STEPS // 2, prior=small_prior, restarts=3)
    best = latents.run([observation])
    costs = [cost.item() for stage, cost in result.curve if stage == "z"]
    assert min(costs) == pytest.approx(best.cost.item(), rel=1e-6)
    first_w = next(cost.item() for stage, cost in result.curve if stage == "w")
    assert first_w == pytest.approx(best.cost.item(), rel=1e-6)
