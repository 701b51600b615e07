"""StyleGAN2 against the textbook form of its layers, written from the paper and the layout of public weights."""

from copy import deepcopy
from itertools import pairwise
from math import log2, prod, sqrt
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from scipy.signal import convolve2d
from torch.nn.functional import conv2d, conv_transpose2d

from priors.base import advance, decode, decode_each
from priors.names import published
from priors.stylegan2 import FIR, ModulatedConv, StyleGAN2, convert
from victims.errors import InputError

SHARED = Path(__file__).resolve().parents[3] / "shared"
R, B = 2, 2
TINY = {"size": 32, "channel_multiplier": 1 / 128, "width": 6, "style_dim": 5, "layers_mapping": 2}
TINY_CHANNELS = [6, 6, 6, 4]
CONFIG_F = {256: [512] * 5 + [256, 128], 1024: [512] * 5 + [256, 128, 64, 32]}


def layout(channels, style_dim, mapping):
    """Keys and shapes of a public state dict with these channels at 4, 8, 16, ... pixels."""
    shapes = {"input.input": (1, channels[0], 4, 4)}

    def modulated(name, c_in, c_out, kernel):
        shapes[f"{name}.conv.weight"] = (1, c_out, c_in, kernel, kernel)
        shapes[f"{name}.conv.modulation.weight"] = (c_in, style_dim)
        shapes[f"{name}.conv.modulation.bias"] = (c_in,)

    def styled(name, c_in, c_out, up):
        modulated(name, c_in, c_out, 3)
        shapes[f"{name}.noise.weight"] = (1,)
        shapes[f"{name}.activate.bias"] = (c_out,)
        if up:
            shapes[f"{name}.conv.blur.kernel"] = (4, 4)

    def to_rgb(name, c_in, up):
        modulated(name, c_in, 3, 1)
        shapes[f"{name}.bias"] = (1, 3, 1, 1)
        if up:
            shapes[f"{name}.upsample.kernel"] = (4, 4)

    for i in range(1, mapping + 1):
        shapes |= {f"style.{i}.weight": (style_dim, style_dim), f"style.{i}.bias": (style_dim,)}
    styled("conv1", channels[0], channels[0], up=False)
    to_rgb("to_rgb1", channels[0], up=False)
    shapes["noises.noise_0"] = (1, 1, 4, 4)
    for k, (c_in, c_out) in enumerate(pairwise(channels)):
        styled(f"convs.{2 * k}", c_in, c_out, up=True)
        styled(f"convs.{2 * k + 1}", c_out, c_out, up=False)
        to_rgb(f"to_rgbs.{k}", c_out, up=True)
        for i in (2 * k + 1, 2 * k + 2):
            shapes[f"noises.noise_{i}"] = (1, 1, 8 << k, 8 << k)
    return shapes


def public_state(channels, style_dim, mapping, seed=0, dtype=torch.float64):
    """A random public state dict that looks trained: styles near 1, noise with strength, the FIR kernels."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in layout(channels, style_dim, mapping).items():
        tensor = torch.randn(shape, generator=generator, dtype=dtype)
        if name.endswith("modulation.bias"):
            tensor = 1 + 0.3 * tensor
        elif name.startswith("style."):
            tensor = 100 * tensor
        elif name.endswith(".kernel"):
            tensor = kernel(dtype)
        state[name] = tensor
    return state


def kernel(dtype=torch.float64):
    taps = torch.tensor([1, 3, 3, 1], dtype=dtype)
    return torch.outer(taps, taps) / 16


def built(state, **options):
    read, ours = convert(state)
    prior = StyleGAN2(**{**read, **options}).to(next(iter(state.values())))
    prior.load_state_dict(ours)
    return prior.eval().requires_grad_(False)


@pytest.fixture
def prior():
    return built(public_state(TINY_CHANNELS, 5, 2))


@pytest.fixture
def state(prior):
    """Inputs, (R, B, ...)."""
    drawn = prior.draw(R * B, torch.Generator().manual_seed(1))
    return {name: tensor.double().unflatten(0, (R, B)) for name, tensor in drawn.items()}


def flat(state):
    return {name: tensor.flatten(0, 1) for name, tensor in state.items()}


def one(state, r, b):
    return {name: tensor[r, b][None] for name, tensor in state.items()}


# The layers.


def textbook(h, weight, style, *, up, demodulate):
    """Paper, section 2.2: every image's own weight, w'_ijk = s_i w_ijk, w'' = w' / sqrt(sum_ik w'^2 + eps)."""
    n, c, side, _ = h.shape
    own = weight[None] * style[:, None, :, None, None]
    if demodulate:
        own = own / (own.square().sum((2, 3, 4), keepdim=True) + 1e-8).sqrt()
    together = h.reshape(1, n * c, side, side)
    if up:
        out = conv_transpose2d(together, own.transpose(1, 2).flatten(0, 1), stride=2, groups=n)
        out = depthwise(torch.nn.functional.pad(out, (1, 1, 1, 1)))
    else:
        out = conv2d(together, own.flatten(0, 1), padding=weight.shape[-1] // 2, groups=n)
    return out.reshape(n, len(weight), *out.shape[2:])


def depthwise(h):
    maps = conv2d(h.flatten(0, 1)[:, None], kernel()[None, None])
    return maps[:, 0].unflatten(0, h.shape[:2])


@pytest.mark.parametrize(("size", "up", "demodulate"), [(3, False, True), (3, True, True), (1, False, False)])
def test_modulated_convolution_is_the_one_with_a_weight_for_each_image(size, up, demodulate):
    torch.manual_seed(0)
    conv = ModulatedConv(4, 3, size, 5, up=up, demodulate=demodulate).double()
    h, w = torch.randn(2, 4, 6, 6).double(), torch.randn(2, 5).double()
    style = w @ conv.modulation_weight.T / sqrt(5) + 1
    expected = textbook(h, conv.weight / sqrt(4 * size * size), style, up=up, demodulate=demodulate)
    assert expected.shape == (2, 3, 12, 12) if up else (2, 3, 6, 6)
    torch.testing.assert_close(conv(h, w), expected)


def test_demodulated_features_keep_unit_variance():
    torch.manual_seed(0)
    conv = ModulatedConv(64, 64, 3, 8)
    out = conv(torch.randn(1, 64, 32, 32), torch.randn(1, 8))
    assert out.var().item() == pytest.approx(1, rel=0.1)


def test_filters_are_zero_insertion_and_convolution_written_out():
    h = torch.randn(2, 3, 5, 7).double()
    fir, taps = FIR().double(), kernel().numpy()
    for n in range(2):
        for c in range(3):
            stuffed = torch.zeros(10 + 3, 14 + 3).double()  # two zeros before, one behind
            stuffed[2:-1:2, 2:-1:2] = h[n, c]
            doubled = torch.from_numpy(convolve2d(stuffed.numpy(), taps, "valid"))
            torch.testing.assert_close(fir.upsample(h)[n, c], doubled)
            padded = torch.nn.functional.pad(h[n, c], (1, 1, 1, 1))
            blurred = torch.from_numpy(convolve2d(padded.numpy(), taps, "valid"))
            torch.testing.assert_close(fir.blur(h)[n, c], blurred)


def test_doubling_keeps_a_flat_image_flat():
    flat_image = torch.full((1, 3, 8, 8), 0.7)
    torch.testing.assert_close(FIR().upsample(flat_image)[..., 1:-1, 1:-1], torch.full((1, 3, 14, 14), 0.7))


# The network.


def reference(p, w, noises):
    """The synthesis network, straight from public tensors, in (-1, 1)."""

    def modulated(name, h, row, up, demodulate):
        weight = p[f"{name}.conv.weight"][0]
        style = w[:, row] @ p[f"{name}.conv.modulation.weight"].T / sqrt(w.shape[-1])
        style = style + p[f"{name}.conv.modulation.bias"]
        return textbook(h, weight / sqrt(prod(weight.shape[1:])), style, up=up, demodulate=demodulate)

    def styled(name, h, row, noise, up):
        h = modulated(name, h, row, up, True) + p[f"{name}.noise.weight"] * noise
        h = h + p[f"{name}.activate.bias"].reshape(1, -1, 1, 1)
        return torch.where(h > 0, h, 0.2 * h) * 2**0.5

    def to_rgb(name, h, row):
        return modulated(name, h, row, False, False) + p[f"{name}.bias"]

    h = styled("conv1", p["input.input"].repeat(len(w), 1, 1, 1), 0, noises[0], False)
    rgb = to_rgb("to_rgb1", h, 1)
    for k in range(len(noises) // 2):
        h = styled(f"convs.{2 * k}", h, 2 * k + 1, noises[2 * k + 1], True)
        h = styled(f"convs.{2 * k + 1}", h, 2 * k + 2, noises[2 * k + 2], False)
        stuffed = torch.zeros(len(w), 3, *(2 * s + 3 for s in rgb.shape[2:])).to(rgb)
        stuffed[..., 2:-1:2, 2:-1:2] = rgb
        rgb = depthwise(stuffed) + to_rgb(f"to_rgbs.{k}", h, 2 * k + 3)
    return rgb


def reference_mapping(p, z, depth):
    w = z / (z.square().mean(1, keepdim=True) + 1e-8).sqrt()
    for i in range(1, depth + 1):
        w = w @ p[f"style.{i}.weight"].T * 0.01 / sqrt(z.shape[1]) + 0.01 * p[f"style.{i}.bias"]
        w = torch.where(w > 0, w, 0.2 * w) * 2**0.5
    return w


@pytest.mark.parametrize("channels", [[6, 6, 6, 4], [8, 8, 8, 6, 3]], ids=["32 px", "64 px"])
def test_images_are_those_of_the_public_layout_written_out(channels):
    public = public_state(channels, 5, 3)
    prior = built(public)
    state = {name: tensor.double() for name, tensor in prior.draw(2, torch.Generator().manual_seed(0)).items()}
    expected = reference(public, state["w"], [state[f"noise{i}"] for i in range(2 * len(channels) - 1)])
    images = prior(state)
    assert images.shape == (2, *prior.image_shape) == (2, 3, 2 ** (len(channels) + 1), 2 ** (len(channels) + 1))
    torch.testing.assert_close(images, (expected + 1) / 2)


def test_mapped_latents_are_those_of_the_public_layout_written_out():
    public = public_state(TINY_CHANNELS, 5, 3)
    z = torch.randn(7, 5).double()
    torch.testing.assert_close(built(public).map(z), reference_mapping(public, z, 3))


@pytest.mark.parametrize(("size", "rows"), [(256, 14), (1024, 18)])
def test_configuration_f_has_the_public_tensors(size, rows):
    with torch.device("meta"):
        prior = StyleGAN2(size=size)
        public = {name: torch.empty(shape) for name, shape in layout(CONFIG_F[size], 512, 8).items()}
    options, ours = convert(public)
    assert options == {
        "size": size,
        "channel_multiplier": 2,
        "width": 512,
        "style_dim": 512,
        "layers_mapping": 8,
    }
    theirs = {name: tensor.shape for name, tensor in ours.items()}
    assert theirs == {name: tensor.shape for name, tensor in prior.state_dict().items()}
    assert prior.blocks[-1].layers.stop + 1 == 2 * log2(size) - 2 == rows


@pytest.mark.parametrize(
    ("options", "published"),
    [({"size": 1024}, 30_370_060), ({"size": 256, "channel_multiplier": 1}, 24_767_458)],
    ids=str,
)
def test_the_number_of_parameters_is_the_published_one(options, published):
    """With the mapping network, which is no parameter here: 8 (512 x 512 + 512)."""
    with torch.device("meta"):
        prior = StyleGAN2(**options)
    assert sum(p.numel() for p in prior.parameters()) + 8 * (512 * 512 + 512) == published


# What is drawn.


def test_a_draw_depends_only_on_the_generator(prior):
    before = torch.get_rng_state()
    first, again, other = (prior.draw(3, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert {name: tuple(tensor.shape) for name, tensor in first.items()} == {
        "w": (3, 8, 5),
        "noise0": (3, 1, 4, 4),
        **{f"noise{i}": (3, 1, side, side) for i, side in enumerate((8, 8, 16, 16, 32, 32), 1)},
    }
    for name, tensor in first.items():
        assert torch.equal(tensor, again[name])
        assert not torch.equal(tensor, other[name])


def test_mapped_latents_are_the_same_in_every_row(prior):
    generator = torch.Generator().manual_seed(0)
    w = prior.draw(4, generator)["w"]
    z = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(w, prior.map(z)[:, None].expand(4, 8, 5))


def test_the_gaussian_has_the_moments_of_the_last_layer():
    """With one layer: normalized z has mean 0 and variance 1 per entry, so these follow from weight and bias."""
    public = public_state(TINY_CHANNELS, 16, 1)
    mean, std = built(public).gaussian
    expected_std = 2**0.5 * 0.01 * public["style.1.weight"].norm(dim=1) / 4
    torch.testing.assert_close(mean.double(), 2**0.5 * 0.01 * public["style.1.bias"], rtol=0, atol=0.06)
    torch.testing.assert_close(std.double(), expected_std, rtol=0.03, atol=0)


def test_the_gaussian_start_is_normal_before_its_leaky_relu_in_every_row_by_itself():
    """The mean of LeakyReLU_.2(X), X ~ N(m, s^2), is .2 m + .8 E max(X, 0) with E max(X, 0) = m Phi(m/s) + s phi(m/s);
    its square has .04 and .96 and E max(X, 0)^2 = (m^2 + s^2) Phi(m/s) + m s phi(m/s)."""
    prior = built(public_state(TINY_CHANNELS, 16, 2))
    m, s = prior.gaussian
    w = prior.draw_gaussian(4_000, torch.Generator().manual_seed(3))["w"]
    normal = torch.distributions.Normal(0.0, 1.0)
    below, density = normal.cdf(m / s), normal.log_prob(m / s).exp()
    first = 0.2 * m + 0.8 * (m * below + s * density)
    second = 0.04 * (m**2 + s**2) + 0.96 * ((m**2 + s**2) * below + m * s * density)
    noise = (second / len(w)).sqrt().expand(prior.rows, -1)
    assert ((w.mean(0) - first).abs() < 5 * noise).all()
    torch.testing.assert_close(w.square().mean(0), second.expand_as(noise), rtol=0.15, atol=0)
    a, b = (w[:, row] - w[:, row].mean(0) for row in (0, 1))
    assert ((a * b).mean(0) / (a.std(0) * b.std(0))).abs().max() < 0.1, "rows are independent"


def test_the_gaussian_is_no_parameter_and_kept(prior):
    before = set(prior.state_dict())
    assert prior.gaussian is prior.gaussian
    assert set(prior.state_dict()) == before


# Its search spaces.


@pytest.mark.parametrize("k", range(5))
def test_the_chain_can_be_split_at_any_block(prior, state, k):
    half = advance(prior, state, 0, k) if k else state
    torch.testing.assert_close(decode(prior, half, k), decode(prior, state))


def test_latents_and_noises_are_all_inputs(prior, state):
    assert {*prior.latents, *prior.noises} == state.keys()
    assert len(prior.noises) == len(state) - 1 == 7  # at 4, 8, 8, 16, 16, 32 and 32 px


@pytest.mark.parametrize("k", [1, 2, 3])
def test_without_the_colors_so_far_the_image_is_of_the_later_blocks(prior, state, k):
    """Against the reference, with colors of no weight before block k: its image is a sum over blocks, and linear."""
    public = public_state(TINY_CHANNELS, 5, 2)
    for name in ["to_rgb1", "to_rgbs.0", "to_rgbs.1"][:k]:
        public[f"{name}.conv.weight"].zero_()
        public[f"{name}.bias"].zero_()
    ahead = flat(advance(prior, state, 0, k))
    del ahead["skip"]
    ones = flat(state)
    expected = reference(public, ones["w"], [ones[f"noise{i}"] for i in range(7)])
    torch.testing.assert_close(prior.advance(ahead, k)["h"], (expected + 1) / 2)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_features_are_what_the_image_still_depends_on(prior, state, k):
    half = {name: tensor.clone().requires_grad_() for name, tensor in advance(prior, state, 0, k).items()}
    moving = prior.features(k)
    assert moving[:2] == ("h", "w")
    grads = torch.autograd.grad(decode(prior, half, k).square().sum(), list(half.values()), allow_unused=True)
    reached = {name for name, grad in zip(half, grads, strict=True) if grad is not None and grad.abs().max() > 0}
    assert "skip" in reached
    assert set(moving) == {n for n in reached if not n.startswith("noise") or int(n[5:]) < 5 + 2 * k} - {"skip"}


def test_images_are_searched_alone(prior, state):
    images = decode(prior, state)
    for r in range(R):
        for b in range(B):
            torch.testing.assert_close(images[r, b], prior(one(state, r, b))[0])


def test_every_parameter_reaches_the_image(prior, state):
    """The mapping network is no parameter, so a copy for every image has no unused entries."""
    w = {name: p.expand(R, B, *p.shape).clone().requires_grad_() for name, p in prior.named_parameters()}
    assert not any("mapping" in name for name in w)
    grads = torch.autograd.grad(decode_each(prior, w, state).square().sum(), list(w.values()))
    assert all(grad.flatten(2).abs().amax(2).min() > 0 for grad in grads)


def test_decode_each_is_a_loop_over_generators(prior, state):
    copies = [[deepcopy(prior) for _ in range(B)] for _ in range(R)]
    generator = torch.Generator().manual_seed(2)
    for copy in (copy for row in copies for copy in row):
        for p in copy.parameters():
            p.mul_(1 + 0.2 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    w = {
        name: torch.stack([torch.stack([copy.get_parameter(name) for copy in row]) for row in copies])
        for name, _ in prior.named_parameters()
    }
    images = decode_each(prior, w, state)
    for r in range(R):
        for b in range(B):
            torch.testing.assert_close(images[r, b], copies[r][b](one(state, r, b))[0])
    assert not torch.allclose(images, decode(prior, state), atol=0.01)


def test_decode_each_can_be_differentiated_twice():
    """Against finite differences of the first derivative, in w and the inputs."""
    prior = built(public_state([2, 2, 2, 2], 3, 1))
    drawn = prior.draw(2, torch.Generator().manual_seed(5))
    names = list(drawn)
    moving = [tensor.double()[None].requires_grad_() for tensor in drawn.values()]
    w = {name: p.expand(1, 2, *p.shape).clone().requires_grad_() for name, p in prior.named_parameters()}

    def images(*values):
        state = dict(zip(names, values, strict=False))
        return decode_each(prior, dict(zip(w, values[len(names) :], strict=True)), state)[..., ::5, ::5]

    torch.manual_seed(0)
    assert torch.autograd.gradgradcheck(images, (*moving, *w.values()), fast_mode=True)


# Public weights.


@pytest.fixture
def public():
    return public_state(TINY_CHANNELS, 5, 2, dtype=torch.float32)


def test_both_kinds_of_file_give_the_same_generator(public, tmp_path):
    torch.save({"g_ema": public, "latent_avg": torch.zeros(5)}, tmp_path / "faces.pt")
    save_file(public, tmp_path / "faces.safetensors")
    pickled, safe = (
        StyleGAN2.load_public(tmp_path / "faces.pt"),
        StyleGAN2.load_public(tmp_path / "faces.safetensors"),
    )
    assert pickled.trained_on == safe.trained_on == "faces"
    assert not pickled.training
    assert not any(p.requires_grad for p in pickled.parameters())
    assert pickled.state_dict().keys() == safe.state_dict().keys()
    state = pickled.draw(1, torch.Generator().manual_seed(0))
    assert torch.equal(pickled(state), safe(state))
    torch.testing.assert_close(pickled(state), built(public)(state), rtol=0, atol=0)


def test_a_fit_beside_the_weights_replaces_that_of_mapped_latents(public, tmp_path):
    path = tmp_path / "faces.pt"
    torch.save({"g_ema": public}, path)
    without = StyleGAN2.load_public(path, fit="fit.pt")
    assert without.fit is None
    fit = {"mean": torch.tensor([-1.0, 0, 1, 2, -3]), "std": torch.tensor([1.0, 2, 3, 0.5, 0.1])}
    torch.save(fit, tmp_path / "fit.pt")
    assert StyleGAN2.load_public(path).fit is None
    prior = StyleGAN2.load_public(path, fit="fit.pt").double()
    assert prior.state_dict().keys() - without.state_dict().keys() == {"fit"}, "a run's contents tell them apart"
    n = torch.randn(3, 8, 5, generator=torch.Generator().manual_seed(2))
    start = fit["std"] * n + fit["mean"]
    start[start < 0] /= 5
    torch.testing.assert_close(prior.draw_gaussian(3, torch.Generator().manual_seed(2))["w"], start)
    drawn = [each.draw(1, torch.Generator().manual_seed(0))["w"] for each in (prior.float(), without)]
    assert torch.equal(*drawn), "mapped latents have nothing to do with it"


@pytest.mark.parametrize(
    "wrong",
    [{"mean": torch.zeros(4), "std": torch.ones(4)}, {"mean": torch.zeros(5)}, [3]],
    ids=["4", "no std", "list"],
)
def test_another_fit_is_refused_in_one_line(wrong, public, tmp_path):
    torch.save({"g_ema": public}, tmp_path / "faces.pt")
    torch.save(wrong, tmp_path / "fit.pt")
    with pytest.raises(InputError, match=r"fit\.pt is not a Gaussian fit, mean and std of 5 numbers each") as caught:
        StyleGAN2.load_public(tmp_path / "faces.pt", fit="fit.pt")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.shared
@pytest.mark.skipif(not (SHARED / "weights").is_dir(), reason="needs ../shared/weights")
def test_the_fit_for_faces_is_loaded_with_the_published_generator(tmp_path):
    """Its file was written on a GPU and is read on any machine; the generator here is untrained."""
    entry = published()["stylegan2-ffhq-1024"]
    fit = entry.options["fit"]
    shared = SHARED / "weights" / "priors" / fit
    (tmp_path / fit).symlink_to(shared)
    torch.save({"g_ema": public_state([4] * 9, 512, 1, dtype=torch.float32)}, tmp_path / entry.file)
    prior = StyleGAN2.load_public(tmp_path / entry.file, **entry.options)
    found = torch.load(shared, "cpu", weights_only=True)
    assert prior.image_shape == (3, entry.size, entry.size)
    assert torch.equal(prior.gaussian[0], found["mean"]), "the file's, not those of its own mapping network"
    assert torch.equal(prior.gaussian[1], found["std"])
    assert (prior.gaussian[1] > 0).all()
    w = prior.draw_gaussian(2, torch.Generator().manual_seed(0))["w"]
    assert w.shape == (2, 18, 512)


class Code:
    """Not a tensor."""


def without(state, *starts):
    return {name: tensor for name, tensor in state.items() if not name.startswith(starts)}


WRONG = {
    "code": lambda s: {"g_ema": s, "args": Code()},
    "no g_ema": lambda s: s,
    "a list": lambda s: [3],
    "g_ema a number": lambda s: {"g_ema": 3},
    "another network": lambda s: {"g_ema": {"conv.weight": torch.zeros(3, 3)}},
    "16 px": lambda s: {"g_ema": without(s, "to_rgbs.2", "convs.4", "convs.5")},
    "half a block": lambda s: {"g_ema": without(s, "to_rgbs.2")},
    "no mapping network": lambda s: {"g_ema": without(s, "style.")},
    "a gap in the mapping network": lambda s: {"g_ema": without(s, "style.1.bias")},
    "another kernel size": lambda s: {"g_ema": {**s, "conv1.conv.weight": torch.zeros(1, 6, 6, 5, 5)}},
    "a scalar": lambda s: {"g_ema": {**s, "conv1.conv.weight": torch.tensor(0.0)}},
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
def test_other_files_are_refused_in_one_line(wrong, public, tmp_path):
    torch.save(wrong(public), tmp_path / "w.pt")
    refused(tmp_path / "w.pt")


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
@pytest.mark.parametrize("content", [None, b"", b"not weights"], ids=["absent", "empty", "text"])
def test_broken_files_are_refused_in_one_line(name, content, tmp_path):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    refused(tmp_path / name)


def refused(path):
    with pytest.raises(InputError) as caught:
        StyleGAN2.load_public(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < len(str(path)) + 320


@pytest.mark.parametrize("size", [16, 48, 2048])
def test_other_sizes_are_refused(size):
    with pytest.raises(InputError, match=f"not {size}"):
        StyleGAN2(size=size)


def test_the_center_is_the_mean_latent():
    prior = StyleGAN2(size=32, width=16, style_dim=8, layers_mapping=2).eval()
    state = prior.draw(4000, torch.Generator().manual_seed(1))
    center = prior.center(state)
    assert center.keys() == {"w"}
    torch.testing.assert_close(center["w"][7], state["w"].mean(0), atol=0.05, rtol=0)
    assert state["w"].mean(0).abs().max() > 0.1, "otherwise zeros would do"
