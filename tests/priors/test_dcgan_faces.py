"""The face generator against its layers written out, its file's key layout, and the published weights."""

from copy import deepcopy

import pytest
import torch
from scipy.stats import kstest
from torch.nn.functional import batch_norm, conv2d, conv_transpose2d, leaky_relu

from priors.base import decode_each
from priors.dcgan_faces import DCGANFaces
from tests.conftest import SHARED
from victims.errors import InputError
from victims.modules import build

FACES = SHARED / "weights" / "priors" / "dcgan_faces32.pt"
here = pytest.mark.skipif(not FACES.is_file(), reason=f"needs ../shared/weights/priors/{FACES.name}")


@pytest.fixture
def public():
    """A state dict in the layout of the published one, batch-norm statistics away from where they start."""
    prior = build(DCGANFaces, seed=0)
    for name, tensor in prior.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2, generator=torch.Generator().manual_seed(1))
        elif name.endswith(("running_mean", "1.bias")):
            tensor.normal_(0, 0.3, generator=torch.Generator().manual_seed(2))
    return {name.replace("blocks", "generator_deconv"): tensor for name, tensor in prior.state_dict().items()}


@pytest.fixture
def file(public, tmp_path):
    torch.save(public, tmp_path / "faces.pt")
    return tmp_path / "faces.pt"


def test_images_are_the_layers_written_out(public, file):
    """Five blocks; the first without activation, the others LeakyReLU 0.2, tanh moved to (0, 1)."""
    prior = DCGANFaces.load_public(file)
    z = prior.draw(3, torch.Generator().manual_seed(0))["z"]
    h = z[:, :, None, None]
    for block in range(5):
        kernel, scale, shift, mean, var = (
            public.get(f"generator_deconv.{block}.{name}")
            for name in ("0.weight", "1.weight", "1.bias", "1.running_mean", "1.running_var")
        )
        if block == 1:
            h = conv2d(h, kernel, padding=1)
        else:
            bias = public.get(f"generator_deconv.{block}.0.bias")
            h = conv_transpose2d(h, kernel, bias, stride=2 if block else 1, padding=1 if block else 0)
        if block < 4:
            h = batch_norm(h, mean, var, scale, shift)
        if 0 < block < 4:
            h = leaky_relu(h, 0.2)
    torch.testing.assert_close(prior({"z": z}), 0.5 + 0.5 * torch.tanh(h))
    assert h.shape == (3, *prior.image_shape) == (3, 3, 32, 32)


def test_latents_are_uniform_and_depend_only_on_the_generator():
    prior = DCGANFaces()
    first, again, other = (prior.draw(50, torch.Generator().manual_seed(seed))["z"] for seed in (1, 1, 2))
    assert first.shape == (50, 100)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert kstest(first.flatten().numpy(), "uniform", args=(-1, 2)).pvalue > 1e-3


@pytest.mark.parametrize("block", range(1, 6))
def test_the_chain_can_be_split_at_any_block(file, block):
    prior = DCGANFaces.load_public(file)
    state = prior.draw(2, torch.Generator().manual_seed(0))
    half = prior.advance(state, 0, block)
    torch.testing.assert_close(prior.advance(half, block)["h"], prior(state))


def test_every_image_can_have_its_own_parameters(file):
    prior = DCGANFaces.load_public(file)
    others = [deepcopy(prior), deepcopy(prior)]
    for parameter in others[1].parameters():
        parameter.mul_(1.2)
    w = {name: torch.stack([o.get_parameter(name) for o in others])[None] for name, _ in prior.named_parameters()}
    state = prior.draw(2, torch.Generator().manual_seed(0))
    images = decode_each(prior, w, {"z": state["z"][None]})[0]
    for image, z, other in zip(images, state["z"], others, strict=True):
        torch.testing.assert_close(image, other({"z": z[None]})[0])


# The file.


def test_what_is_loaded_is_frozen_and_in_eval_mode(file):
    prior = DCGANFaces.load_public(file)
    assert prior.trained_on == "faces"
    assert not any(module.training for module in prior.modules())
    assert not any(p.requires_grad for p in prior.parameters())


class Code:
    """Not a tensor."""


WRONG = {
    "absent": None,
    "text": b"not weights",
    "code": {"generator_deconv.0.0.weight": Code()},
    "a list": [3],
    "another network": {"conv.weight": torch.zeros(3, 3)},
}


@pytest.mark.parametrize("content", WRONG.values(), ids=WRONG)
def test_other_files_are_refused_in_one_line(content, tmp_path):
    path = tmp_path / "w.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(InputError) as caught:
        DCGANFaces.load_public(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


# The published weights.


@pytest.fixture
def faces():
    return DCGANFaces.load_public(FACES)


@pytest.mark.shared
@here
def test_batch_norm_recorded_what_these_layers_make_of_uniform_latents(faces):
    """Neither normal latents nor an activation after the first block would have left these statistics."""
    state = faces.draw(256, torch.Generator().manual_seed(0))
    for k, block in enumerate(faces.blocks[:4]):
        h = faces.advance(state, 0, k)["h"] if k else state["z"][..., None, None]
        conv, norm = block[0], block[1]
        h, sigma = conv(h), norm.running_var.sqrt()
        assert ((h.mean((0, 2, 3)) - norm.running_mean) / sigma).abs().mean() < 0.06
        assert (h.std((0, 2, 3)) / sigma).mean() == pytest.approx(1, abs=0.05)


@pytest.mark.shared
@here
def test_samples_are_smooth_differ_and_have_the_symmetry_of_faces(faces):
    images = faces(faces.draw(256, torch.Generator().manual_seed(0)))
    assert images.min() >= 0
    assert images.max() <= 1
    assert images.std(0).mean() > 0.15  # between images
    neighbors = images.diff(dim=-1).abs().mean()
    apart = (images[..., :16] - images[..., 16:]).abs().mean()
    assert neighbors < apart / 2
    mean = images.mean(0)
    halves = torch.stack([mean, mean.flip(-1)]).flatten(1)
    assert torch.corrcoef(halves)[0, 1] > 0.9
