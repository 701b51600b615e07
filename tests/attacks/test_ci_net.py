"""CI-Net against a plain loop with torch's own spectral norm, and its rules."""

import copy

import pytest
import torch
from torch.nn.functional import cosine_similarity, cross_entropy
from torch.nn.utils import spectral_norm

from attacks.ci_net import CINet
from priors.overparameterized import OverParameterized
from victims.errors import InputError
from victims.models.sigmoid_resnet10 import SigmoidResNet10
from victims.seeds import seed_of
from victims.victim import build

STEPS = 5


@pytest.mark.parametrize("cost", ["cosine", "squared_l2"])
@pytest.mark.parametrize("signed", [True, False])
def test_is_algorithm_1(cost, signed, capture):
    observation = capture(size=16, rate=None, model=SigmoidResNet10, training=True, dtype=torch.float64).observation
    victim, received = observation.victim, torch.cat([g.flatten() for g in observation.update.values()])
    model = copy.deepcopy(victim.model).train().requires_grad_(True)
    G = build(OverParameterized, width=32, size=16, seed=seed_of(0, "t", 0, "w")).double()
    for module in G.modules():
        if isinstance(module, torch.nn.Conv2d) and module.kernel_size == (3, 3):
            spectral_norm(module)
            module.weight_u.fill_(1)
    z = torch.randn(3, 128, generator=torch.Generator().manual_seed(seed_of(0, "t", 0))).double()
    adam, best, image = torch.optim.Adam(G.parameters(), lr=1e-3), torch.inf, None
    for _ in range(STEPS):
        x = (G(z) - victim.mean) / victim.std
        loss = cross_entropy(model(x), observation.knowledge.labels)
        g = torch.cat([t.flatten() for t in torch.autograd.grad(loss, list(model.parameters()), create_graph=True)])
        value = 1 - cosine_similarity(g, received, dim=0) if cost == "cosine" else (g - received).square().sum()
        if value.item() < best:
            best, image = value.item(), x.detach().clone()
        adam.zero_grad()
        value.backward(inputs=list(G.parameters()))
        if signed:
            for parameter in G.parameters():
                parameter.grad.sign_()
        adam.step()
    result = CINet(steps_w=STEPS, cost=cost, signed=signed, restarts=1).run([observation])
    assert result.cost.item() == pytest.approx(best, rel=1e-5)
    torch.testing.assert_close(result.images[0], image, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("batch", "width"), [(16, 32), (32, 32), (64, 64), (128, 128), (256, 128)])
def test_width_of_the_code_for_cifar(batch, width, capture):
    attack = CINet(steps_w=1, restarts=1)
    observation = capture((0,), size=32).observation
    attack.begin([observation])
    attack.session.observations = [type("Sized", (), {"batch_size": batch, "image_shape": (3, 32, 32)})()]
    assert attack.width() == width


def test_width_of_the_paper_outgrows_the_victim(capture):
    observation = capture((0,), model=SigmoidResNet10, training=True).observation
    victim = sum(p.numel() for p in observation.victim.parameters.values())
    attack = CINet(steps_w=1, restarts=1, wider_than="victim")
    attack.begin([observation])
    width = attack.width()
    assert 1_445_635 < victim < 5_250_563
    assert width == 256


def test_refuses_a_size_it_cannot_make(capture):
    with pytest.raises(InputError, match="--size") as refusal:
        CINet(restarts=1).begin([capture(size=24).observation])
    assert "\n" not in str(refusal.value)
