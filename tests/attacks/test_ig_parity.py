"""IG against the same recipe in plain PyTorch, on CIFAR-10 test images: the same PSNR.

In double precision. In single precision the two diverge, as any two correct implementations do: where the sign of a
gradient depends on the last digit, signed Adam steps the other way, and after 600 steps an image differed by up to
1.3 dB.
"""

import pytest
import torch
from torch.nn.functional import cosine_similarity, cross_entropy
from torch.optim.lr_scheduler import MultiStepLR

from attacks.ig import IG
from benchmark.scoring.metrics import psnr
from benchmark.scoring.score import assign
from benchmark.tasks.batches import draw_batches
from benchmark.tasks.capture import Client, capture_task
from tests.conftest import SHARED
from victims.data.cifar10 import CIFAR10
from victims.models.convnet import ConvNet
from victims.modules import build
from victims.seeds import seed_of
from victims.victim import Victim

STEPS, TV = 300, 1e-4


def recipe(observation):
    """Geiping et al.: signed Adam, cosine + TV, boxed, the image of least cosine."""
    victim, labels = observation.victim, observation.knowledge.labels
    theta = list(victim.model.requires_grad_(True).parameters())
    received = torch.cat([g.flatten() for g in observation.update.values()])
    generator = torch.Generator().manual_seed(seed_of(0, observation.task, 0))
    x = torch.randn(observation.batch_size, 3, 32, 32, generator=generator).double().requires_grad_()
    optimizer = torch.optim.Adam([x], lr=0.1)
    scheduler = MultiStepLR(optimizer, [int(STEPS * k / 8) for k in (3, 5, 7)], gamma=0.1)
    least, image = torch.inf, None
    for _ in range(STEPS):
        optimizer.zero_grad()
        gradient = torch.autograd.grad(cross_entropy(victim.model(x), labels), theta, create_graph=True)
        cost = 1 - cosine_similarity(torch.cat([g.flatten() for g in gradient]), received, dim=0)
        if cost.item() < least:
            least, image = cost.item(), x.detach().clone()
        tv = (x[..., 1:] - x[..., :-1]).abs().mean() + (x[..., 1:, :] - x[..., :-1, :]).abs().mean()
        (cost + TV * tv).backward(inputs=[x])
        x.grad.sign_()
        optimizer.step()
        scheduler.step()
        x.data = torch.max(torch.min(x.data, (1 - victim.mean) / victim.std), -victim.mean / victim.std)
    return image


@pytest.mark.shared
@pytest.mark.skipif(not (SHARED / "data" / "cifar10" / "test").is_dir(), reason="needs ../shared/data/cifar10/test")
@pytest.mark.parametrize("size", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_ig_has_the_score_of_the_plain_recipe(size):
    data = CIFAR10(split="test", data_dir=SHARED / "data")
    net = build(ConvNet, image_shape=(3, 32, 32), num_classes=10, seed=0).double()
    victim = Victim(net, mean=data.mean, std=data.std)
    (batch,) = draw_batches(data, "cifar10-test-32px", batch_size=size, tasks=1)
    task = capture_task(victim, data, batch, Client())

    def scores(images):
        pixels = victim.denormalize(images).clamp(0, 1)
        return psnr(pixels[assign(pixels, task.images)], task.images)

    ours = scores(IG(steps=STEPS, tv=TV, restarts=1).run([task.observation]).images[0])
    torch.testing.assert_close(ours, scores(recipe(task.observation)), rtol=0, atol=0.3)
    assert ours.mean() > 12  # the mean image scores about 11
