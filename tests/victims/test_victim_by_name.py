"""Victims by name: the right model is built, and what cannot be a victim is refused in one line."""

import warnings

import pytest
import timm
import torch
import torchvision
from timm.models.vision_transformer import VisionTransformer as TimmViT
from torch import nn
from torch.nn.functional import dropout, hardsigmoid
from torchvision.models.vision_transformer import VisionTransformer as TorchvisionViT
from torchvision.ops import StochasticDepth

from attacks.engine.gradients import victim_gradients
from attacks.engine.probe import Probe, vectorizes
from benchmark.registry import open_victim
from victims import by_name
from victims.classifier import classifiers
from victims.elementary import Hardsigmoid
from victims.errors import InputError, Notice
from victims.models.lenet import LeNet
from victims.modules import build
from victims.victim import Victim


def make_one(spec, size=32, *, training=False, num_classes=10, seed=0, own=open_victim):
    make = by_name.find(spec, own, training=training)
    return build(make, image_shape=(3, size, size), num_classes=num_classes, seed=seed)


def refusal(spec, *arguments, **options):
    with pytest.raises(InputError) as error:
        make_one(spec, *arguments, **options)
    said = str(error.value)
    assert spec in said or spec.partition(":")[2] in said
    assert "\n" not in said
    return said


def shapes(model):
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


# Names.


def test_plain_names_and_dotted_paths_are_the_suites_own():
    assert type(make_one("lenet")) is LeNet
    assert type(make_one("victims.models.lenet.LeNet")) is LeNet


def test_models_of_torchvision_are_unchanged():
    """The stem of ImageNet: the small-image form has the plain name."""
    model = make_one("torchvision:resnet18")
    assert shapes(model) == shapes(torchvision.models.resnet18(num_classes=10))
    assert model.conv1.stride == (2, 2)
    assert isinstance(model.maxpool, nn.MaxPool2d)
    assert make_one("resnet18").conv1.stride == (1, 1)


def test_models_of_timm_are_unchanged_and_get_the_size_if_they_need_it():
    assert shapes(make_one("timm:test_resnet")) == shapes(timm.create_model("test_resnet", num_classes=10))
    assert make_one("timm:vit_tiny_patch16_224", 48).pos_embed.shape == (1, 1 + 9, 192)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("torchvision:resnet17", "resnet18"),
        ("torchvision:fcn_resnet50", "no classifier"),  # segmentation
        ("timm:vit_tiny_patch16_225", "vit_tiny_patch16_224"),
        ("timm:qqqqqq", "names"),
        ("keras:resnet50", "torchvision:NAME or timm:NAME"),
        ("lanet", "did you mean 'lenet'"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(spec, expected):
    assert expected in refusal(spec)


@pytest.mark.parametrize("spec", ["timm:test_convnext", "torchvision:squeezenet1_1"])
@pytest.mark.filterwarnings("ignore::victims.errors.Notice")
def test_weights_depend_only_on_the_seed(spec):
    torch.manual_seed(5)
    first = make_one(spec).state_dict()
    before = torch.get_rng_state()
    again, other = make_one(spec).state_dict(), make_one(spec, seed=1).state_dict()
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


# Images that a model cannot take.


@pytest.mark.parametrize(
    ("spec", "size"), [("alexnet", 16), ("vgg16", 16), ("torchvision:squeezenet1_1", 8), ("timm:test_vit", 40)]
)
@pytest.mark.filterwarnings("ignore:Initializing zero-element")
def test_images_of_a_wrong_size_are_refused(spec, size):
    said = refusal(spec, size)
    assert f"3 x {size} x {size}" in said
    assert "--size" in said


def test_pixels_that_a_model_never_sees_are_reported():
    """Patches of 16 px do not fill 40 px, and a convolution without padding leaves an edge."""
    for spec, size, seen in (("timm:vit_tiny_patch16_224", 40, 32), ("torchvision:squeezenet1_1", 64, 63)):
        with pytest.warns(Notice, match=f"{seen} of {size} rows and {seen} of {size} columns"):
            make_one(spec, size)
    with warnings.catch_warnings():
        warnings.simplefilter("error", Notice)
        make_one("timm:vit_tiny_patch16_224", 32)
        make_one("torchvision:squeezenet1_1", 63)


class Flat(nn.Module):
    """Softmax regression; what a subclass does to its logits is refused, or not."""

    def __init__(self, *, image_shape, num_classes):
        super().__init__()
        self.linear = nn.Linear(3 * 8 * 8, num_classes)

    def forward(self, x):
        return self.linear(x.flatten(1))


class Broken(Flat):
    def forward(self, x):
        raise KeyError("first line\nsecond line")


class Silent(Flat):
    def forward(self, x):
        raise ValueError


class Pair(Flat):
    def forward(self, x):
        return super().forward(x), x


class Pixels(Flat):
    def forward(self, x):
        return x


class Functional(Flat):
    def forward(self, x):
        return dropout(super().forward(x), 0.5, training=self.training)


class Deep(Flat):
    def __init__(self, **options):
        super().__init__(**options)
        self.depth = StochasticDepth(0.1, "row")

    def forward(self, x):
        return self.depth(super().forward(x))


class Once(Flat):
    """torch has no second derivative of this, which the update's derivative needs behind a trained layer."""

    def forward(self, x):
        return hardsigmoid(super().forward(x))


class Eleven(Flat):
    def __init__(self, *, image_shape, num_classes):
        super().__init__(image_shape=image_shape, num_classes=num_classes + 1)


class Always(Flat):
    def forward(self, x):
        return super().forward(x) + torch.randn(())


class NoDropout(Flat):
    def __init__(self, **options):
        super().__init__(**options)
        self.drop = nn.Dropout(0.0)

    def forward(self, x):
        return self.drop(super().forward(x))


@pytest.mark.parametrize(
    ("model", "training", "expected"),
    [
        (Broken, False, "KeyError"),
        (Silent, False, "ValueError: raise ValueError"),
        (Once, False, "hardsigmoid_backward is not implemented"),
        (Pair, False, "returns a tuple of 2, no logits"),
        (Pixels, True, "returns a tensor (2, 3, 8, 8), no logits"),
        (Functional, True, "--victim-mode eval"),
        (Deep, True, "--victim-mode eval"),
        (Always, False, "cannot be repeated; change it"),
        (Eleven, False, "logits for 11 classes, not 10"),
    ],
)
def test_what_cannot_be_a_victim_is_refused(model, training, expected):
    assert expected in refusal("mine.Model", 8, training=training, own=lambda name: model)


@pytest.mark.parametrize(
    ("model", "training"), [(Flat, False), (Flat, True), (Functional, False), (Deep, False), (NoDropout, True)]
)
def test_a_model_without_random_numbers_is_accepted(model, training):
    taken = make_one("mine.Model", 8, training=training, own=lambda name: model)
    assert type(taken) is model
    assert taken.training == training


@pytest.mark.parametrize("spec", ["torchvision:squeezenet1_1", "torchvision:efficientnet_b0"])
@pytest.mark.filterwarnings("ignore::victims.errors.Notice")
def test_models_with_dropout_are_only_for_eval_mode(spec):
    assert "--victim-mode eval" in refusal(spec, training=True)
    make_one(spec)


def test_a_trial_does_not_change_the_model():
    model = make_one("resnet20", training=True)
    assert model.bn1.num_batches_tracked == 0
    assert not model.bn1.running_mean.any()
    assert all(p.grad is None for p in model.parameters())


# The classifier, and second derivatives.


@pytest.mark.parametrize(
    ("spec", "classifier"),
    [
        ("torchvision:resnet18", "fc"),
        ("torchvision:mobilenet_v3_small", "classifier.3"),
        ("timm:test_resnet", "fc"),
        ("timm:test_vit", "head"),
        ("timm:test_efficientnet", "classifier"),
        ("timm:convnext_atto", "head.fc"),
    ],
)
@pytest.mark.filterwarnings("ignore::victims.errors.Notice")
def test_the_layer_that_makes_the_logits_is_the_classifier(spec, classifier):
    model = make_one(spec, num_classes=7)
    assert classifiers(model, (3, 32, 32)) == {classifier: 1.0}
    assert len(model.get_parameter(f"{classifier}.weight")) == 7


def test_a_convolution_that_classifies_is_no_linear_layer():
    with pytest.warns(Notice):
        model = make_one("torchvision:squeezenet1_1")
    with pytest.raises(InputError, match="no linear layer"):
        classifiers(model, (3, 32, 32))


def tiny_timm_vit(*, image_shape, num_classes):
    return TimmViT(img_size=16, patch_size=8, embed_dim=16, depth=1, num_heads=2, num_classes=num_classes)


def tiny_torchvision_vit(*, image_shape, num_classes):
    return TorchvisionViT(16, 8, num_layers=1, num_heads=2, hidden_dim=16, mlp_dim=16, num_classes=num_classes)


@pytest.fixture
def fused_attention():
    """Torch's default; if it stays on, the derivative below does not exist."""
    torch.backends.cuda.enable_flash_sdp(True)
    torch.backends.cuda.enable_mem_efficient_sdp(True)
    torch.backends.cuda.enable_cudnn_sdp(True)


@pytest.mark.parametrize("make", [tiny_timm_vit, tiny_torchvision_vit])
def test_attention_is_differentiated_twice(make, fused_attention):
    """The gradient of the gradient's norm is its finite difference, also without torch.func."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Notice)  # a classifier that starts at zero says nothing of what a model sees
        model = make_one("mine.Model", 16, own=lambda name: make).double()
    for parameter in model.parameters():  # torchvision's classifier starts at zero
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    victim = Victim(model, mean=(0.5,) * 3, std=(0.2,) * 3)
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(1, 2, 3, 16, 16, generator=generator, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([[3, 1]])

    def norm2(x):
        return sum(g.square().sum() for g in victim_gradients(victim, x, labels, vectorized=False).values())

    (gradient,) = torch.autograd.grad(norm2(images), images)
    direction = torch.randn(images.shape, generator=generator, dtype=torch.float64)
    step = 1e-5 * direction
    difference = (norm2(images.detach() + step) - norm2(images.detach() - step)).item() / 2e-5
    assert (gradient * direction).sum().item() == pytest.approx(difference, rel=1e-6)
    with pytest.warns(Notice, match="continuing with one instance after another"):
        assert not vectorizes(Probe(victim, (3, 16, 16), 2))


def test_hard_sigmoids_are_replaced_by_equal_ones_with_a_second_derivative():
    x = torch.linspace(-5, 5, 201, dtype=torch.float64)
    torch.testing.assert_close(Hardsigmoid()(x), nn.Hardsigmoid()(x))
    plain = build(torchvision.models.mobilenet_v3_small, num_classes=10, seed=0).eval()
    taken = Victim(make_one("torchvision:mobilenet_v3_small"), mean=(0.0,) * 3, std=(1.0,) * 3).model
    assert any(isinstance(m, nn.Hardsigmoid) for m in plain.modules())
    assert not any(isinstance(m, nn.Hardsigmoid) for m in taken.modules())
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(taken(images), plain(images))
