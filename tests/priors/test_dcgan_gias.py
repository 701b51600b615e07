"""The generator of GIAS's code against one sequence of layers with its state dict, and its file."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from priors.base import decode_each
from priors.by_name import find
from priors.dcgan import DCGAN
from priors.dcgan_gias import DCGANGIAS
from victims.errors import InputError
from victims.modules import build


def sequence(ngf=64):
    """The layers in their order, as the code has them, with batch-norm statistics away from where they start."""
    layers, channels = [], [100, 8 * ngf, 4 * ngf, 2 * ngf, ngf]
    for c_in, c_out in pairwise(channels):
        stride, padding = (1, 0) if c_in == 100 else (2, 1)
        layers += [nn.ConvTranspose2d(c_in, c_out, 4, stride, padding, bias=False), nn.BatchNorm2d(c_out), nn.ReLU()]
    net = nn.Module()
    net.main = nn.Sequential(*layers, nn.ConvTranspose2d(ngf, 3, 1, bias=False), nn.Tanh())
    for name, tensor in net.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2)
        elif name.endswith("running_mean"):
            tensor.normal_(0, 0.3)
    return net.eval().requires_grad_(False)


@pytest.fixture
def net():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return sequence()


@pytest.fixture
def file(net, tmp_path):
    torch.save(net.state_dict(), tmp_path / "netG.pth")
    return tmp_path / "netG.pth"


def test_images_are_those_of_the_sequence_of_layers(net, file):
    prior = DCGANGIAS.load_public(file)
    z = prior.draw(3, torch.Generator().manual_seed(1))["z"]
    expected = (net.main(z[:, :, None, None]) + 1) / 2
    torch.testing.assert_close(prior({"z": z}), expected)
    assert expected.shape == (3, *prior.image_shape) == (3, 3, 32, 32)
    assert expected.std() > 0.05


def test_parameters_counted_by_hand(net):
    kernels = 4 * 4 * (100 * 512 + 512 * 256 + 256 * 128 + 128 * 64) + 64 * 3
    batch_norms = 2 * (512 + 256 + 128 + 64)
    assert sum(p.numel() for p in DCGANGIAS().parameters()) == kernels + batch_norms == 3_573_824
    assert sum(p.numel() for p in net.parameters()) == 3_573_824


def test_the_chain_can_be_split_and_every_image_can_have_its_own_parameters(file):
    prior = DCGANGIAS.load_public(file)
    state = prior.draw(2, torch.Generator().manual_seed(0))
    for block in range(1, 6):
        torch.testing.assert_close(prior.advance(prior.advance(state, 0, block), block)["h"], prior(state))
    w = {name: torch.stack([p, 1.2 * p])[None] for name, p in prior.named_parameters()}
    first, second = decode_each(prior, w, {"z": state["z"][None]})[0]
    torch.testing.assert_close(first, prior(state)[0])
    assert not torch.allclose(second, prior(state)[1])


def test_a_file_is_found_by_its_architecture(file, tmp_path):
    prior = find(f"dcgan_gias:{file}", tmp_path, size=32, seed=0)
    assert isinstance(prior, DCGANGIAS)
    assert prior.trained_on == "netG"
    assert not any(module.training for module in prior.modules())
    assert not any(p.requires_grad for p in prior.parameters())


@pytest.mark.parametrize("content", ["text", "narrower", "this suite's dcgan"])
def test_other_files_are_refused_in_one_line(content, tmp_path):
    path = tmp_path / "netG.pth"
    if content == "text":
        path.write_bytes(b"not weights")
    else:
        torch.save((sequence(ngf=32) if content == "narrower" else build(DCGAN, seed=0)).state_dict(), path)
    with pytest.raises(InputError, match="netG") as refusal:
        DCGANGIAS.load_public(path)
    assert "\n" not in str(refusal.value)


def test_a_published_name_says_where_its_file_is_available(tmp_path):
    with pytest.raises(InputError, match="csinva") as refusal:
        find("dcgan-gias-cifar10", tmp_path, size=32, seed=0)
    assert "netG_epoch_199.pth" in str(refusal.value)
