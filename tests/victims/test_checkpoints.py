"""Files of weights: every layout loads, code in a file never runs, and what does not fit is refused in one line."""

import hashlib
import pickle
import re
from argparse import Namespace
from collections import OrderedDict
from functools import partial
from pathlib import Path

import pytest
import pytorch_lightning as lightning
import torch
import torchvision
from safetensors.torch import load_file, save_file, save_model
from torch import nn

from tests.conftest import SHARED
from victims import checkpoints
from victims.by_name import find
from victims.data.imagenet import ImageNet
from victims.errors import InputError
from victims.models.convnet import ConvNet
from victims.models.lenet import LeNet
from victims.models.resnet20 import ResNet20
from victims.modules import build
from victims.victim import Victim


def make_one(make=ResNet20, num_classes=10, size=32, seed=0):
    return build(make, image_shape=(3, size, size), num_classes=num_classes, seed=seed)


@pytest.fixture
def trained():
    """Weights and buffers that no new model has."""
    model = make_one(seed=1)
    model.bn1.running_mean.fill_(7)
    return model.state_dict()


def under(prefix, state):
    return {prefix + name: tensor for name, tensor in state.items()}


def zeros(state):
    return {name: torch.zeros_like(tensor) for name, tensor in state.items()}


def old(state):
    """In the format of torch before 0.4.1."""
    return {name: tensor for name, tensor in state.items() if "num_batches" not in name}


@pytest.mark.parametrize(
    ("name", "wrap"),
    [
        ("bare.pt", lambda s: s),
        ("full.th", lambda s: {"best_prec1": 91.7, "state_dict": under("module.", old(s))}),
        ("timm.pth", lambda s: {"model": s, "epoch": 3}),
        ("st.safetensors", lambda s: s),
        ("compiled.pt", lambda s: under("_orig_mod.", s)),
        ("opacus.pt", lambda s: {"model_state_dict": under("_module.", s)}),
        ("net.pt", lambda s: {"net": under("net.", s), "acc": 91.0}),
        ("both.pt", lambda s: {"model": {"state_dict": under("model._orig_mod.module.", s)}}),
        ("part.pt", lambda s: {re.sub("^layer1.", "layer1._orig_mod.", key): value for key, value in s.items()}),
        ("own.pt", lambda s: under("classifier.", s) | {"loss.weight": torch.ones(10), "n_averaged": torch.tensor(3)}),
        ("ema.pt", lambda s: {"ema": under("module.", s), "args": Namespace(lr=0.1)}),
        ("raw.pt", lambda s: {"state_dict": under("model.", s) | under("average.", zeros(s)), "ema": zeros(s)}),
    ],
)
def test_every_layout_loads_whole(name, wrap, trained, tmp_path):
    path = tmp_path / name
    save_file(trained, path) if path.suffix == ".safetensors" else torch.save(wrap(trained), path)
    model = make_one()
    checkpoints.load(model, path, "resnet20")
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, trained[key]), key


class Versioned(nn.Sequential):
    """Of the second version: refuses files that say none, as torchvision's MNASNet, and knows a key of the first."""

    _version = 2

    def __init__(self):
        super().__init__(nn.Linear(2, 2), nn.BatchNorm1d(2))

    def _load_from_state_dict(self, state, prefix, local_metadata, *rest):
        self.seen = local_metadata.get("version")
        if self.seen is None:
            raise ValueError("no version")
        if self.seen == 1:
            state[f"{prefix}0.weight"] = state.pop(f"{prefix}first.weight")
        super()._load_from_state_dict(state, prefix, local_metadata, *rest)


def first_version(state):
    renamed = OrderedDict((key.replace("0.weight", "first.weight"), value) for key, value in state.items())
    renamed._metadata = state._metadata | {"": {"version": 1}}
    return renamed


def in_training(state):
    """As `Lightning` saves it, with a layer of its own that has the name of the model's and no version."""
    whole = OrderedDict(under("model.", state))
    whole._metadata = {"": {"version": 1}, "model": state._metadata[""], "0": {}}
    return {"state_dict": whole}


@pytest.mark.parametrize(
    ("name", "wrap", "version"),
    [
        ("own.pt", lambda s: s, 2),
        ("st.safetensors", lambda s: s, 2),
        ("old.pt", old, 2),
        ("first.pt", first_version, 1),
        ("last.ckpt", in_training, 2),
    ],
)
def test_layers_are_told_the_version_of_the_file(name, wrap, version, tmp_path):
    saved, model, path = build(Versioned, seed=1), build(Versioned, seed=0), tmp_path / name
    content = wrap(saved.state_dict())
    save_file(content, path) if path.suffix == ".safetensors" else torch.save(content, path)
    checkpoints.load(model, path, "versioned")
    assert model.seen == version
    for key, tensor in saved.state_dict().items():
        assert torch.equal(model.state_dict()[key], tensor), key


def test_a_file_without_the_counts_of_batch_norm_loads_whatever_version_it_says(tmp_path):
    saved, model = build(Versioned, seed=1), build(Versioned, seed=0)
    state = saved.state_dict()
    del state["1.num_batches_tracked"]
    torch.save(state, tmp_path / "x.pt")
    checkpoints.load(model, tmp_path / "x.pt", "versioned")
    assert torch.equal(model[0].weight, saved[0].weight)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_the_keys_of_torchvisions_published_densenets_are_renamed(prefix, tmp_path):
    """As torchvision does by itself: `denselayer1.norm.1.weight`."""
    make = partial(torchvision.models.DenseNet, 4, (2, 2), 4, bn_size=2, num_classes=10)
    saved, model = build(make, seed=1), build(make, seed=0)
    published = {re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2", k): v for k, v in saved.state_dict().items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in published
    torch.save(under(prefix, old(published)), tmp_path / "x.pth")
    checkpoints.load(model, tmp_path / "x.pth", "torchvision:densenet121")
    for key, tensor in old(saved.state_dict()).items():
        assert torch.equal(model.state_dict()[key], tensor), key


class Training(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.save_hyperparameters({"lr": 0.1})
        self.model = make_one(seed=1)
        self.loss = nn.CrossEntropyLoss(weight=torch.ones(10))


def test_a_checkpoint_of_lightning_loads(tmp_path):
    training, model = Training(), make_one()
    trainer = lightning.Trainer(accelerator="cpu", logger=False, enable_model_summary=False)
    trainer.strategy.connect(training)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    checkpoints.load(model, tmp_path / "last.ckpt", "resnet20")
    for key, tensor in training.model.state_dict().items():
        assert torch.equal(model.state_dict()[key], tensor), key


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)
        self.b.weight = self.a.weight


def test_a_safetensors_file_has_a_tied_weight_once(tmp_path):
    saved, model, path = Tied(), Tied(), tmp_path / "tied.safetensors"
    save_model(saved, path)
    assert len(load_file(path)) == 3
    checkpoints.load(model, path, "tied")
    assert torch.equal(model.b.weight, saved.a.weight)
    save_file({name: tensor for name, tensor in load_file(path).items() if "weight" not in name}, path)
    assert "its keys lack a.weight, b.weight" in refusal(model, path)


def test_several_models_in_a_file_are_refused_by_their_prefixes(trained, tmp_path):
    torch.save(under("student.", trained) | under("teacher.", trained), tmp_path / "x.pt")
    assert "2 models like resnet20, under student., teacher.; save the one" in refusal(make_one(), tmp_path / "x.pt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.to(torch.complex64), "conv1.weight is complex64, not floating point"),
        (lambda w: w.to(torch.int32), "conv1.weight is int32, not floating point"),
        (lambda w: w > 0, "conv1.weight is bool, not floating point"),
        (lambda w: w.fill_(torch.nan), "NaN or infinite numbers in conv1.weight"),
        (lambda w: w.double() * 1e300, "NaN or infinite numbers in conv1.weight"),  # infinite in the model's precision
    ],
)
def test_numbers_that_are_no_weights_are_refused(change, message, trained, tmp_path):
    torch.save(trained | {"conv1.weight": change(trained["conv1.weight"])}, tmp_path / "x.pt")
    assert message in refusal(make_one(), tmp_path / "x.pt")


def test_weights_in_half_precision_load(trained, tmp_path):
    torch.save({key: w.half() if w.is_floating_point() else w for key, w in trained.items()}, tmp_path / "x.pt")
    model = make_one()
    checkpoints.load(model, tmp_path / "x.pt", "resnet20")
    torch.testing.assert_close(model.conv1.weight, trained["conv1.weight"], rtol=1e-3, atol=1e-4)


def test_what_a_buffer_of_the_model_has_it_may_have(tmp_path):
    model = nn.Linear(2, 2)
    model.register_buffer("mask", torch.tensor([0, -torch.inf]))
    torch.save(model.state_dict(), tmp_path / "x.pt")
    checkpoints.load(model, tmp_path / "x.pt", "masked")


def refusal(model, path):
    with pytest.raises(InputError) as error:
        checkpoints.load(model, path, "resnet20")
    said = str(error.value)
    assert str(path) in said
    assert "\n" not in said
    return said


def test_other_classes_or_sizes_are_named(trained, tmp_path):
    torch.save(trained, tmp_path / "ten.pt")
    said = refusal(make_one(num_classes=100), tmp_path / "ten.pt")
    assert "linear.weight is 10 x 64, not 100 x 64" in said
    torch.save(make_one(LeNet).state_dict(), tmp_path / "lenet.pt")
    assert "--size" in refusal(make_one(LeNet, size=64), tmp_path / "lenet.pt")


@pytest.mark.parametrize("content", [{"a": torch.zeros(3)}, [1, 2], {"state_dict": 5}, {"model": {"a": "text"}}, 3])
def test_what_is_no_state_dict_of_the_model_is_refused(content, tmp_path):
    torch.save(content, tmp_path / "x.pt")
    assert "state dict of resnet20" in refusal(make_one(), tmp_path / "x.pt")


def test_another_models_weights_are_refused(tmp_path):
    torch.save(make_one(ConvNet).state_dict(), tmp_path / "convnet.pt")
    said = refusal(make_one(), tmp_path / "convnet.pt")
    assert "its keys lack conv1.weight, bn1.weight, bn1.bias and " in said
    assert "the model has no body.0.weight, " in said


class Harmful:
    ran = False

    def __reduce__(self):
        return setattr, (Harmful, "ran", True)


def test_code_in_a_file_is_not_run(tmp_path):
    torch.save({"state_dict": Harmful()}, tmp_path / "x.pt")
    (tmp_path / "y.pt").write_bytes(pickle.dumps(Harmful()))
    for name in ("x.pt", "y.pt"):
        assert "plain tensors" in refusal(make_one(), tmp_path / name)
    assert not Harmful.ran


def test_what_only_code_could_read_is_named(tmp_path):
    torch.save({"state_dict": {}, "stopped": Path("x"), "rule": nn.ReLU()}, tmp_path / "x.pt")
    said = refusal(make_one(), tmp_path / "x.pt")
    assert re.search(r"it also holds a (pathlib\.PosixPath|torch\.nn\S+ReLU), which only its own code can read", said)
    assert "save model.state_dict() alone" in said


def test_broken_and_missing_files_are_refused(tmp_path):
    for name in ("x.pt", "x.safetensors"):
        (tmp_path / name).write_text("no weights")
        assert "plain tensors" in refusal(make_one(), tmp_path / name)
    assert "put them there" in refusal(make_one(), tmp_path / "none.pt")


def test_a_file_is_found_as_a_path_and_below_the_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    inside = tmp_path / "weights" / "cifar10" / "x.th"
    inside.parent.mkdir(parents=True)
    inside.touch()
    assert checkpoints.find("cifar10/x.th", Path("weights")) == Path("weights/cifar10/x.th")
    assert checkpoints.find(str(inside), Path("elsewhere")) == inside
    with pytest.raises(InputError, match=r"'calibratd'.*random, calibrated") as error:
        checkpoints.find("calibratd", Path("weights"))
    assert "\n" not in str(error.value)


def test_a_row_names_the_file_and_its_content(tmp_path):
    path = tmp_path / "x.th"
    path.write_bytes(b"weights")
    assert checkpoints.label(path) == f"x.th:{hashlib.sha256(b'weights').hexdigest()[:8]}"


IMAGENET = SHARED / "data" / "imagenet", SHARED / "weights" / "imagenet"


@pytest.mark.shared
@pytest.mark.skipif(not all(f.is_dir() for f in IMAGENET), reason="needs ../shared/{data,weights}/imagenet")
def test_a_published_classifier_classifies_real_photographs():
    """Chance is one in a thousand; the file's own accuracy is about 64 %."""
    data = ImageNet(split="test", size=224, data_dir=SHARED / "data")
    make = find("torchvision:squeezenet1_1", lambda name: None)
    with pytest.warns(match="223 of 224 rows"):
        model = build(make, image_shape=(3, 224, 224), num_classes=1000, seed=0)
    checkpoints.load(model, checkpoints.find("imagenet/squeezenet1_1.pth", SHARED / "weights"), "squeezenet1_1")
    victim = Victim(model, mean=data.mean, std=data.std)
    images, labels = data.batch(range(0, len(data), 4))
    with torch.no_grad():
        found = victim.logits(victim.parameters, victim.normalize(images)).argmax(1)
    assert (found == labels).double().mean() > 0.45
