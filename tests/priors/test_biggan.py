"""BigGAN-deep against the package that published its weights, on random weights in the layout of the public ones."""

import pickle
from copy import copy

import pytest
import torch
from scipy.stats import kstest
from torch.nn.functional import normalize, one_hot

from priors.base import decode, decode_each
from priors.biggan import NZ, Attention, BigGAN, from_public
from victims.errors import InputError

SIZES = (128, 256, 512)
CHANNELS, CLASSES = 8, 5
R, B = 2, 2


def published(size, *, channels=CHANNELS, classes=CLASSES, seed=0):
    """The package's generator in float64, every stored tensor random, at a scale that keeps colors off 0 and 1."""
    pytest.importorskip(
        "pytorch_pretrained_biggan", reason="the oracle is pytorch-pretrained-biggan, which imports boto3: not here"
    )
    from pytorch_pretrained_biggan import BigGAN as Published
    from pytorch_pretrained_biggan import convert_tf_to_pytorch

    config = copy(getattr(convert_tf_to_pytorch, f"BigGAN{size}"))
    config.channel_width, config.num_classes = channels, classes
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        oracle = Published(config).double().eval().requires_grad_(False)
        stored = oracle.state_dict()
        for name, tensor in stored.items():
            if name.endswith("weight_orig"):
                u = normalize(torch.randn(len(tensor), dtype=torch.float64), dim=0)
                stored[name.replace("orig", "u")].copy_(u)
                stored[name.replace("orig", "v")].copy_(normalize(u @ tensor.normal_().flatten(1), dim=0))
            elif name.endswith("running_vars"):
                tensor.uniform_(0.5, 2)
            elif name.endswith(("running_means", "bias", "embeddings.weight", "gamma")):
                tensor.normal_(0, 0.3)
            elif name == "generator.bn.weight":
                tensor.uniform_(0.01, 0.02)
    return oracle


def inputs(seed=1, count=2, classes=CLASSES):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(count, NZ, generator=generator, dtype=torch.float64)
    return {"z": z, "y": torch.arange(count) % classes}


def oracle_images(oracle, state):
    """Of truncation 1, as the papers use it."""
    classes = oracle.embeddings.in_features
    return (oracle(state["z"], one_hot(state["y"], classes).to(state["z"]), 1.0) + 1) / 2


def untrained(seed=0, **options):
    """A small generator in float64 with an active attention layer."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        prior = BigGAN(**{"size": 128, "channels": 4, "classes": CLASSES, **options})
        for block in prior.blocks:
            if isinstance(block, Attention):
                block.gamma.data.fill_(0.7)
    return prior.double().eval().requires_grad_(False)


@pytest.fixture
def prior():
    return untrained()


@pytest.fixture
def state():
    """z (R, B, NZ) and y (R, B)."""
    return {name: tensor.unflatten(0, (R, B)) for name, tensor in inputs(count=R * B).items()}


# The package's images.


@pytest.mark.parametrize("size", SIZES)
def test_images_are_those_of_the_package(size):
    oracle, state = published(size), inputs(count=1)
    prior = from_public(oracle.state_dict())
    images, expected = prior(state), oracle_images(oracle, state)
    assert images.shape == (1, *prior.image_shape) == (1, 3, size, size)
    assert 0.02 < expected.std() < 0.3  # neither flat nor saturated: errors would show
    torch.testing.assert_close(images, expected)
    single = {"z": state["z"].float(), "y": state["y"]}
    images = from_public(oracle.float().state_dict())(single)
    torch.testing.assert_close(images, oracle_images(oracle, single), rtol=0, atol=1e-5)


def test_parameters_at_full_size_are_those_of_the_package():
    """Without the outputs of the last convolution that are not colors."""
    with torch.device("meta"):
        ours = sum(p.numel() for p in BigGAN(size=256).parameters())
    with torch.device("meta"):
        theirs = sum(p.numel() for p in published(256, channels=128, classes=1000).parameters())
    assert ours == theirs - (128 - 3) * (9 * 128 + 1)


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_full_width_images_are_those_of_the_package(size):
    oracle, state = published(size, channels=128, classes=1000), inputs(count=1)
    torch.testing.assert_close(from_public(oracle.state_dict())(state), oracle_images(oracle, state))


# Inputs.


def test_latents_are_standard_normal_and_depend_only_on_the_generator(prior):
    before = torch.get_rng_state()
    first, again, other = (prior.draw(50, torch.Generator().manual_seed(seed))["z"] for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert first.shape == (50, 128)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert kstest(first.flatten().numpy(), "norm").pvalue > 1e-3


def test_class_changes_the_image(prior):
    z = inputs()["z"][:1].expand(CLASSES, -1)
    images = prior({"z": z, "y": torch.arange(CLASSES)})
    for k in range(1, CLASSES):
        assert (images[k] - images[0]).abs().mean() > 0.01


# Features by layer.


def test_features_are_those_of_gifds_phases():
    """Phase k starts after the first k layers of the package, self-attention at 64x64 among them."""
    with torch.device("meta"):
        prior, state = BigGAN(size=256), {"z": torch.empty(1, NZ), "y": torch.empty(1, dtype=torch.int64)}
        shapes = [tuple(prior.advance(state, 0, k)["h"].shape[1:]) for k in range(1, 10)]
    sides = [(2048, 4), (2048, 8), (2048, 8), (1024, 16), (1024, 16), (1024, 32), (1024, 32), (512, 64), (512, 64)]
    assert shapes == [(channels, side, side) for channels, side in sides]


@pytest.mark.parametrize("k", range(1, 12))
def test_the_chain_can_be_split_at_any_block(prior, k):
    torch.testing.assert_close(prior.advance(prior.advance(inputs(), 0, k), k)["h"], prior(inputs()))


def test_a_search_of_features_does_not_change_the_condition(prior):
    """GIFD freezes it when the latent's phase ends: after block 0, images depend on it and not on z and y."""
    ahead = prior.advance(inputs(), 0, 3)
    image = prior.advance(ahead, 3)["h"]
    other = inputs(seed=2)
    torch.testing.assert_close(prior.advance({**ahead, "z": other["z"], "y": 1 - ahead["y"]}, 3)["h"], image)
    assert not torch.allclose(prior.advance({**ahead, "cond": prior.enter(other)["cond"]}, 3)["h"], image, atol=0.01)
    assert all(prior.features(k) == ("h",) for k in range(1, len(prior.blocks)))


# One generator for all images, and one for each.


def test_decode_each_is_a_loop_over_generators(prior, state):
    copies = [[untrained(seed=10 + B * r + b) for b in range(B)] for r in range(R)]
    w = {
        name: torch.stack([torch.stack([copy.get_parameter(name) for copy in row]) for row in copies])
        for name, _ in prior.named_parameters()
    }
    images = decode_each(prior, w, state)
    for r in range(R):
        for b in range(B):
            alone = {name: tensor[r, b][None] for name, tensor in state.items()}
            torch.testing.assert_close(images[r, b], copies[r][b](alone)[0])
    assert not torch.allclose(images, decode(prior, state), atol=0.01)


def test_decode_each_can_be_differentiated_twice(prior):
    """Against finite differences of the first derivative, in z and in all parameters together, on smaller maps."""
    for block in prior.blocks[:6]:
        block.up = False
    state = {name: tensor[None] for name, tensor in inputs(count=1).items()}
    parameters = dict(prior.named_parameters())
    sizes = [p.numel() for p in parameters.values()]
    flat = torch.cat([p.flatten() for p in parameters.values()]).requires_grad_()

    def image(z, flat):
        pieces = zip(parameters.items(), flat.split(sizes), strict=True)
        w = {name: piece.view(1, 1, *p.shape) for (name, p), piece in pieces}
        return decode_each(prior, w, {**state, "z": z}).mean((-1, -2))

    torch.manual_seed(0)
    assert torch.autograd.gradgradcheck(image, (state["z"].requires_grad_(), flat), fast_mode=True)


# Files.


@pytest.fixture
def path(tmp_path):
    return tmp_path / "pytorch_model.bin"


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "as torch 1.0 wrote it"])
def test_a_public_file_is_loaded_ready_to_be_searched(path, zipped):
    oracle = published(128)
    torch.save(oracle.state_dict(), path, _use_new_zipfile_serialization=zipped)
    prior = BigGAN.load_public(path)
    torch.testing.assert_close(prior(inputs()), oracle_images(oracle, inputs()))
    assert not prior.training
    assert not any(p.requires_grad for p in prior.parameters())
    assert prior.classes == CLASSES
    assert prior.trained_on == "ImageNet (128 px BigGAN-deep, truncation 1)"


def refused(path, **options):
    """The message of the refusal."""
    with pytest.raises(InputError) as error:
        BigGAN.load_public(path, **options)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)
    assert len(str(error.value)) < len(str(path)) + 250
    return str(error.value)


@pytest.mark.parametrize(("stored", "asked"), [(128, 256), (512, 256)])
def test_another_size_is_refused(path, stored, asked):
    torch.save(published(stored, channels=4).state_dict(), path)
    assert f"the BigGAN-deep of {stored} px; give that of {asked} px." in refused(path, size=asked)


@pytest.mark.parametrize(
    "name", ["embeddings.weight", "generator.bn.bias", "generator.gen_z.weight_u", "generator.layers.8.gamma"]
)
def test_a_file_without_a_tensor_is_refused(path, name):
    stored = published(128, channels=4).state_dict()
    torch.save({key: tensor for key, tensor in stored.items() if key != name}, path)
    refused(path)
    torch.save({**stored, name: torch.zeros(8)}, path)
    refused(path)
    torch.save({**stored, name: "text"}, path)
    refused(path)


@pytest.mark.parametrize("content", [[1, 2], {}, {"z": torch.zeros(3)}, {"generator": {}}], ids=str)
def test_other_tensors_are_refused(path, content):
    torch.save(content, path)
    assert "is not a pytorch_model.bin of the public BigGAN-deep" in refused(path)


class Code:
    def __reduce__(self):
        return (pytest.fail, ("the file's code was run",))


@pytest.mark.parametrize(
    "content",
    [b"", b"no pickle", b"PK\x03\x04", pickle.dumps({"a": Code()}, protocol=2)],
    ids=["empty", "text", "cut", "code"],
)
def test_what_is_no_file_of_tensors_is_refused(path, content):
    path.write_bytes(content)
    assert "not a file of plain tensors" in refused(path)


def test_no_file_is_refused(path):
    assert "no weights at" in refused(path)


def test_another_size_than_those_of_the_paper_is_refused():
    with pytest.raises(InputError, match="size 64"):
        BigGAN(size=64)
