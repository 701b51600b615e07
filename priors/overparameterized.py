"""The over-parameterized, untrained generator of CI-Net (supplement B.1 and figure 9, and its code)."""

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

LATENT = 128
SLOPE = 0.1  # of every LeakyReLU
SIZES = (16, 32, 64, 128, 256)

Power = dict[str, Tensor]
"""Per spectrally normalized weight: the vectors u and v of its power iteration, by `<name> u` and `<name> v`."""


def block(c_in: int, c_out: int) -> list[nn.Module]:
    """Two convolutions, each spectrally normalized, with batch norm and LeakyReLU."""
    layers: list[nn.Module] = []
    for channels in (c_in, c_out):
        layers += [nn.Conv2d(channels, c_out, 3, padding=1), nn.BatchNorm2d(c_out, track_running_stats=False)]
        layers += [nn.LeakyReLU(SLOPE)]
    return layers


class OverParameterized(nn.Module):
    """Latent 128 -> 4x4 -> ... -> size, nearest-neighbor doubling, `width` channels up to 32x32 and fewer above.

    Batch norm always normalizes by the batch, so the images of a batch depend on each other. Spectral norm divides the
    weights of the 3x3 convolutions by their largest singular value. The caller keeps the state of its power iteration
    (`generate`, `power_step`), so that an image is a function of the arguments alone.
    """

    def __init__(self, *, width: int, size: int) -> None:
        """
        Args:
            width: channels of the maps up to 32x32; half of it at 64, a quarter at 128 and 256.
            size: side of the images: 16, 32, 64, 128 or 256.
        """
        super().__init__()
        first = [nn.ConvTranspose2d(LATENT, width, 4), nn.BatchNorm2d(width, track_running_stats=False)]
        layers: list[nn.Module] = [*first, nn.LeakyReLU(SLOPE)]
        channels, side = width, 4
        while True:
            narrowed = max(1, {64: width // 2, 128: width // 4, 256: width // 4}.get(side, width))
            layers += block(channels, narrowed)
            channels = narrowed
            if side == size:
                break
            layers.append(nn.Upsample(scale_factor=2, mode="nearest"))
            side *= 2
        self.body = nn.Sequential(*layers)
        self.to_rgb = nn.Conv2d(channels, 3, 1)

    def forward(self, z: Tensor) -> Tensor:
        """Latents (B, 128) -> images (B, 3, size, size) in [-1, 1]."""
        return self.to_rgb(self.body(z[..., None, None])).tanh()

    def normalized(self) -> list[str]:
        """The weights under spectral norm: those of the 3x3 convolutions."""
        return [f"{n}.weight" for n, m in self.named_modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]


def parameter_count(width: int, size: int) -> int:
    """P(G), the number of parameters."""
    with torch.device("meta"):
        return sum(p.numel() for p in OverParameterized(width=width, size=size).parameters())


def power_start(net: OverParameterized, w: dict[str, Tensor]) -> Power:
    """The vectors after a first iteration from u = (1, ..., 1), which is not special for random weights.

    Args:
        w: parameters (R, ...).
    """
    power: Power = {}
    for name in net.normalized():
        matrix = w[name].flatten(2)
        power |= {f"{name} u": torch.ones_like(matrix[:, :, 0]), f"{name} v": torch.zeros_like(matrix[:, 0])}
    power_step(net, w, power)
    return power


def power_step(net: OverParameterized, w: dict[str, Tensor], power: Power) -> None:
    """One power iteration of every instance, in place: v = W^T u, u = W v, each brought to length 1.

    Args:
        w: parameters (R, ...).
        power: vectors (R, ...).
    """
    for name in net.normalized():
        u, v, matrix = power[f"{name} u"], power[f"{name} v"], w[name].flatten(2)
        v.copy_(nn.functional.normalize(torch.einsum("rij,ri->rj", matrix, u), dim=1))
        u.copy_(nn.functional.normalize(torch.einsum("rij,rj->ri", matrix, v), dim=1))


def generate(net: OverParameterized, w: dict[str, Tensor], power: Power, z: Tensor) -> Tensor:
    """Every instance with its own network: images (R, B, 3, H, W) in [-1, 1] from latents (R, B, 128).

    sigma = u^T W v, differentiable in W alone, as in Miyato et al., 2018.
    """
    names = net.normalized()

    def one(w_r: dict[str, Tensor], power_r: Power, z_r: Tensor) -> Tensor:
        divided = {
            name: w_r[name] / (power_r[f"{name} u"] @ w_r[name].flatten(1) @ power_r[f"{name} v"]) for name in names
        }
        return functional_call(net, {**w_r, **divided}, (z_r,))

    return vmap(one)(w, power, z)
