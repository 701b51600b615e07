"""Files of timm's weights, as timm and the authors of its models publish them."""

import re
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from benchmark.config import Config
from benchmark.scoring.accuracy import classified_right
from tests.conftest import SHARED
from victims import checkpoints
from victims.by_name import of_timm
from victims.errors import InputError, Notice
from victims.modules import build

VIT = "vit_tiny_patch16_224"


def make_one(name, size=32, *, seed=0, num_classes=1000, channels=3):
    return build(partial(of_timm, name), image_shape=(channels, size, size), num_classes=num_classes, seed=seed).eval()


def load(name, state, tmp_path, size=32, **options):
    """The weights of a file in a model of this name with others."""
    save_file(state, tmp_path / "model.safetensors")
    model = make_one(name, size, seed=1, **options)
    checkpoints.load(model, tmp_path / "model.safetensors", f"timm:{name}")
    return model


def refusal(*arguments, **options):
    with pytest.raises(InputError) as error:
        load(*arguments, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", ["test_vit", "test_convnext", "test_resnet", "deit_tiny_distilled_patch16_224"])
def test_a_file_for_the_same_images_loads_as_it_is(name, tmp_path):
    trained, images = make_one(name), torch.rand(2, 3, 32, 32)
    with warnings.catch_warnings():
        warnings.simplefilter("error", Notice)
        loaded = load(name, trained.state_dict(), tmp_path)
    with torch.no_grad():
        assert torch.equal(loaded(images), trained(images))


def in_facebooks_layout(key):
    """A key of timm's ConvNeXt as its authors write it."""
    key = re.sub(r"^stem\.(\d)", r"downsample_layers.0.\1", key)
    key = re.sub(r"^stages\.(\d)\.blocks\.(\d+)", r"stages.\1.\2", key)
    key = re.sub(r"^stages\.(\d)\.downsample\.(\d)", r"downsample_layers.\1.\2", key)
    key = key.replace("conv_dw", "dwconv").replace("mlp.fc1", "pwconv1").replace("mlp.fc2", "pwconv2")
    return key.replace("head.fc.", "head.").replace("head.norm.", "norm.")


def test_the_layout_of_a_models_authors_loads(tmp_path):
    trained, images = make_one("convnext_tiny"), torch.rand(1, 3, 32, 32)
    state = {in_facebooks_layout(key): value for key, value in trained.state_dict().items()}
    assert state.keys() != trained.state_dict().keys()
    torch.save({"model": state}, tmp_path / "convnext.pth")
    model = make_one("convnext_tiny", seed=1)
    checkpoints.load(model, tmp_path / "convnext.pth", "timm:convnext_tiny")
    with torch.no_grad():
        assert torch.equal(model(images), trained(images))


def test_position_embeddings_are_resampled_to_the_size_of_the_images(tmp_path):
    """By Pillow's bicubic filter, which widens where it shrinks, as timm's does."""
    state = make_one(VIT, 224).state_dict()
    with pytest.warns(Notice, match=r"timm resampled pos_embed from 1 x 197 x 192 to 1 x 17 x 192; its accuracy"):
        found = load(VIT, state, tmp_path, 64).state_dict()
    before, after = state["pos_embed"][0], found["pos_embed"][0]
    assert torch.equal(after[0], before[0])  # of the class token
    for channel in (0, 100):
        grid = Image.fromarray(before[1:, channel].reshape(14, 14).numpy())
        expected = np.asarray(grid.resize((4, 4), Image.Resampling.BICUBIC))
        torch.testing.assert_close(after[1:, channel].reshape(4, 4), torch.tensor(expected), rtol=0, atol=1e-6)
    others = [key for key in state if key != "pos_embed"]
    assert all(torch.equal(found[key], state[key]) for key in others)


def test_what_timm_cannot_resample_is_refused(tmp_path):
    said = refusal("cait_xxs24_224", make_one("cait_xxs24_224", 64).state_dict(), tmp_path, 32)
    assert "pos_embed is 1 x 16 x 192, not 1 x 4 x 192; give weights for the data's classes, --channels and" in said


def test_other_classes_channels_and_models_are_refused(tmp_path):
    state = make_one(VIT, 64).state_dict()
    assert "head.weight is 1000 x 192, not 10 x 192" in refusal(VIT, state, tmp_path, num_classes=10)
    assert "192 x 3 x 16 x 16, not 192 x 1 x 16 x 16" in refusal(VIT, state, tmp_path, channels=1)
    assert "keys lack cls_token" in refusal(VIT, make_one("test_resnet").state_dict(), tmp_path)
    assert "is not a state dict of timm:convnext_atto" in refusal("convnext_atto", state, tmp_path)


@pytest.mark.slow
@pytest.mark.shared
def test_a_trained_efficientnet_has_its_known_accuracy():
    """154 of the 180 images, resized as classifiers of ImageNet are tested; mean 127/255 and std 128/255."""
    weights = SHARED / "weights" / "imagenet" / "tf_efficientnet_lite0_timm.safetensors"
    if not weights.is_file():
        pytest.skip("needs ../shared/weights/imagenet")
    options = {"victim": "timm:tf_efficientnet_lite0", "victim_weights": str(weights), "mean": "0.498", "std": "0.502"}
    right = []
    for split in ("tune", "test"):
        config = Config(data="imagenet", split=split, size=224, resize="ggl", data_dir=SHARED / "data", **options)
        data = config.make_data()
        victim = config.make_victim(data)
        right += classified_right(victim, victim.parameters, data, range(len(data)))
    assert len(right) == 180
    assert sum(right) == pytest.approx(154, abs=1)
