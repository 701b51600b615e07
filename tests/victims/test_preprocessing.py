"""What a client does to pixels before its model: whose numbers count, and that an attack does not depend on units."""

import pytest
import timm
import torch
import torchvision
from torch import nn

import gibench
from attacks.rgap import RGAP
from benchmark.config import Config
from benchmark.run import run
from benchmark.tasks.capture import Client, capture, capture_task
from victims.client import calibrate
from victims.data.photos import Photos
from victims.errors import InputError
from victims.models.fcn3 import FCN3
from victims.models.lenet import LeNet
from victims.modules import build
from victims.own_preprocessing import of_model
from victims.preprocessing import Preprocessing, given, text
from victims.victim import Victim, gradient

MEAN, STD = (0.45, 0.5, 0.4), (0.1, 0.2, 0.3)
BYTES = 1 / 255


class Plain(LeNet):
    """Takes images normalized by MEAN and STD, and does not say so."""


class Saying(LeNet):
    input_mean, input_std = MEAN, [*STD]


class Itself(LeNet):
    """The same function of pixels as `Plain` with its normalization: it normalizes images in [0, 1] by itself."""

    def forward(self, images):
        mean, std = Preprocessing(MEAN, STD).tensors(images.dtype)
        return super().forward((images - mean) / std)


class Bytes(Itself):
    """The same on inputs in 0..255."""

    def forward(self, images):
        return super().forward(images * BYTES)


class Normalize(nn.Module):
    """As wrappers of trained models have it."""

    def __init__(self, mean, std):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])

    def forward(self, images):
        return (images - self.mean) / self.std


class Wrapped(nn.Sequential):
    def __init__(self, **options):
        super().__init__(Normalize(MEAN, STD), LeNet(**options))


class Uses(LeNet):
    @property
    def mean(self):
        return MEAN

    @property
    def std(self):
        return STD

    def forward(self, images):
        return super().forward(Preprocessing(self.mean, self.std).normalize(images))


class Told(Uses):
    input_mean, input_std = 0, 1


class Loaded(LeNet):
    """Its numbers come with its weights."""

    def __init__(self, **options):
        super().__init__(**options)
        self.register_buffer("input_mean", torch.zeros(3))
        self.register_buffer("input_std", torch.ones(1, 3, 1, 1))


def config(model=Plain, **options):
    return Config(victim=f"{__name__}.{model.__name__}", defense="none", batch=1, precision="float64", **options)


def preprocessing(victim="lenet", **options):
    found = Config(victim=victim, **options)
    return found.make_victim(found.make_data()).preprocessing


@pytest.fixture
def data():
    return Photos(split="tune", size=32)


# Whose numbers count.


def test_what_is_given_counts_before_the_model_and_the_model_before_the_data_set(data):
    assert preprocessing(f"{__name__}.Plain") == data.preprocessing
    own = preprocessing(f"{__name__}.Saying")
    assert (own.mean, own.std, own.source) == (MEAN, STD, "the attributes of Saying")
    asked = preprocessing(f"{__name__}.Saying", mean="0", std="1,0.5,.25")
    assert (asked.mean, asked.std, asked.source) == ((0.0,) * 3, (1.0, 0.5, 0.25), "as given")


def test_a_defense_does_not_hide_what_the_model_says():
    assert preprocessing(f"{__name__}.Saying", defense="precode:4").mean == MEAN


def test_trained_weights_of_a_library_come_with_its_preprocessing(data):
    vit = timm.create_model("vit_tiny_patch16_224", pretrained=False, img_size=32)
    assert of_model(vit, "timm:vit_tiny_patch16_224", trained=True).mean == (0.5,) * 3
    assert of_model(vit, "timm:vit_tiny_patch16_224", trained=False) is None  # rows of random weights stay comparable
    assert of_model(vit, "my.models.net", trained=False).std == (0.5,) * 3  # its own function loads its weights
    net = nn.Identity()
    assert of_model(net, "torchvision:resnet18", trained=True).mean == (0.485, 0.456, 0.406)
    assert of_model(net, "torchvision:resnet18", trained=False) is None
    assert of_model(net, "resnet20", trained=True) is None


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_what_torchvisions_own_model_undoes_is_undone(name):
    """With its weights it comes with transform_input, which turns ImageNet's normalization into another one."""
    own = torchvision.models.get_model(name, weights=None, init_weights=False, transform_input=True)
    pixels = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    published = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    enters = own._transform_input(Preprocessing(tuple(published.mean), tuple(published.std)).normalize(pixels))
    found = of_model(nn.Identity(), f"torchvision:{name}", trained=True)
    torch.testing.assert_close(found.normalize(pixels), enters)


def test_weights_from_a_file_are_trained(tmp_path):
    model = timm.create_model("test_resnet", num_classes=10)
    torch.save(model.state_dict(), tmp_path / "mine.pth")
    spec = {"victim": "timm:test_resnet", "size": 32}
    assert "timm" not in preprocessing(**spec).source
    trained = preprocessing(**spec, victim_weights=str(tmp_path / "mine.pth"))
    assert (trained.mean, trained.source) == (model.pretrained_cfg["mean"], "timm's configuration of ResNet")


@pytest.mark.parametrize(("model", "who"), [(Uses, "the model, Uses,"), (Wrapped, r"'0' \(Normalize\) of the model")])
def test_it_is_asked_for_where_a_model_may_normalize_by_itself(model, who):
    """Normalized twice, or not at all, its update would be that of other images."""
    with pytest.raises(InputError, match=f"{who} has a mean and a std; if the model normalizes by itself") as error:
        preprocessing(f"{__name__}.{model.__name__}")
    assert "\n" not in str(error.value)
    assert preprocessing(f"{__name__}.{model.__name__}", mean="0", std="1").std == (1.0,) * 3


def test_a_model_that_normalizes_by_itself_can_say_so():
    assert preprocessing(f"{__name__}.Told").mean == (0.0,) * 3


def test_in_python_images_enter_a_model_that_says_nothing_as_they_are(data):
    images, labels = data.batch((3, 50))
    for kind in (Uses, Wrapped, Told):
        model = build(kind, image_shape=(3, 32, 32), num_classes=10, seed=0).eval()
        nn.functional.cross_entropy(model(images), labels).backward()
        update = gibench.capture(model, images, labels).update
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(update[name], parameter.grad)


def test_numbers_that_come_with_the_weights_count(tmp_path):
    model = build(Loaded, image_shape=(3, 32, 32), num_classes=10, seed=0)
    model.input_mean.copy_(torch.tensor(MEAN))
    torch.save(model.state_dict(), tmp_path / "mine.pt")
    found = preprocessing(f"{__name__}.Loaded", victim_weights=str(tmp_path / "mine.pt"))
    assert found.mean == pytest.approx(MEAN)


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ("0.5", None, "there is no --std; give both"),
        (None, "1", "there is no --mean; give both"),
        ("a", "1", "mean is 'a'; give one number"),
        ("0.5,", "1", "give one number, or one for each channel with commas"),
        ("0", "1,0,1", "std is 1.0,0.0,1.0; give numbers above 0"),
        ("0", "-1", "give numbers above 0"),
        ("nan", "1", "mean is nan; give finite numbers"),
        ("0", "inf", "std is inf; give finite numbers"),
        ("0,0", "1", "mean has 2 numbers, as given, and images have 3 channels"),
    ],
)
def test_numbers_that_are_none_are_one_line(mean, std, message):
    with pytest.raises(InputError, match=message) as error:
        preprocessing(mean=mean, std=std)
    assert "\n" not in str(error.value)


def test_an_option_says_the_same_numbers_again():
    for option in ("0.1,0.2,0.3", "0.5", "0.00392157"):
        assert text(given(option, "1").of_channels(3).mean) == option


# What is done with them.


def test_the_update_is_that_of_the_model_on_what_enters_it(data):
    model = build(LeNet, image_shape=(3, 32, 32), num_classes=10, seed=0).double()
    images, labels = data.batch((3, 50))
    inputs = Preprocessing(MEAN, STD).normalize(images.double())
    nn.functional.cross_entropy(model(inputs), labels).backward()
    victim = Victim(model, mean=data.mean, std=data.std, preprocessing=Preprocessing(MEAN, STD))
    normalized = victim.normalize(images.double())
    torch.testing.assert_close(victim.enter(normalized), inputs)
    torch.testing.assert_close(victim.leave(inputs), normalized)
    found = gradient(victim, normalized, labels)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad)


def test_an_attack_finds_the_same_whatever_units_the_model_takes(tmp_path, monkeypatch):
    monkeypatch.setenv("GIBENCH_OFFLINE", "1")
    asked = [config(Saying), config(Itself, mean="0", std="1"), config(Bytes, mean="0", std=repr(BYTES))]
    common = {"attack": "ig", "steps": 8, "tasks": 1, "restarts": 1, "devices": 1, "wandb": "off", "out": tmp_path}
    rows = [run(Config(**vars(one) | common)).read_rows()[0][0] for one in asked]
    said = [("0.45,0.5,0.4", "0.1,0.2,0.3"), ("0.0", "1.0"), ("0.0", repr(BYTES))]
    assert [(row["mean"], row["std"]) for row in rows] == said
    for row in rows[1:]:
        assert row["psnr"] == pytest.approx(rows[0]["psnr"], abs=1e-6)
        assert row["cost"] == pytest.approx(rows[0]["cost"], rel=1e-6)


def test_other_numbers_are_another_victim(data):
    (batch,) = config().make_batches(data, 1)
    plain, other = (
        capture_task(one.make_victim(data), data, batch, one.make_client()).observation.update
        for one in (config(), config(mean="0", std="1"))
    )
    assert not all(torch.allclose(plain[name], other[name]) for name in plain)


def test_a_closed_form_goes_back_to_pixels():
    images, labels = Photos(split="tune", size=8).batch((3,))
    model = build(FCN3, image_shape=(3, 8, 8), num_classes=10, seed=0).double()
    victim = Victim(model, mean=MEAN, std=STD, preprocessing=Preprocessing((0.1,) * 3, (0.5, 1.0, 2.0)))
    observation = capture(victim, images.double(), labels, Client(), task="t", num_classes=10)
    assert gibench.score(RGAP(restarts=2).run([observation]), images)["psnr"][0] > 60


def test_other_clients_train_on_what_enters_the_model(data):
    """The same functions of pixels end in the same weights."""
    options = {"rounds": 2, "between": 1}
    saying, itself = (one.make_models(data, 0)[0][1] for one in (
        config(Saying, **options), config(Itself, mean="0", std="1", **options)
    ))  # fmt: skip
    for one, other in zip(saying.parameters(), itself.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_running_statistics_are_those_of_what_enters_the_model(data):
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.LazyLinear(10))
    calibrate(model, data, Preprocessing((0.0,) * 3, (BYTES,) * 3))
    pixels, _ = data.batch(data.readable(range(len(data))))
    torch.testing.assert_close(model[0].running_mean, 255 * pixels.mean((0, 2, 3)), rtol=0.2, atol=0)


def test_a_model_says_its_preprocessing_in_python_too(data):
    images, labels = data.batch((3, 50))
    saying, plain = (build(kind, image_shape=(3, 32, 32), num_classes=10, seed=0) for kind in (Saying, LeNet))
    own = gibench.capture(saying, images, labels)
    asked = gibench.capture(plain, images, labels, mean=MEAN, std=STD)
    assert all(torch.equal(own.update[name], asked.update[name]) for name in asked.update)
    itself = gibench.capture(build(Itself, image_shape=(3, 32, 32), num_classes=10, seed=0), images, labels)
    one, other = (gibench.attack("ig", each, steps=3, restarts=1).pixels for each in (asked, itself))
    torch.testing.assert_close(one, other, atol=1e-3, rtol=0)
