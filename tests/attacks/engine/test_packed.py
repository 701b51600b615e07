"""Convolutions with packed weights, against torch's own in float64."""

import gc

import pytest
import torch
from torch.nn.functional import conv2d
from torch.nn.grad import conv2d_input

from attacks.engine import packed

HOW = {  # channels, kernel, stride, padding, dilation
    "plain": (5, (3, 3), (1, 1), (1, 1), (1, 1)),
    "one pixel": (5, (1, 1), (2, 2), (0, 0), (1, 1)),
    "strided, nothing left over": (4, (3, 3), (2, 2), (1, 1), (1, 1)),
    "strided, a row left over": (4, (2, 3), (2, 3), (0, 1), (1, 1)),
    "dilated": (3, (3, 2), (1, 2), (2, 1), (2, 3)),
    "one channel": (1, (5, 5), (2, 2), (2, 2), (1, 1)),
    "larger than the map": (2, (9, 9), (1, 1), (4, 4), (1, 1)),
}
every_how = pytest.mark.parametrize(("channels", "kernel", "how"), [(c, k, h) for c, k, *h in HOW.values()], ids=HOW)
pytestmark = pytest.mark.skipif(
    not packed.can_pack(torch.zeros(1, 1, 1, 1), torch.zeros(1)), reason="needs a torch with oneDNN"
)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def close(found, expected):
    return (found.double() - expected).norm() <= 1e-6 * expected.norm()


@every_how
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_they_are_torchs_convolution_and_the_derivative_in_its_input(channels, kernel, how, layout):
    x, weight, bias = drawn(3, channels, 8, 7).contiguous(memory_format=layout), drawn(6, channels, *kernel), drawn(6)
    y = conv2d(x.double(), weight.double(), bias.double(), *how)
    found = packed.convolution(x, weight, bias, *how)
    assert close(found, y)
    d = drawn(*y.shape).contiguous(memory_format=layout)
    assert close(packed.adjoint(d, weight, x.shape[2:], *how), conv2d_input(x.shape, weight.double(), d.double(), *how))
    assert found.is_contiguous(memory_format=torch.channels_last)


@every_how
def test_tracers_know_shapes_and_strides_of_what_they_return(channels, kernel, how):
    x, weight = drawn(3, channels, 8, 7), drawn(6, channels, *kernel)
    d = packed.convolution(x, weight, None, *how)
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(packed.convolution, (x, weight, None, *how), test_utils=checks)
    torch.library.opcheck(packed.adjoint, (d, weight, x.shape[2:], *how), test_utils=checks)


def test_weights_are_packed_once_for_any_number_of_images_and_again_after_a_change(monkeypatch):
    weight, how, made = drawn(4, 3, 3, 3), ((1, 1), (1, 1), (1, 1)), []
    real = packed.kept
    monkeypatch.setattr(packed, "kept", lambda t, n, make: real(t, n, lambda: made.append(n) or make()))
    for count in (1, 2, 5):
        packed.convolution(drawn(count, 3, 6, 6), weight, None, *how)
        packed.adjoint(drawn(count, 4, 6, 6), weight, (6, 6), *how)
    assert len(made) == 2
    weight.mul_(2)
    x = drawn(2, 3, 6, 6)
    assert close(packed.convolution(x, weight, None, *how), conv2d(x.double(), weight.double(), padding=1))
    assert len(made) == 3


def test_what_is_kept_goes_with_its_tensor():
    gc.collect()  # what other tests left
    weight = drawn(4, 3, 3, 3)
    before = len(packed.KEPT)
    packed.convolution(drawn(1, 3, 6, 6), weight, None, (1, 1), (1, 1), (1, 1))
    assert len(packed.KEPT) == before + 1
    del weight
    gc.collect()
    assert len(packed.KEPT) == before
