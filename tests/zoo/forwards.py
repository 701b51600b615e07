"""Models with an odd forward or output."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import relu_
from torch.utils.checkpoint import checkpoint

from tests.zoo.net import CLASSES, SHAPE, Net, net_with


@net_with
def Keeps(self, x):
    self.last = self.body(x)
    return self.head(self.neck(self.last))


@net_with
def Reentrant(self, x):
    return self.head(checkpoint(self.neck, self.body(x), use_reentrant=True))


@net_with
def NonReentrant(self, x):
    return self.head(checkpoint(self.neck, self.body(x), use_reentrant=False))


@dataclass
class Output:
    logits: torch.Tensor
    hidden: torch.Tensor


@net_with
def HuggingFace(self, x):
    h = self.neck(self.body(x))
    return Output(self.head(h), h)


@net_with
def Dict(self, x):
    return {"logits": self.head(self.neck(self.body(x)))}


@net_with
def Tuple(self, x):
    h = self.neck(self.body(x))
    return self.head(h), h


class TwoHeads(Net):
    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Linear(16, CLASSES)

    def forward(self, x):
        h = self.neck(self.body(x))
        return (self.head(h) + self.other(h)) / 2


@net_with
def Flat(self, x):
    return self.head(self.neck(self.body(x)))[:, 0]


class Counts(Net):
    """Keeps a running mean of its own, that it also uses."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(144))
        self.register_buffer("steps", torch.tensor(0))

    def forward(self, x):
        x = self.body(x)
        with torch.no_grad():
            self.mean.lerp_(x.mean(0), 0.1)
            self.steps += 1
        return self.head(self.neck(x - self.mean))


class Remembers(Net):
    """The same with an attribute that is no buffer."""

    calls = 0

    def forward(self, x):
        self.calls += 1
        return super().forward(x) * self.calls


class RemembersOutside(Net):
    """The same with what all objects of the class have: every forward is another."""

    calls = [0]

    def forward(self, x):
        self.calls[0] += 1
        return super().forward(x) * self.calls[0]


class Caches(Net):
    """As timm's LeViT in eval mode: what it makes of a weight, it makes once."""

    def __init__(self) -> None:
        super().__init__()
        self.bias, self.cache = nn.Parameter(torch.zeros(8)), {}

    def forward(self, x):
        if x.device not in self.cache:
            self.cache[x.device] = self.bias[[0, 1] * 8]
        return self.head(self.neck(self.body(x)) + self.cache[x.device])


@net_with
def InPlaceFunctions(self, x):
    x = self.body[0](x).mul_(2)
    x += 0.1
    x = relu_(x)
    return self.head(self.neck[0](self.body[3](x)).clamp_(-0.5, 0.5))


@net_with
def WritesIntoTheImages(self, x):
    x.mul_(2)
    return self.head(self.neck(self.body(x)))


class SaysOnce(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return 2 * x * g


class Detaching(torch.autograd.Function):
    """Its backward has no derivative, and does not say so."""

    @staticmethod
    def forward(ctx, x):
        ctx.x = x.detach()
        return x.square()

    @staticmethod
    def backward(ctx, g):
        return 2 * ctx.x * g


@net_with
def OnceDifferentiable(self, x):
    return self.head(SaysOnce.apply(self.neck(self.body(x))))


@net_with
def SilentlyOnce(self, x):
    return self.head(Detaching.apply(self.neck(self.body(x))))


@net_with
def Detached(self, x):
    return self.head(self.neck(self.body(x)).detach())


@net_with
def NoGrad(self, x):
    with torch.no_grad():
        x = self.neck(self.body(x))
    return self.head(x)


@net_with
def Argmax(self, x):
    return self.head(nn.functional.one_hot(self.neck(self.body(x)).argmax(1), 16).to(x))


@net_with
def PartlyDetached(self, x):
    x = self.body(x)
    return self.head(self.neck(x) + self.neck(x.detach()))


@net_with
def Inference(self, x):
    with torch.inference_mode():
        x = self.neck(self.body(x))
    return self.head(x)


@net_with
def Numpy(self, x):
    scale = float(x.detach().numpy().max())
    return self.head(self.neck(self.body(x))) * scale


class Branches(Net):
    def forward(self, x):
        x = self.body(x)
        if x.mean() < 0:
            x = -x
        return self.head(self.neck(x))


class Autocast(Net):
    def forward(self, x):
        with torch.autocast("cpu", torch.bfloat16):
            return super().forward(x).to(x.dtype)


class FixedBatch(Net):
    def forward(self, x):
        return super().forward(x.view(2, *SHAPE))
