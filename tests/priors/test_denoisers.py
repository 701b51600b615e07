"""FFDNet and BF-CNN compared with second implementations, and published weights with how well they denoise."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch.nn.functional import conv2d

from priors.bf_cnn import BFCNN
from priors.by_name import find
from priors.ffdnet import FFDNet
from tests.conftest import SHARED
from victims.data.cifar10 import CIFAR10
from victims.errors import InputError
from victims.modules import build

SMALL = {"depth": 3, "width": 5}
CLEAN = torch.rand(2, 3, 8, 6, generator=torch.Generator().manual_seed(0))


def blocks(images):
    """Every 2x2 pixels as channels: color by color, from the left, then downwards."""
    places = [(y, x) for y in (0, 1) for x in (0, 1)]
    return torch.stack([images[:, c, y::2, x::2] for c in range(3) for y, x in places], 1)


def plain_ffdnet(net, images, sigma):
    """Of even sides, by another way to every pixel."""
    convolutions = [layer for layer in net.model if hasattr(layer, "weight")]
    h = blocks(images)
    h = torch.cat([h, torch.full_like(h[:, :1], sigma)], 1)
    for k, layer in enumerate(convolutions):
        h = conv2d(h, layer.weight, layer.bias, padding=1)
        h = h if k == len(convolutions) - 1 else h.clamp_min(0)
    out = torch.empty_like(images)
    for c in range(3):
        for place, (y, x) in enumerate([(y, x) for y in (0, 1) for x in (0, 1)]):
            out[:, c, y::2, x::2] = h[:, 4 * c + place]
    return out


@torch.no_grad()
def test_ffdnet_is_convolutions_at_half_the_side():
    net = build(FFDNet, seed=0, **SMALL)
    torch.testing.assert_close(net(CLEAN, 0.1), plain_ffdnet(net, CLEAN, 0.1))


@torch.no_grad()
def test_a_residual_ffdnet_gives_the_noise_in_units_of_sigma():
    net, residual = build(FFDNet, seed=0, **SMALL), build(FFDNet, seed=0, **SMALL, residual=True)
    torch.testing.assert_close(residual(CLEAN, 0.1), CLEAN + 0.1 * net(CLEAN, 0.1))
    odd = CLEAN[..., :7, :5]
    torch.testing.assert_close(residual(odd, 0.1), odd + 0.1 * net(odd, 0.1))


@torch.no_grad()
def test_ffdnet_takes_a_sigma_for_every_image():
    net = build(FFDNet, seed=0, **SMALL)
    both = net(CLEAN, torch.tensor([0.05, 0.2]))
    torch.testing.assert_close(both, torch.cat([net(CLEAN[:1], 0.05), net(CLEAN[1:], 0.2)]))
    assert not torch.allclose(both, net(CLEAN, 0.05))


@torch.no_grad()
def test_ffdnet_repeats_the_last_row_and_column_of_odd_sides():
    net = build(FFDNet, seed=0, **SMALL)
    odd = CLEAN[..., :7, :5]
    even = torch.cat([odd, odd[..., -1:, :]], -2)
    even = torch.cat([even, even[..., -1:]], -1)
    torch.testing.assert_close(net(odd, 0.1), plain_ffdnet(net, even, 0.1)[..., :7, :5])


def authors_bf_cnn():
    """Random weights in the layout of BF-CNN's authors."""
    draws = torch.Generator().manual_seed(0)
    channels = [3, *[64] * 19, 3]
    state = {
        f"conv_layers.{k}.weight": torch.randn(after, before, 3, 3, generator=draws) / (9 * before) ** 0.5
        for k, (before, after) in enumerate(pairwise(channels))
    }
    for k in range(18):
        state[f"running_sd.{k}"] = 0.5 + torch.rand(1, 64, 1, 1, generator=draws)
        state[f"gammas.{k}"] = torch.rand(1, 64, 1, 1, generator=draws)
    return state


@torch.no_grad()
def test_bf_cnn_normalizes_all_layers_but_the_first_and_the_last(tmp_path):
    state = authors_bf_cnn()
    torch.save(state, tmp_path / "bf_cnn.pt")
    h = CLEAN
    for k in range(20):
        h = conv2d(h, state[f"conv_layers.{k}.weight"], padding=1)
        if 0 < k < 19:
            h = h / state[f"running_sd.{k - 1}"] * state[f"gammas.{k - 1}"]
        h = h if k == 19 else h.relu()
    net = BFCNN.load_public(tmp_path / "bf_cnn.pt")
    torch.testing.assert_close(net(CLEAN, 0.1), CLEAN - h)
    torch.testing.assert_close(net(3 * CLEAN, 0.1), 3 * net(CLEAN, 0.9))  # bias-free, and blind


@pytest.mark.parametrize("name", ["ffdnet", "bf_cnn"])
def test_a_file_in_another_layout_is_refused_in_one_line(name, tmp_path):
    path = tmp_path / "weights.pt"
    torch.save({**authors_bf_cnn(), "conv_layers.20.weight": torch.ones(1)}, path)
    with pytest.raises(InputError, match="is not a") as error:
        find(f"{name}:{path}", Path(), size=32, seed=0)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["ffdnet", "bf_cnn"])
def test_published_weights_that_are_missing_say_where_they_go(name, tmp_path):
    with pytest.raises(InputError, match=f"which is not in {tmp_path / 'denoisers'}; put it there"):
        find(name, tmp_path, size=32, seed=0)


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "known"), [("ffdnet", {25: 29.4, 50: 25.7, 100: 22.3}), ("bf_cnn", {25: 29.2, 50: 25.7, 100: 22.4})]
)
@torch.no_grad()
def test_published_weights_denoise_as_well_as_is_known(name, known):
    """PSNR on CIFAR-10 of images that are clamped after, at sigma in units of 1/255, as the weights' README has it."""
    if not (SHARED / "weights" / "denoisers").is_dir() or not (SHARED / "data" / "cifar10").is_dir():
        pytest.skip("needs ../shared/weights/denoisers and ../shared/data/cifar10")
    net = find(name, SHARED / "weights", size=32, seed=0)
    clean, _ = CIFAR10(split="test", data_dir=SHARED / "data").batch(range(200))
    for sigma, psnr in known.items():
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(sigma))
        mse = (net(clean + sigma / 255 * noise, sigma / 255).clamp(0, 1) - clean).square().mean((1, 2, 3))
        assert -10 * mse.log10().mean() == pytest.approx(psnr, abs=0.5)
