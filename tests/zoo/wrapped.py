"""Models in what people put around them: wrappers, compilers, hooks."""

import torch
from pytorch_lightning import LightningModule
from torch import nn
from torch.nn.functional import cross_entropy

from tests.zoo.net import SHAPE, Net


def compiled():
    return torch.compile(Net(), backend="aot_eager")


def compiled_inside():
    net = Net()
    net.body = torch.compile(net.body, backend="aot_eager")
    return net


def compiled_in_place():
    net = Net()
    net.compile(backend="aot_eager")
    return net


def distributed():
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    return nn.parallel.DistributedDataParallel(Net())


class Lit(LightningModule):
    def __init__(self, net=None) -> None:
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, _):
        images, labels = batch
        return cross_entropy(self(images), labels)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class LitWithoutForward(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = Net()


def opacus():
    from opacus import GradSampleModule

    net = Net()
    net.body[1] = nn.GroupNorm(2, 4)
    return GradSampleModule(net)


def opacus_after_a_step():
    model = opacus()
    cross_entropy(model(torch.rand(2, *SHAPE)), torch.tensor([0, 1])).backward()
    model.zero_grad()
    return model


def opacus_hooks():
    from opacus.grad_sample import GradSampleHooks

    net = Net()
    net.body[1] = nn.GroupNorm(2, 4)
    net.hooks = GradSampleHooks(net)
    return net


def averaged():
    return torch.optim.swa_utils.AveragedModel(Net())


def channels_last():
    return Net().to(memory_format=torch.channels_last)


def scripted():
    return torch.jit.script(Net())


def traced():
    return torch.jit.trace(Net().eval(), torch.zeros(2, *SHAPE))


def exported():
    return torch.export.export(Net(), (torch.zeros(2, *SHAPE),)).module()


def symbolically_traced():
    return torch.fx.symbolic_trace(Net())


def on_meta():
    return Net().to("meta")


def hooked():
    net = Net()
    net.seen = {}
    net.neck.register_forward_hook(lambda layer, _, out: net.seen.update(neck=out))
    net.body.register_forward_pre_hook(lambda _, given: (2 * given[0],))
    net.head.register_full_backward_hook(lambda layer, given, left: None)
    return net


def clipped_by_hooks():
    net = Net()
    for p in net.parameters():
        p.register_hook(lambda g: g.clamp(-1e-4, 1e-4))
    return net


def without_hooks(net):
    plain = Net()
    plain.load_state_dict(net.state_dict())
    return plain


def replaced_forward():
    net = Net()
    before = net.forward
    net.forward = lambda x: 2 * before(x)
    return net
