"""The truth is out of an attack's reach: in memory, in a victim that keeps its inputs, and on the disk."""

import functools
import types
from collections import deque
from collections.abc import Collection, Iterator, Mapping

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_lightning import Trainer
from torch import nn
from torch.utils.data import DataLoader

import gibench
from attacks.ig import IG
from benchmark.__main__ import main
from benchmark.config import Config
from benchmark.run import run
from benchmark.tasks.batches import Batch
from benchmark.tasks.capture import Task
from benchmark.tasks.module import GradientDataModule
from victims.data.base import ImageData
from victims.data.photos import Photos
from victims.victim import Victim

SMALL = {"attack": "ig", "batch": 1, "steps": 10, "restarts": 1, "defense": "none", "devices": 1, "wandb": "off"}
LABELS = torch.tensor([3, 0])


def behind(item: object) -> Iterator[object]:
    """What attributes, slots, containers, bound methods and partial functions lead to; closures are not followed."""
    if isinstance(item, Mapping):
        yield from [*item.keys(), *item.values()]
    elif isinstance(item, list | tuple | set | frozenset | deque | types.MappingProxyType):
        yield from item
    if isinstance(item, types.MethodType):
        yield item.__self__
    if isinstance(item, functools.partial):
        yield from (item.func, item.args, item.keywords)
    yield from getattr(item, "__dict__", {}).values()
    for kind in type(item).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for slot in [slots] if isinstance(slots, str) else slots:
            if hasattr(item, slot):
                yield getattr(item, slot)


def reachable(*roots: object) -> list[object]:
    """Everything that can be reached from `roots`, but modules and classes, which lead to the whole program."""
    seen, queue = {}, list(roots)
    while queue:
        item = queue.pop()
        if id(item) not in seen and not isinstance(item, types.ModuleType | type | str | bytes | int | float):
            seen[id(item)] = item
            queue += behind(item)
    return list(seen.values())


def shown(items: Collection[object], image: torch.Tensor, mean, std) -> list[object]:
    """The arrays that are or contain an image (C, H, W) in [0, 1]: plain, normalized, or of bytes."""
    mean, std = (torch.tensor(values, dtype=torch.double)[:, None, None] for values in (mean, std))
    found = []
    for item in items:
        if isinstance(item, torch.Tensor | np.ndarray):
            values = torch.as_tensor(item).detach().cpu().double()
            if values.numel() and values.numel() % image.numel() == 0:
                each = values.reshape(-1, *image.shape)
                errors = [
                    (pixels - image).abs().flatten(1).amax(1).min() for pixels in (each, each * std + mean, each / 255)
                ]
                found += [item] if min(errors) < 1 / 255 else []
    return found


def test_the_walk_finds_what_is_hidden():
    image = torch.rand(3, 4, 4)

    class Slotted:
        __slots__ = ("left",)

    slotted = Slotted()
    slotted.left = {"deep": [deque([functools.partial(print, (image * 255).byte().numpy())])]}

    class Holder:
        def method(self):
            """Bound."""

    holder = Holder()
    holder.kept = slotted
    mean, std = (0.5,) * 3, (0.2,) * 3
    assert shown(reachable(holder.method), image, mean, std)
    assert shown(reachable([(image - 0.5) / 0.2]), image, mean, std)
    assert shown(reachable([image[None].half()]), image, mean, std)
    assert not shown(reachable([image.flip(-1)]), image, mean, std)


def keeps(forward):
    """A small net that does something else in its forward pass."""

    class Net(nn.Module):
        def __init__(self, *, image_shape=(3, 8, 8), num_classes=4, **options):
            super().__init__()
            channels, height, width = image_shape
            self.seen, self.head = [], nn.Linear(channels * height * width, num_classes)

        def forward(self, x):
            forward(self, x)
            return self.head(x.flatten(1))

    return Net


class Last(keeps(lambda net, x: setattr(net, "last", x))):
    pass


class All(keeps(lambda net, x: net.seen.append(x))):
    pass


@pytest.mark.parametrize("victim", ["lenet", f"{__name__}.Last", f"{__name__}.All"])
def test_no_attribute_leads_from_an_attack_to_the_truth(victim, tmp_path, monkeypatch):
    walks = []

    def training_step(attack, observations, index, step=IG.training_step):
        step(attack, observations, index)
        walks.append((attack.trainer.current_epoch, reachable(attack, observations)))

    monkeypatch.setattr(IG, "training_step", training_step)
    config = Config(**SMALL, victim=victim, tasks=2, out=tmp_path)
    folder = run(config)
    data = config.make_data()
    images = [data[data.ids.index(row["image"])][0] for row in folder.read_rows()[0]]
    assert [epoch for epoch, _ in walks] == [0, 0, 1, 1]
    for _, items in walks:
        assert {Trainer, GradientDataModule, DataLoader, Victim} <= {type(item) for item in items}
        assert not [item for item in items if isinstance(item, ImageData | Task | Batch)]
        for image in images:
            assert not shown(items, image, data.mean, data.std)


@pytest.mark.parametrize("net", [Last, All])
def test_nothing_that_a_model_keeps_is_in_an_observation(net):
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    model = net()
    observation = gibench.capture(model, images, LABELS, mean=(0.5,) * 3, std=(0.2,) * 3)
    assert not [found for image in images for found in shown(reachable(observation), image, (0.5,) * 3, (0.2,) * 3)]


@pytest.mark.parametrize("net", [Last, All])
def test_what_a_model_kept_before_it_was_captured_is_forgotten(net):
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    model = net()
    model(images)
    observation = gibench.capture(model, images, LABELS)
    assert not [found for image in images for found in shown(reachable(observation), image, (0.0,) * 3, (1.0,) * 3)]


def test_no_picture_of_the_truth_is_written_before_all_tasks_are_attacked(tmp_path, monkeypatch):
    options = [f"--{name}={value}" for name, value in SMALL.items()]
    command = ["run", *options, "--victim=lenet", "--tasks=3", f"--out={tmp_path}"]

    def truths():
        return list(tmp_path.rglob("truth/*"))

    def training_step(attack, observations, index, step=IG.training_step):
        assert not truths()
        if cut and attack.trainer.current_epoch == 2:
            raise RuntimeError("cut")
        step(attack, observations, index)

    monkeypatch.setattr(IG, "training_step", training_step)
    cut = True
    with pytest.raises(RuntimeError, match="cut"):
        main(command)
    assert len(list(tmp_path.rglob("parts/*.jsonl"))) == 2
    assert not truths()
    cut = False
    assert main(command) == 0
    assert len(truths()) == 3
    truths()[0].unlink()  # the same command draws it again
    assert main(command) == 0
    data = Photos(split="test")
    for path in truths():
        image = torch.from_numpy(np.asarray(Image.open(path)).copy()).permute(2, 0, 1) / 255
        torch.testing.assert_close(image, data[data.ids.index(path.stem)][0])
    assert len(truths()) == 3
