"""CI-Net's generator against torch's own spectral norm and the published parameter counts."""

import copy

import pytest
import torch
from torch.nn.utils import spectral_norm

from priors.overparameterized import (
    SIZES,
    OverParameterized,
    generate,
    parameter_count,
    power_start,
    power_step,
)


@pytest.mark.parametrize(
    ("width", "published"), [(32, 140e3), (64, 428e3), (128, 1.45e6), (256, 5.25e6), (512, 19.9e6)]
)
def test_parameters_at_32_pixels_are_those_published(width, published):
    assert parameter_count(width, 32) == pytest.approx(published, rel=4e-3)


@pytest.mark.parametrize("size", SIZES)
def test_every_size_gives_images_in_the_range_of_tanh(size):
    net = OverParameterized(width=8, size=size)
    with torch.no_grad():
        images = net(torch.randn(2, 128))
    assert images.shape == (2, 3, size, size)
    assert -1 <= images.min() < 0 < images.max() <= 1


def test_channels_are_halved_at_64_and_quartered_above():
    maps = {}
    net = OverParameterized(width=16, size=256)
    for layer in net.body:
        layer.register_forward_hook(lambda _, __, h: maps.update({h.shape[-1]: h.shape[1]}))
    net(torch.randn(1, 128))
    # the last layer at a side is the up-sampling of the block before, for all but the widest: read block outputs
    convolutions = [m for m in net.body if isinstance(m, torch.nn.Conv2d)]
    assert [c.out_channels for c in convolutions[1::2]] == [16, 16, 16, 16, 8, 4, 4]
    assert list(maps) == [4, 8, 16, 32, 64, 128, 256]


def test_images_and_gradients_are_those_of_torch_spectral_norm_over_several_steps():
    torch.manual_seed(0)
    net = OverParameterized(width=6, size=16).double()
    oracle = copy.deepcopy(net).train()
    for module in oracle.modules():
        if isinstance(module, torch.nn.Conv2d) and module.kernel_size == (3, 3):
            spectral_norm(module)
            module.weight_u.fill_(1)
    z = torch.randn(3, 128, dtype=torch.float64)
    w = {name: p.detach()[None].clone() for name, p in net.named_parameters()}
    power = power_start(net, w)
    for _ in range(4):
        for tensor in w.values():
            tensor.requires_grad_()
        ours, theirs = generate(net, w, power, z[None])[0], oracle(z)
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)
        gradients = dict(zip(w, torch.autograd.grad(ours.square().sum(), list(w.values())), strict=True))
        oracle.zero_grad()
        theirs.square().sum().backward()
        for name, parameter in oracle.named_parameters():
            torch.testing.assert_close(gradients[name.removesuffix("_orig")][0], parameter.grad, rtol=1e-7, atol=1e-9)
            parameter.data -= 0.1 * parameter.grad
        w = {name: (w[name] - 0.1 * gradients[name]).detach() for name in w}
        power_step(net, w, power)


def test_runs_do_not_affect_each_other():
    nets = [OverParameterized(width=4, size=16) for _ in range(2)]
    w = {name: torch.stack([dict(n.named_parameters())[name].detach() for n in nets]) for name in nets[0].state_dict()}
    z = torch.randn(2, 3, 128)
    together = generate(nets[0], w, power_start(nets[0], w), z)
    for run in range(2):
        alone = {name: tensor[run : run + 1] for name, tensor in w.items()}
        image = generate(nets[0], alone, power_start(nets[0], alone), z[run : run + 1])
        torch.testing.assert_close(together[run], image[0], rtol=1e-4, atol=1e-5)
