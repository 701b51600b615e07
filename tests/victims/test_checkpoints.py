"""Files of weights: every layout loads, code in a file never runs, and what does not fit is refused in one line."""

import hashlib
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.conftest import SHARED
from victims import checkpoints
from victims.by_name import find
from victims.data.imagenet import ImageNet
from victims.errors import InputError
from victims.models.convnet import ConvNet
from victims.models.lenet import LeNet
from victims.models.resnet20 import ResNet20
from victims.victim import Victim, build


def make_one(make=ResNet20, num_classes=10, size=32, seed=0):
    return build(make, image_shape=(3, size, size), num_classes=num_classes, seed=seed)


@pytest.fixture
def trained():
    """Weights and buffers that no new model has."""
    model = make_one(seed=1)
    model.bn1.running_mean.fill_(7)
    return model.state_dict()


def in_parallel(state):
    return {f"module.{name}": tensor for name, tensor in state.items()}


def old(state):
    """In the format of torch before 0.4.1."""
    return {name: tensor for name, tensor in state.items() if "num_batches" not in name}


@pytest.mark.parametrize(
    ("name", "wrap"),
    [
        ("bare.pt", lambda s: s),
        ("full.th", lambda s: {"best_prec1": 91.7, "state_dict": in_parallel(old(s))}),
        ("timm.pth", lambda s: {"model": s, "epoch": 3}),
        ("st.safetensors", lambda s: s),
    ],
)
def test_every_layout_loads_whole(name, wrap, trained, tmp_path):
    path = tmp_path / name
    save_file(trained, path) if path.suffix == ".safetensors" else torch.save(wrap(trained), path)
    model = make_one()
    checkpoints.load(model, path, "resnet20")
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, trained[key]), key


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
    assert "Missing key" in refusal(make_one(), tmp_path / "convnet.pt")


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
