"""CI-Net against a plain loop with torch's own spectral norm, and its rules."""

import copy

import pytest
import torch
from torch.nn.functional import cosine_similarity, cross_entropy
from torch.nn.utils import spectral_norm

from attacks.ci_net import CINet
from priors.overparameterized import OverParameterized
from tests.attacks.normed import Normed
from victims.errors import InputError, Notice
from victims.models.lenet import LeNet
from victims.models.sigmoid_resnet10 import SigmoidResNet10
from victims.modules import build
from victims.preprocessing import Preprocessing
from victims.seeds import seed_of
from victims.victim import Victim

STEPS = 5


@pytest.mark.parametrize("cost", ["cosine", "squared_l2"])
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("output", ["unit", "tanh"])
def test_is_algorithm_1_by_adam(cost, signed, output, capture):
    check_algorithm_1(capture, "adam", cost, signed, output)


@pytest.mark.parametrize(("signed", "eta"), [(True, 1e-3), (False, 1e-7)])
def test_is_algorithm_1_by_plain_descent(signed, eta, capture):
    check_algorithm_1(capture, "sgd", "squared_l2", signed, "unit", eta)


def check_algorithm_1(capture, optimizer, cost, signed, output, eta=1e-3):
    observation = capture(size=16, rate=None, model=Normed, training=True, dtype=torch.float64).observation
    victim, received = observation.victim, torch.cat([g.flatten() for g in observation.update.values()])
    model = copy.deepcopy(victim.model).train().requires_grad_(True)
    G = build(OverParameterized, width=32, size=16, seed=seed_of(0, "t", 0, "w")).double()
    for module in G.modules():
        if isinstance(module, torch.nn.Conv2d) and module.kernel_size == (3, 3):
            spectral_norm(module)
            module.weight_u.fill_(1)
    z = torch.randn(3, 128, generator=torch.Generator().manual_seed(seed_of(0, "t", 0))).double()
    adam, best, image = torch.optim.Adam(G.parameters(), lr=eta), torch.inf, None
    for _ in range(STEPS):
        pixels = G(z) if output == "tanh" else (G(z) + 1) / 2
        x = (pixels - victim.mean) / victim.std
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
        if optimizer == "adam":
            adam.step()
        else:
            for parameter in G.parameters():
                parameter.data -= eta * parameter.grad
    options = {"eta": eta, "optimizer": optimizer, "cost": cost, "signed": signed, "output": output}
    result = CINet(steps_w=STEPS, restarts=1, **options).run([observation])
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


@pytest.mark.parametrize(("size", "batch", "own", "code"), [(64, 27, 64, 128), (256, 6, 128, 256), (32, 64, 64, 64)])
def test_width_of_the_code_is_that_of_a_generator_of_32_px(size, batch, own, code, capture):
    for rule, width in {"images": own, "images_at_32px": code}.items():
        attack = CINet(steps_w=1, restarts=1, wider_than=rule)
        attack.begin([capture((0,), size=32).observation])
        attack.session.observations = [type("Sized", (), {"batch_size": batch, "image_shape": (3, size, size)})()]
        assert attack.width() == width


def test_pixels_of_the_code_are_tanh_and_clamped_where_they_are_scored(capture):
    found = CINet(steps_w=1, restarts=1, output="tanh").run([capture(size=16).observation])
    unclamped = capture(size=16).observation.victim.denormalize(found.images)
    assert -1 <= unclamped.min() < -0.1
    assert torch.equal(found.pixels, unclamped.clamp(0, 1))


def test_says_that_the_client_of_the_code_does_not_normalize(capture, recwarn):
    net = build(LeNet, image_shape=(3, 16, 16), num_classes=10, seed=0)
    normalized = {"mean": (0.5,) * 3, "std": (0.2,) * 3}
    as_it_is = Preprocessing((0.0,) * 3, (1.0,) * 3)
    for victim in (Victim(net, mean=(0,) * 3, std=(1,) * 3), Victim(net, **normalized, preprocessing=as_it_is)):
        CINet(restarts=1, output="tanh").prepare(capture(size=16, victim=victim).observation)
    normalizing = capture(size=16, victim=Victim(net, **normalized)).observation
    CINet(restarts=1).prepare(normalizing)
    assert not [w for w in recwarn if "--mean" in str(w.message)]
    with pytest.warns(Notice, match="--mean 0 --std 1") as said:
        CINet(restarts=1, output="tanh").prepare(normalizing)
    assert "\n" not in str(said[0].message)


def test_refuses_a_size_it_cannot_make(capture):
    with pytest.raises(InputError, match="--size") as refusal:
        CINet(restarts=1).begin([capture(size=24).observation])
    assert "\n" not in str(refusal.value)
