"""The decoder against its layers written out under the numbers of its file, and the published weights."""

import pytest
import torch
from PIL import Image
from torch.nn.functional import conv2d, group_norm
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import resize, to_tensor

from attacks.gias import GIAS
from attacks.gias_parts import GIz
from attacks.gifd import GIFD
from priors.base import decode_each
from priors.by_name import find
from priors.tiny_autoencoder import TinyAutoencoder
from tests.conftest import SHARED
from victims.checkpoints import tensors
from victims.errors import InputError
from victims.modules import build

FOLDER = SHARED / "weights" / "priors"
FACES = SHARED / "data" / "ffhq" / "images256x256"
here = pytest.mark.skipif(not (FOLDER / "taef2_encoder.pth").is_file(), reason="needs ../shared/weights/priors/taef2_*")


def layer(s, i, h, stride=1):
    """Layer i of an encoder or decoder, in the state dict s: a convolution, or a residual block of three."""
    if f"{i}.weight" in s:
        return conv2d(h, s[f"{i}.weight"], s.get(f"{i}.bias"), stride, padding=1)
    if f"{i}.pool.0.weight" in s:
        wide = group_norm(conv2d(h, s[f"{i}.pool.0.weight"]), 4, s[f"{i}.pool.1.weight"], s[f"{i}.pool.1.bias"])
        h = h + conv2d(wide.clamp_min(0), s[f"{i}.pool.3.weight"])
    inner = h
    for place in (0, 2, 4):
        inner = conv2d(inner, s[f"{i}.conv.{place}.weight"], s[f"{i}.conv.{place}.bias"], padding=1)
        inner = inner.clamp_min(0) if place < 4 else inner
    return (h + inner).clamp_min(0)


def encoded(s, x):
    """Layers 2, 6 and 10 halve the side."""
    for i in range(15):
        x = layer(s, i, x, 2 if i in (2, 6, 10) else 1)
    return x


def decoded(s, z):
    """Layers 6, 11 and 16 double the side, by repeating; layer 0 is the bound on latents, 2 a ReLU."""
    h = layer(s, 1, 3 * torch.tanh(z / 3)).clamp_min(0)
    for i in range(3, 20):
        h = h.repeat_interleave(2, 2).repeat_interleave(2, 3) if i in (6, 11, 16) else layer(s, i, h)
    return h


@pytest.fixture
def public():
    """A state dict in the layout of the published one, stored in half precision."""
    prior = build(TinyAutoencoder, seed=0)
    return {name.split(".", 2)[2]: tensor.half() for name, tensor in prior.state_dict().items()}


@pytest.fixture
def file(public, tmp_path):
    torch.save(public, tmp_path / "decoder.pth")
    return tmp_path / "decoder.pth"


@pytest.mark.parametrize("size", [32, 40])
def test_images_are_the_layers_written_out_in_float32(public, file, size):
    prior = TinyAutoencoder.load_public(file, size=size)
    state = prior.draw(2, torch.Generator().manual_seed(0))
    expected = decoded({name: t.float() for name, t in public.items()}, state["z"].view(2, 32, size // 8, size // 8))
    torch.testing.assert_close(prior(state), expected)
    assert expected.shape == (2, 3, size, size)
    assert expected.std() > 0.01


def test_features_are_those_of_every_side_and_the_chain_can_be_split(file):
    prior = TinyAutoencoder.load_public(file, size=32)
    state = prior.draw(2, torch.Generator().manual_seed(0))
    shapes = [tuple(prior.advance(state, 0, k)["h"].shape[1:]) for k in range(5)]
    assert shapes == [(32, 4, 4), (64, 4, 4), (64, 8, 8), (64, 16, 16), (3, 32, 32)]
    for k in range(1, 5):
        torch.testing.assert_close(prior.advance(prior.advance(state, 0, k), k)["h"], prior(state))


def test_every_image_can_have_its_own_parameters(file):
    prior = TinyAutoencoder.load_public(file, size=16)
    w = {name: torch.stack([p, 1.2 * p])[None] for name, p in prior.named_parameters()}
    state = prior.draw(2, torch.Generator().manual_seed(0))
    first, second = decode_each(prior, w, {"z": state["z"][None]})[0]
    other = TinyAutoencoder(size=16)
    other.load_state_dict({name: 1.2 * p for name, p in prior.named_parameters()})
    torch.testing.assert_close(first, prior(state)[0])
    torch.testing.assert_close(second, other(state)[1])


def test_latents_are_normal_with_the_root_mean_square_of_photographs_and_depend_only_on_the_generator():
    prior = TinyAutoencoder(size=64)
    first, again, other = (prior.draw(20, torch.Generator().manual_seed(seed))["z"] for seed in (1, 1, 2))
    assert first.shape == (20, 32 * 8 * 8)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.square().mean().sqrt() == pytest.approx(0.9, abs=0.02)


@pytest.mark.parametrize(("wanted", "made"), [(8, 8), (28, 32), (32, 32), (65, 72)])
def test_sides_are_rounded_up_to_a_multiple_of_8(wanted, made):
    prior = TinyAutoencoder(size=wanted)
    assert prior.image_shape == prior(prior.draw(1, torch.Generator()))[0].shape == (3, made, made)


def test_weights_take_the_size_of_the_task(file, tmp_path):
    assert find(f"tiny_autoencoder:{file}", tmp_path, size=48, seed=0).image_shape == (3, 48, 48)


@pytest.mark.parametrize("content", ["text", "a list", "the encoder's layers"])
def test_other_files_are_refused_in_one_line(content, public, tmp_path):
    path = tmp_path / "w.pth"
    if content == "text":
        path.write_bytes(b"not weights")
    else:
        torch.save([3] if content == "a list" else {**public, "0.weight": torch.zeros(64, 3, 3, 3)}, path)
    with pytest.raises(InputError, match=r"w\.pth") as refusal:
        TinyAutoencoder.load_public(path)
    assert "\n" not in str(refusal.value)


def test_no_side_is_refused(tmp_path):
    with pytest.raises(InputError, match="1 pixel or more, not 0"):
        find("tiny_autoencoder:0", tmp_path, size=32, seed=0)


@pytest.mark.parametrize("method", [GIz, GIAS, GIFD])
def test_methods_search_its_latents_features_and_parameters(method, capture):
    """Untrained, at 12 px from 16: more steps lower the cost."""
    prior = build(TinyAutoencoder, seed=0, size=12).eval().requires_grad_(False)
    task = capture((3,), size=12)
    short, long = (method(prior=prior, restarts=1, steps=steps).run([task.observation]) for steps in (4, 24))
    assert long.cost < short.cost
    assert long.pixels.shape == (1, 1, 3, 12, 12)


# The published weights.


@pytest.mark.shared
@here
@pytest.mark.parametrize(("side", "psnr"), [(256, 34.2), (128, 32.7), (64, 28.9), (32, 23.9)])
def test_faces_pass_through_the_published_encoder_and_decoder(side, psnr):
    """The PSNR in dB that is known of these weights, on the first four faces."""
    encoder = {name: tensor.float() for name, tensor in tensors(FOLDER / "taef2_encoder.pth").items()}
    faces = [Image.open(path).convert("RGB") for path in sorted(FACES.glob("*.png"))[:4]]
    x = torch.stack([to_tensor(resize(face, side, InterpolationMode.BILINEAR)) for face in faces])
    z = encoded(encoder, x)
    images = find("taef2", SHARED / "weights", size=side, seed=0)({"z": z.flatten(1)}).clamp(0, 1)
    mse = (images - x).square().mean((1, 2, 3))
    assert (-10 * mse.log10()).mean() == pytest.approx(psnr, abs=0.06)


@pytest.mark.shared
@here
def test_latents_of_images_have_the_root_mean_square_of_drawn_ones():
    encoder = {name: tensor.float() for name, tensor in tensors(FOLDER / "taef2_encoder.pth").items()}
    files = sorted((SHARED / "data" / "cifar10" / "train").rglob("*.png"))[:100]
    z = encoded(encoder, torch.stack([to_tensor(Image.open(path).convert("RGB")) for path in files])).flatten(1)
    assert z.square().mean(1).sqrt().mean() == pytest.approx(0.9, abs=0.03)
    assert z.square().mean(1).sqrt().std() < 0.08


@pytest.mark.shared
@here
def test_the_published_weights_are_the_described_file_in_float32():
    prior = find("taef2", SHARED / "weights", size=40, seed=0)
    assert prior.image_shape == (3, 40, 40)
    assert {p.dtype for p in prior.parameters()} == {torch.float32}
    assert sum(p.numel() for p in prior.parameters()) == 1_338_499
    assert not prior.training
    assert not any(p.requires_grad for p in prior.parameters())
