"""Models with odd layers and parameters."""

import warnings

import torch
from torch import nn
from torch.nn.utils import parametrize

from tests.zoo.net import Net


class Tied(Net):
    def __init__(self) -> None:
        super().__init__()
        self.again = nn.Linear(144, 16, bias=False)
        self.again.weight = self.neck[0].weight

    def forward(self, x):
        x = self.body(x)
        return self.head(self.neck(x) + self.again(x))


class Scaled(Net):
    """A scale of one number, as ReZero's and CLIP's."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.5))

    def forward(self, x):
        return super().forward(x) * self.scale


class TiedAcross(Net):
    """As autoencoders tie decoder to encoder."""

    def forward(self, x):
        h = self.neck(self.body(x))
        return self.head(self.neck(torch.sigmoid(h @ self.neck[0].weight)))


def weight_norm_old():
    net = Net()
    with warnings.catch_warnings(action="ignore"):
        net.neck[0] = nn.utils.weight_norm(net.neck[0])
        net.body[0] = nn.utils.weight_norm(net.body[0])
    return net


def parametrized(how, *at):
    def make():
        net = Net()
        for name in at:
            how(net.get_submodule(name))
        return net

    return make


class Positive(nn.Module):
    def forward(self, x):
        return x.exp()


def positive(layer):
    parametrize.register_parametrization(layer, "weight", Positive())


class Lazy(Net):
    def __init__(self) -> None:
        super().__init__()
        with warnings.catch_warnings(action="ignore"):
            self.body[0], self.neck[0] = nn.LazyConv2d(4, 3, 2, 1), nn.LazyLinear(16)


class OneLogit(Net):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(16, 1)


def linear_probe():
    net = Net().requires_grad_(False)
    net.head.requires_grad_()
    return net


class Adapter(nn.Module):
    """LoRA of a linear layer."""

    def __init__(self, layer) -> None:
        super().__init__()
        self.layer = layer.requires_grad_(False)
        self.down = nn.Parameter(0.1 * torch.randn(2, layer.in_features))
        self.up = nn.Parameter(0.1 * torch.randn(layer.out_features, 2))

    def forward(self, x):
        return self.layer(x) + x @ self.down.T @ self.up.T


def lora():
    net = Net().requires_grad_(False)
    net.neck[0], net.head = Adapter(net.neck[0]), Adapter(net.head)
    return net


class Dropout(Net):
    def __init__(self) -> None:
        super().__init__()
        self.neck = nn.Sequential(nn.Linear(144, 16), nn.Sigmoid(), nn.Dropout(0.3))


def frozen_batch_norm():
    net = Net()
    net.body[1].running_mean += 0.3
    net.train().body[1].eval()
    return net


class OwnBatchNorm(nn.BatchNorm2d):
    """With a forward of its own: twice what torch gives."""

    def forward(self, x):
        return 2 * super().forward(x)


def own_batch_norm():
    net = Net()
    net.body[1] = OwnBatchNorm(4)
    return net


def hooked_batch_norm():
    net = Net()
    net.body[1].register_forward_hook(lambda _layer, _given, out: out.sin())
    return net


def parametrized_batch_norm():
    net = Net()
    positive(net.body[1])
    return net


def no_statistics():
    net = Net()
    net.body[1] = nn.BatchNorm2d(4, track_running_stats=False)
    return net


def group_norm():
    net = Net()
    net.body[1] = nn.GroupNorm(2, 4)
    return net


def in_place():
    net = Net()
    net.body[2] = nn.LeakyReLU(inplace=True)
    return net


class Mixed(Net):
    """The head in float64 or bfloat16, as it is kept for stability or memory."""

    def __init__(self, dtype) -> None:
        super().__init__()
        self.head.to(dtype)

    def forward(self, x):
        return self.head(self.neck(self.body(x)).to(self.head.weight.dtype)).float()


class MixedFirst(Net):
    """Its first parameter has another type than the images that it takes."""

    def __init__(self) -> None:
        super().__init__()
        body, neck, head = self.body, self.neck, self.head
        del self.body, self.neck, self.head
        self.token = nn.Parameter(torch.zeros(16, dtype=torch.bfloat16))
        self.body, self.neck, self.head = body, neck, head

    def forward(self, x):
        return self.head(self.neck(self.body(x)) + self.token.float())


class Positions(Net):
    """An embedding of integers, as of positions."""

    def __init__(self) -> None:
        super().__init__()
        self.places = nn.Embedding(4, 36)

    def forward(self, x):
        x = self.body[:3](x) + self.places(torch.arange(4, device=x.device)).view(4, 6, 6)
        return self.head(self.neck(x.flatten(1)))


class Shared(Net):
    """One layer called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Linear(16, 16)

    def forward(self, x):
        h = torch.tanh(self.block(self.neck(self.body(x))))
        return self.head(torch.tanh(self.block(h)))


class SharedNorm(Net):
    """One batch norm under two names, called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.again = self.body[1]

    def forward(self, x):
        return self.head(self.neck(self.body[3](self.again(self.body[:3](x)))))


class Unused(Net):
    def __init__(self) -> None:
        super().__init__()
        self.auxiliary = nn.Linear(16, 3)


class Loops(Net):
    """A list of layers that torch does not know of."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = [nn.Linear(16, 16).double() for _ in range(2)]

    def forward(self, x):
        h = self.neck(self.body(x))
        for layer in self.hidden:
            h = torch.tanh(layer(h.to(layer.weight)).to(h))
        return self.head(h)


class Attention(Net):
    def __init__(self) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(4, 2, batch_first=True)
        self.norm = nn.LayerNorm(4)

    def forward(self, x):
        x = self.body[:3](x).flatten(2).mT
        x = self.norm(x + self.attend(x, x, x, need_weights=False)[0])
        return self.head(self.neck(x.flatten(1)))


class Encoder(Net):
    """torch's own transformer layer, which takes a fused path in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(4, 2, 8, 0.0, batch_first=True)

    def forward(self, x):
        return self.head(self.neck(self.layer(self.body[:3](x).flatten(2).mT).flatten(1)))


class Recurrent(Net):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 4, batch_first=True)

    def forward(self, x):
        return self.head(self.neck(self.lstm(self.body[:3](x).flatten(2).mT)[0].flatten(1)))


class Hard(Net):
    def __init__(self) -> None:
        super().__init__()
        self.neck[1] = nn.Hardswish()
        self.body[2] = nn.Hardsigmoid()


def sync_batch_norm():
    return nn.SyncBatchNorm.convert_sync_batchnorm(Net())


class Nested(Net):
    """A batch norm that is not a child by name but the last of a list."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleDict({"a": nn.BatchNorm1d(16)})

    def forward(self, x):
        return self.head(self.norms["a"](self.neck(self.body(x))))
