"""The U-Nets of GI-NAS against their layers written out as plain operations."""

import pytest
import torch
from torch.nn.functional import conv2d, interpolate

from priors.skip_unets import (
    UPSAMPLINGS,
    Resize,
    SkipUNet,
    Upsampling,
    conv,
    draw_unet,
    flatten,
    generate,
    upsampling,
)

C = 16
PLAIN = Upsampling("nearest", "none", 1, "none")


@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize("side", [1, 2, 7])
def test_resizing_by_matrices_is_that_of_torch(mode, side):
    x = torch.randn(2, 3, side, 2 * side)
    torch.testing.assert_close(Resize(mode)(x), interpolate(x, scale_factor=2, mode=mode), rtol=1e-5, atol=1e-6)


def activate(x, kind):
    return {"none": x, "relu": x.clamp_min(0), "leaky_relu": x.where(x > 0, 0.2 * x)}[kind.activation]


def shuffle(x):
    """Channel 4c + 2a + b of pixel (h, w) becomes channel c of pixel (2h + a, 2w + b)."""
    out = x.new_zeros(len(x), x.shape[1] // 4, 2 * x.shape[2], 2 * x.shape[3])
    for a in (0, 1):
        for b in (0, 1):
            out[:, :, a::2, b::2] = x[:, 2 * a + b :: 4]
    return out


def as_one_convolution(kind, layers):
    """The kernel (c_out, c_in, k, k) of the mixing of channels, whatever it is made of."""
    kernel, *rest = layers.parameters()
    if kind.mix == "transposed":
        kernel = kernel.transpose(0, 1).flip(-1, -2)
    elif kind.mix == "split_sum":
        kernel = kernel.repeat(1, 4, 1, 1)
    elif kind.mix == "separable":
        kernel = rest[0] * kernel.transpose(0, 1)
    elif kind.mix == "depthwise":
        kernel = torch.diag_embed(kernel[:, 0].permute(1, 2, 0)).permute(2, 3, 0, 1)
    return kernel


@pytest.mark.parametrize("kind", UPSAMPLINGS[::5], ids=str)
def test_an_upsampling_is_one_resize_and_one_convolution(kind):
    torch.manual_seed(0)
    layers, x = upsampling(kind, C).double(), torch.randn(2, C, 5, 5).double()

    def mixed(x):
        if kind.mix == "none":
            return x
        return activate(conv2d(x, as_one_convolution(kind, layers), padding=kind.kernel // 2), kind)

    if kind.resize == "shuffle_last":
        expected = activate(shuffle(mixed(x)), kind)
    elif kind.resize == "shuffle":
        expected = mixed(activate(shuffle(x), kind))
    else:
        expected = mixed(activate(interpolate(x, scale_factor=2, mode=kind.resize), kind))
    torch.testing.assert_close(layers(x), expected, rtol=1e-6, atol=1e-7)  # the matrices of `Resize` are float32


def test_the_upsamplings_are_those_of_the_code():
    """63 for each interpolation (5 mixes x 4 kernels x 3 activations, and none), 48 for each order of a shuffle."""
    assert len(UPSAMPLINGS) == len(set(UPSAMPLINGS)) == 3 * 63 + 2 * 48
    x = torch.randn(1, C, 2, 2)
    assert {upsampling(kind, C)(x).shape for kind in UPSAMPLINGS} == {(1, C, 4, 4)}


def test_a_convolution_is_normalized_by_its_batch():
    torch.manual_seed(0)
    layers, x = torch.nn.Sequential(*conv(3, 4, stride=2)).eval(), torch.randn(2, 3, 6, 6)
    y = conv2d(x, layers[0].weight, stride=2, padding=1)
    y = (y - y.mean((0, 2, 3), keepdim=True)) / (y.var((0, 2, 3), keepdim=True, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(layers(x), y.where(y > 0, 0.2 * y))


def test_all_paths_between_two_scales_have_the_same_layer():
    """Maps of every scale from every scale, in a table, each from its neighbor."""
    torch.manual_seed(0)
    skips = torch.rand(5, 5) < 0.5
    net, z = SkipUNet(channels=3, width=C, skips=skips, kind=PLAIN), torch.randn(2, 3, 32, 32)
    e = [z]
    for encode in net.encoder:
        e.append(encode(e[-1]))
    table = {(k, k): e[k] for k in range(5)}  # (i, j): the encoder's map j on the way to the decoder's scale i
    for apart in range(1, 5):
        for j in range(5):
            if j + apart < 5:
                table[j + apart, j] = net.down[j + apart - 1](table[j + apart - 1, j])
            if j - apart >= 0:
                table[j - apart, j] = net.up[j - apart](table[j - apart + 1, j])
    x = e[5]
    for i in (4, 3, 2, 1, 0):
        x = net.enlarge[i](x)
        added = [net.across[i](e[i]) if i == j else table[i, j] for j in range(5) if skips[i, j]]
        x = net.decoder[i](sum(added, start=x))
    torch.testing.assert_close(net(z), torch.sigmoid(net.to_pixels(x)))
    assert net(z).shape == z.shape
    assert sum(skips.flatten()) not in (0, 25)


def test_every_skip_changes_the_image():
    torch.manual_seed(0)
    net, z = SkipUNet(channels=1, width=C, skips=torch.zeros(5, 5), kind=PLAIN), torch.randn(2, 1, 32, 32)
    images = [net(z)]
    for i in range(5):
        for j in range(5):
            net.skips = [[(i, j) == (to, of) for of in range(5)] for to in range(5)]
            images.append(net(z))
    flat = torch.stack(images).flatten(1)
    assert (torch.cdist(flat, flat) + torch.eye(26) > 1e-2).all()


def test_a_seed_draws_a_network_and_half_of_its_skips():
    nets = [draw_unet(channels=3, width=C, seed=seed) for seed in range(40)]
    again = draw_unet(channels=3, width=C, seed=7)
    assert again.skips == nets[7].skips
    assert torch.equal(flatten(again), flatten(nets[7]))
    share = torch.tensor([net.skips for net in nets]).float().mean()
    assert share == pytest.approx(0.5, abs=0.05)  # of 1000 skips
    assert len({len(flatten(net)) for net in nets}) > 10


def test_parameters_are_a_vector_with_any_end():
    net, other = (draw_unet(channels=3, width=C, seed=1) for _ in range(2))
    z = torch.randn(2, 3, 32, 32)
    expected = net(z)
    w = torch.cat([flatten(net), torch.full((9,), torch.nan)])
    with torch.no_grad():
        for p in other.parameters():
            p.zero_()
    torch.testing.assert_close(generate(other, w, z), expected)
