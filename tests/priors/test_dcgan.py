"""DCGAN against the paper's layers written out, and its search spaces against plain modules in a loop."""

import itertools
from copy import deepcopy

import pytest
import torch
from scipy.stats import kstest
from torch import nn
from torch.nn.functional import batch_norm, conv2d, conv_transpose2d, interpolate, relu

from benchmark.check.small import small_task
from priors.base import decode, decode_each, shrink
from priors.by_name import find
from priors.dcgan import DCGAN, Discriminator
from tests.conftest import SHARED
from victims.errors import InputError
from victims.modules import build

R, B = 2, 3


def trained_looking(seed, **options):
    """A generator in float64 whose batch-norm statistics and weights are away from where they start."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        prior = DCGAN(**options).double().eval().requires_grad_(False)
        for name, tensor in prior.state_dict().items():
            if name.endswith(("conv.weight", ".0.weight")):
                tensor.mul_(10)
            elif name.endswith("running_var"):
                tensor.uniform_(0.5, 2)
            elif name.endswith(("running_mean", "bias")):
                tensor.normal_(0, 0.3)
    return prior


@pytest.fixture
def prior():
    return trained_looking(0, nz=5, ngf=4)


@pytest.fixture
def z():
    """(R, B, nz)"""
    return torch.randn(R, B, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.fixture
def others(prior):
    """R x B generators of the same statistics with parameters of their own, and those stacked as w."""
    copies = [[deepcopy(prior) for _ in range(B)] for _ in range(R)]
    generator = torch.Generator().manual_seed(2)
    for copy in (copy for row in copies for copy in row):
        for parameter in copy.parameters():
            parameter.mul_(1 + 0.2 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return copies, {name: stack(copies, name) for name, _ in prior.named_parameters()}


def stack(copies, name):
    return torch.stack([torch.stack([copy.get_parameter(name) for copy in row]) for row in copies])


def shared(prior):
    """The prior's own parameters as w, (R, B, *shape)."""
    return {name: p.expand(R, B, *p.shape).clone() for name, p in prior.named_parameters()}


# The architecture: nz 100, ngf 64, 4 -> 8 -> 16 -> 32 transposed convolutions, BN + ReLU, tanh.


def test_parameters_counted_by_hand():
    kernels = 4 * 4 * (100 * 256 + 256 * 128 + 128 * 64 + 64 * 3)
    batch_norms = 2 * (256 + 128 + 64)
    prior = DCGAN()
    assert sum(p.numel() for p in prior.parameters()) == kernels + batch_norms == 1_068_928
    assert prior.draw(1, torch.Generator())["z"].shape == (1, 100)
    assert prior.image_shape == (3, 32, 32)


def test_features_between_the_blocks():
    prior, state = DCGAN().eval(), {"z": torch.zeros(2, 100)}
    shapes = []
    for block in range(len(prior.blocks)):
        state = prior.advance(state, block, block + 1)
        shapes.append(tuple(state["h"].shape))
    assert shapes == [(2, 256, 4, 4), (2, 128, 8, 8), (2, 64, 16, 16), (2, 3, 32, 32)]


def test_initial_weights_are_those_of_the_paper():
    torch.manual_seed(0)
    for net in (DCGAN(), Discriminator()):
        kernels = torch.cat([p.flatten() for p in net.parameters() if p.ndim == 4])
        scales = torch.cat([p for name, p in net.named_parameters() if p.ndim == 1 and name.endswith("weight")])
        shifts = torch.cat([p for name, p in net.named_parameters() if name.endswith("bias")])
        assert kernels.std().item() == pytest.approx(0.02, rel=0.01)
        assert kernels.mean().item() == pytest.approx(0, abs=1e-4)
        assert scales.std().item() == pytest.approx(0.02, rel=0.15)
        assert scales.mean().item() == pytest.approx(1, abs=0.005)
        assert not shifts.any()


@pytest.mark.parametrize("options", [{}, {"nz": 5, "ngf": 4}], ids=str)
def test_images_are_the_papers_formula(options):
    """Transposed 4x4 convolutions, inference batch normalization, ReLU; tanh, moved to [0, 1]."""
    prior = trained_looking(3, **options)
    z = prior.draw(2, torch.Generator().manual_seed(0))["z"].double()
    kernels = [t for t in prior.state_dict().values() if t.ndim == 4]
    vectors = [t for t in prior.state_dict().values() if t.ndim == 1]
    h = z[:, :, None, None]
    for layer, kernel in enumerate(kernels[:3]):
        scale, shift, mean, var = vectors[4 * layer : 4 * layer + 4]
        h = conv_transpose2d(h, kernel, stride=1 if layer == 0 else 2, padding=0 if layer == 0 else 1)
        h = relu(batch_norm(h, mean, var, scale, shift, eps=1e-5))
    expected = 0.5 + 0.5 * torch.tanh(conv_transpose2d(h, kernels[3], stride=2, padding=1))
    torch.testing.assert_close(prior({"z": z}), expected)


@pytest.mark.parametrize("scale", [1, 1e3])
def test_images_lie_in_0_1(scale):
    prior = trained_looking(4)
    images = prior({"z": scale * prior.draw(4, torch.Generator().manual_seed(0))["z"].double()})
    assert images.shape == (4, 3, 32, 32)
    assert images.min() >= 0
    assert images.max() <= 1
    assert images.std() > 0.01


# Latents.


def test_latents_are_standard_normal_and_depend_only_on_the_generator():
    prior = DCGAN()
    before = torch.get_rng_state()
    first, again, other = (prior.draw(50, torch.Generator().manual_seed(seed))["z"] for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert first.shape == (50, 100)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert kstest(first.flatten().numpy(), "norm").pvalue > 1e-3


# Features by layer.


@pytest.mark.parametrize("block", range(1, 5))
def test_the_chain_can_be_split_at_any_block(prior, z, block):
    state = {"z": z[0]}
    half = prior.advance(state, 0, block)
    torch.testing.assert_close(prior.advance(half, block)["h"], prior(state))


# One generator for all images, and one for each.


def test_decode_keeps_the_order_of_runs_and_images(prior, z):
    images = decode(prior, {"z": z})
    assert images.shape == (R, B, 3, 32, 32)
    for r in range(R):
        for b in range(B):
            torch.testing.assert_close(images[r, b], prior({"z": z[r, b][None]})[0])


def test_decode_each_with_the_priors_own_parameters_is_decode(prior, z):
    torch.testing.assert_close(decode_each(prior, shared(prior), {"z": z}), decode(prior, {"z": z}))


def test_decode_each_is_a_loop_over_generators(prior, z, others):
    copies, w = others
    images = decode_each(prior, w, {"z": z})
    assert images.shape == (R, B, 3, 32, 32)
    for r in range(R):
        for b in range(B):
            torch.testing.assert_close(images[r, b], copies[r][b]({"z": z[r, b][None]})[0])
    assert not torch.allclose(images, decode(prior, {"z": z}), atol=0.01)


def test_decode_each_does_not_change_the_prior(prior, z, others):
    before = {name: tensor.clone() for name, tensor in prior.state_dict().items()}
    decode_each(prior, others[1], {"z": z})
    assert all(torch.equal(tensor, before[name]) for name, tensor in prior.state_dict().items())


@pytest.mark.parametrize(("r", "b"), [(0, 0), (1, 2)])
def test_parameters_change_only_their_own_image(prior, z, others, r, b):
    w = {name: tensor.requires_grad_() for name, tensor in others[1].items()}
    grads = torch.autograd.grad(decode_each(prior, w, {"z": z})[r, b].square().sum(), list(w.values()))
    for grad in grads:
        assert grad[r, b].abs().max() > 0
        grad[r, b] = 0
        assert not grad.any()


def test_gradients_are_those_of_the_separate_generators(prior, z, others):
    copies, w = others
    w = {name: tensor.requires_grad_() for name, tensor in w.items()}
    decode_each(prior, w, {"z": z}).square().sum().backward()
    for row, latents in zip(copies, z, strict=True):
        for copy, latent in zip(row, latents, strict=True):
            copy.requires_grad_()({"z": latent[None]}).square().sum().backward()
    for name, tensor in w.items():
        expected = torch.stack([torch.stack([copy.get_parameter(name).grad for copy in row]) for row in copies])
        torch.testing.assert_close(tensor.grad, expected)


def test_decode_each_can_be_differentiated_twice():
    """Against finite differences of the first derivative, in w and z."""
    prior = trained_looking(5, nz=3, ngf=2)
    z = torch.randn(1, 2, 3, generator=torch.Generator().manual_seed(6), dtype=torch.float64).requires_grad_()
    w = {name: p.expand(1, 2, *p.shape).clone().requires_grad_() for name, p in prior.named_parameters()}

    def images(z, *values):
        return decode_each(prior, dict(zip(w, values, strict=True)), {"z": z})

    torch.manual_seed(0)
    assert torch.autograd.gradgradcheck(images, (z, *w.values()), fast_mode=True)


# Larger, and conditional.


def test_64_pixels_have_one_block_more():
    prior = DCGAN(size=64)
    kernels = 4 * 4 * (100 * 512 + 512 * 256 + 256 * 128 + 128 * 64 + 64 * 3)
    assert sum(p.numel() for p in prior.parameters()) == kernels + 2 * (512 + 256 + 128 + 64)
    assert prior.eval()(prior.draw(2, torch.Generator())).shape == (2, *prior.image_shape) == (2, 3, 64, 64)


def test_a_conditional_generator_is_an_unconditional_one_on_latent_and_embedding():
    conditional, plain = (trained_looking(7, nz=nz, ngf=4, classes=c) for nz, c in ((5, 3), (10, None)))
    plain.blocks.load_state_dict(conditional.blocks.state_dict())
    z, y = torch.randn(4, 5, dtype=torch.float64), torch.tensor([0, 2, 2, 1])
    images = conditional({"z": z, "y": y})
    torch.testing.assert_close(images, plain({"z": torch.cat([z, conditional.embed.weight[y]], 1)}))
    assert not torch.allclose(images, conditional({"z": z, "y": (y + 1) % 3}), atol=1e-3)


@pytest.mark.parametrize("classes", [9, 11])
def test_labels_of_fewer_or_more_classes_are_refused(classes):
    observation = small_task().observation
    build(DCGAN, seed=0, classes=10).check(observation)
    with pytest.raises(InputError, match=rf"labels of {classes} classes, the task has 10 .*another --prior") as error:
        build(DCGAN, seed=0, classes=classes).check(observation)
    assert "\n" not in str(error.value)


def test_copies_of_a_conditional_generator_keep_their_labels():
    prior = trained_looking(8, nz=5, ngf=4, classes=3)
    state = {"z": torch.randn(R, B, 5, dtype=torch.float64), "y": torch.tensor([[0, 1, 2], [2, 2, 0]])}
    torch.testing.assert_close(decode_each(prior, shared(prior), state), decode(prior, state))


@pytest.mark.parametrize("side", [32, 16, 8])
def test_shrinking_is_the_mean_over_areas(side):
    images = torch.rand(R, B, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    small, part = shrink(images, side), 32 // side
    assert small.shape == (R, B, 3, side, side)
    torch.testing.assert_close(small[1, 2, 0, 3, 5], images[1, 2, 0, 3 * part : 4 * part, 5 * part : 6 * part].mean())


@pytest.mark.parametrize(("large", "side"), [(32, 28), (32, 20), (12, 7), (9, 5), (8, 1)])
def test_shrinking_to_any_size_is_torchs_area_interpolation(large, side):
    images = torch.rand(R, B, 3, large, large, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    images.requires_grad_()
    ours, torchs = shrink(images, side), interpolate(images.flatten(0, 1), size=(side, side), mode="area")
    torch.testing.assert_close(ours.flatten(0, 1), torchs)
    gradients = (torch.autograd.grad(small.pow(3).sum(), images)[0] for small in (ours, torchs))
    torch.testing.assert_close(*gradients)
    assert torch.autograd.gradgradcheck(lambda x: shrink(x, side).pow(3), images[:1, :1, :1])


# The discriminator.


@pytest.mark.parametrize("size", [32, 64])
def test_discriminator_gives_one_logit_for_each_image(size):
    judge = Discriminator(size=size)
    widths = [3, 64, 128, 256, 512][: 4 if size == 32 else 5]
    kernels = 4 * 4 * (sum(a * b for a, b in itertools.pairwise(widths)) + widths[-1])
    assert sum(p.numel() for p in judge.parameters()) == kernels + 2 * sum(widths[2:])
    for count in (1, 5):
        assert judge.eval()(torch.rand(count, 3, size, size)).shape == (count,)


def test_a_conditional_discriminator_adds_the_kernels_of_its_class():
    """Convolving a constant map sums the part of the kernel inside the padding."""
    judge, x, y = Discriminator(classes=3).eval(), torch.rand(4, 3, 32, 32), torch.tensor([0, 2, 2, 1])
    first, *rest = judge.body
    colors, classes = first.weight[:, :3], first.weight[:, 3:]
    ones = torch.ones(1, 1, 32, 32)
    h = conv2d(x, colors, stride=2, padding=1)
    h = h + torch.cat([conv2d(ones, classes[:, [label]], stride=2, padding=1) for label in y])
    torch.testing.assert_close(judge(x, y), judge.head(torch.nn.Sequential(*rest)(h)).flatten())
    assert (judge(x, y) - judge(x, (y + 1) % 3)).abs().min() > 0


# Files of others.


def tutorial(size, nz=6, ngf=4):
    """The generator of PyTorch's tutorial on DCGAN, batch-norm statistics away from where they start."""
    layers, c_in = [], nz
    for c_out in [ngf * size // side for side in (8, 16, 32, 64) if side <= size]:
        stride, padding = (1, 0) if c_in == nz else (2, 1)
        layers += [nn.ConvTranspose2d(c_in, c_out, 4, stride, padding, bias=False), nn.BatchNorm2d(c_out), nn.ReLU()]
        layers[-2].running_mean.normal_(0, 0.3)
        layers[-2].running_var.uniform_(0.5, 2)
        c_in = c_out
    net = nn.Module()
    net.main = nn.Sequential(*layers, nn.ConvTranspose2d(c_in, 3, 4, 2, 1, bias=False), nn.Tanh())
    return net.eval().requires_grad_(False)


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("layout", ["the tutorial's", "nested", "this suite's"])
def test_a_file_of_either_layout_gives_the_images_of_the_tutorials_generator(size, layout, tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net, path = tutorial(size), tmp_path / "net.pth"
    state = net.state_dict()
    torch.save({"netG_state_dict": state} if layout == "nested" else state, path)
    if layout == "this suite's":
        torch.save(DCGAN.load_public(path).state_dict(), path)
    prior = find(f"dcgan:{path}", tmp_path, size=32, seed=0)
    z = prior.draw(3, torch.Generator().manual_seed(1))["z"]
    expected = (net.main(z[:, :, None, None]) + 1) / 2
    torch.testing.assert_close(prior({"z": z}), expected)
    assert expected.shape == (3, *prior.image_shape) == (3, 3, size, size)
    assert prior.trained_on == "net"
    assert not prior.training
    assert not any(p.requires_grad for p in prior.parameters())


@pytest.mark.parametrize("content", [b"text", [3], {"x": torch.zeros(3)}, {"main.0.weight": torch.zeros(2, 8, 4, 4)}])
def test_other_files_are_refused_in_one_line(content, tmp_path):
    path = tmp_path / "net.pth"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(InputError, match=r"net\.pth") as refusal:
        DCGAN.load_public(path)
    assert "\n" not in str(refusal.value)


@pytest.mark.shared
@pytest.mark.skipif(
    not (SHARED / "weights" / "priors" / "dcgan_digiface64.safetensors").is_file(),
    reason="needs ../shared/weights/priors/dcgan_digiface64.safetensors",
)
def test_the_published_faces_of_64_pixels_have_the_statistics_that_normal_latents_leave():
    prior = find("dcgan_digiface64", SHARED / "weights", size=32, seed=0)
    assert prior.image_shape == (3, 64, 64)
    assert prior.trained_on.startswith("DigiFace")
    state = prior.draw(256, torch.Generator().manual_seed(0))
    for k, block in enumerate(prior.blocks[:4]):
        h = prior.advance(state, 0, k)["h"] if k else state["z"][..., None, None]
        conv, norm = block[0], block[1]
        h, sigma = conv(h), norm.running_var.sqrt()
        assert ((h.mean((0, 2, 3)) - norm.running_mean) / sigma).abs().mean() < 0.1
        assert (h.std((0, 2, 3)) / sigma).mean() == pytest.approx(1, abs=0.1)
