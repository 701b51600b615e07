"""The whole benchmark in five lines of Python."""

import re
import subprocess
import sys
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.functional import cross_entropy
from torchvision.models import get_model

import gibench
from attacks.engine.half_precision import half_type, in_single_precision
from attacks.ig import IG
from benchmark.scoring.lpips import BACKBONES, Lpips
from benchmark.scoring.metrics import METRICS, PSNR_CAP
from benchmark.tracks.tuned import tuned_options
from defenses.noise import Noise
from defenses.sparsification import Sparsification
from priors.dcgan import DCGAN
from victims.data.photos import Photos
from victims.errors import InputError, Notice
from victims.models.lenet import LeNet
from victims.modules import build

ROOT = Path(__file__).resolve().parents[2]
CPU_SECONDS = 0.3


@pytest.fixture(scope="module")
def batch():
    return Photos(split="tune", size=16).batch((3, 50, 90))


@pytest.fixture(scope="module")
def model():
    return build(LeNet, image_shape=(3, 16, 16), num_classes=10, seed=0)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_importing_it_takes_no_time():
    code = "import sys, time, gibench; print(time.process_time(), 'torch' in sys.modules, gibench.__version__)"
    before = "import sys, time; print(time.process_time())"
    seconds, torch_is_there, version = subprocess.check_output(
        [sys.executable, "-c", code], text=True, cwd=ROOT
    ).split()
    idle = subprocess.check_output([sys.executable, "-c", before], text=True, cwd=ROOT)
    assert float(seconds) - float(idle) < CPU_SECONDS
    assert torch_is_there == "False"
    assert re.match(r"\d+\.\d+", version)


def test_every_name_is_there_and_no_other():
    assert all(getattr(gibench, name) is not None for name in gibench.__all__)
    assert set(gibench.__all__) < set(dir(gibench))
    with pytest.raises(AttributeError, match="has no attribute 'atack'"):
        _ = gibench.atack


def test_capture_attack_score(model, batch):
    images, labels = batch
    observation = gibench.capture(model, images, labels, mean=(0.5,) * 3, std=(0.25,) * 3)
    reconstruction = gibench.attack("ig", observation, steps=150, restarts=1, tv=1e-2)
    scores = gibench.score(reconstruction, images)
    assert reconstruction.pixels.shape == (1, *images.shape)
    assert 0 <= reconstruction.pixels.min() <= reconstruction.pixels.max() <= 1
    assert set(scores) == set(METRICS) - {"iip", "lpips_alex", "lpips_vgg", "same_face"}
    assert all(len(values) == 3 for values in scores.values())
    assert all(psnr > 12 for psnr in scores["psnr"])
    assert max(gibench.score(torch.rand(images.shape), images)["psnr"]) < 9


def test_scores_of_lpips_are_those_of_the_backbones_that_are_asked_for(tmp_path, monkeypatch):
    images, _ = Photos(split="tune", size=32).batch((3, 50, 90))
    darker = images / 2
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    features = get_model("alexnet", weights=None).features
    (tmp_path / "lpips").mkdir()
    save_file(features.state_dict(), tmp_path / "lpips" / BACKBONES["alex"].file)
    found = {}
    for asked in ("squeeze", "alex", "vgg,alex"):
        scores = gibench.score(darker, images, lpips=asked, weights_dir=tmp_path)
        found[asked] = {name: values for name, values in scores.items() if name.startswith("lpips")}
    own = Lpips.find(tmp_path, "alex")(darker, images).tolist()
    assert min(own) > 0
    missing = [None] * len(images)
    assert found["squeeze"] == {"lpips": missing}
    assert found["alex"] == {"lpips_alex": pytest.approx(own, rel=1e-5)}
    assert found["vgg,alex"] == {**found["alex"], "lpips_vgg": missing}
    with pytest.raises(InputError, match="lpips has no backbone 'nope'; give squeeze, alex, vgg"):
        gibench.score(images, images, lpips="nope")


def test_a_diverged_reconstruction_scores_as_a_failure(batch):
    images, labels = batch
    mean = images.mean(0).expand_as(images)[None]
    found = gibench.Reconstruction(mean, mean, labels[None], torch.tensor([torch.inf]), [], 0)
    assert gibench.score(found, images)["psnr"] == [0, 0, 0]
    assert min(gibench.score(mean[0], images)["psnr"]) > 5


def test_the_update_is_the_models_own_gradient(model, batch):
    images, labels = batch
    observation = gibench.capture(model, images, labels)
    model.zero_grad()
    nn.functional.cross_entropy(model(images), labels).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(observation.update[name], parameter.grad)
    assert observation.knowledge.labels.tolist() == sorted(labels.tolist())
    assert (observation.num_classes, observation.image_shape) == (10, (3, 16, 16))


def test_what_a_client_does_is_said_in_words(model, batch):
    images, labels = batch
    sent = gibench.capture(model, images, labels, defense="noise:0.1", seed=3, give_labels=False, adapt=False)
    assert same(sent.update, gibench.capture(model, images, labels, defense=Noise(0.1), seed=3).update)
    assert not same(sent.update, gibench.capture(model, images, labels).update)
    assert (sent.knowledge.labels, sent.knowledge.estimate) == (None, None)
    sparse = gibench.capture(model, images, labels, defense="sparsification:0.5", surrogate="parameter")
    assert sparse.knowledge.estimate is Sparsification.surrogates["parameter"]
    local = gibench.capture(model, images, labels, lr=0.1, epochs=2, mini_batch=1, know_lr=False)
    assert (local.knowledge.local.epochs, local.knowledge.local.mini_batch, local.knowledge.local.lr) == (2, 1, None)


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        (0.5, 0.25),
        ([0.5] * 3, torch.tensor(0.25)),
        (torch.full((3,), 0.5), torch.full((1, 3, 1, 1), 0.25)),
        (np.full(3, 0.5), np.float32(0.25)),
    ],
)
def test_mean_and_std_are_numbers_in_any_form(mean, std, model, batch):
    expected = gibench.capture(model, *batch, mean=(0.5,) * 3, std=(0.25,) * 3).update
    assert same(gibench.capture(model, *batch, mean=mean, std=std).update, expected)


def test_a_defense_that_changes_the_model_is_part_of_the_victim(model, batch):
    images, labels = batch
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    observation = gibench.capture(model, images, labels, defense="precode:8")
    assert len(observation.update) > len(list(model.parameters()))
    assert same(dict(model.state_dict()), before)


def test_a_prior_by_name_or_as_an_object(model, small_prior):
    images, labels = Photos(split="tune", size=32).batch((3, 50))
    net = build(LeNet, image_shape=(3, 32, 32), num_classes=10, seed=0)
    observation = gibench.capture(net, images, labels)
    shipped = gibench.attack("gias", observation, steps=4, restarts=1)
    by_name = gibench.attack("gias", observation, prior="dcgan-photos32", steps=4, restarts=1)
    own = gibench.attack("gias", observation, prior=small_prior, steps=4, restarts=1)
    assert torch.equal(shipped.images, by_name.images)
    assert not torch.equal(shipped.images, own.images)


def test_convolutions_on_a_gpu_are_exact_while_it_captures_and_attacks(batch):
    """And as the caller has them afterwards."""
    cudnn, seen = torch.backends.cudnn, set()

    class Watched(LeNet):
        def forward(self, x):
            seen.add((cudnn.allow_tf32, cudnn.deterministic))
            return super().forward(x)

    before = cudnn.allow_tf32, cudnn.deterministic
    with cudnn.flags(cudnn.enabled, deterministic=False, allow_tf32=True):
        observation = gibench.capture(build(Watched, image_shape=(3, 16, 16), num_classes=10, seed=0), *batch)
        gibench.attack("ig", observation, steps=2, restarts=1)
        assert (cudnn.allow_tf32, cudnn.deterministic) == (True, False)
    assert seen == {(False, True)}
    assert (cudnn.allow_tf32, cudnn.deterministic) == before


@pytest.mark.parametrize("method", ["gi_z", "gias"])
def test_a_prior_of_ones_own_is_used_in_eval_mode(method, batch, model):
    """Batch norm in train mode would mix the images of all starts."""
    images, labels = Photos(split="tune", size=32).batch((3, 50))
    observation = gibench.capture(build(LeNet, image_shape=(3, 32, 32), num_classes=10, seed=0), images, labels)
    prior = build(DCGAN, size=32, ngf=4, seed=0)
    found = []
    for training in (False, True):
        found.append(gibench.attack(method, observation, prior=prior.train(training), steps=4, restarts=2).images)
        assert prior.training == training
    assert torch.equal(*found)


def test_options_that_were_tuned(model, batch):
    """Those of the default track, or of one that is named; single options on top, and the caller's steps for theirs."""
    observation = gibench.capture(model, *batch)
    ours = {"": "photos-default", ":cifar10-b1": "cifar10-b1"}
    for preset, track in ours.items():
        tuned = tuned_options(track, "ig") | {"steps": 4}
        expected = gibench.attack("ig", observation, **tuned)
        found = gibench.attack("ig", observation, preset=f"tuned{preset}", steps=4)
        assert torch.equal(found.images, expected.images)
    few = gibench.attack("ig", observation, preset="tuned", steps_x=3, restarts=1)
    assert few.gradient_evaluations == 3


def test_a_class_a_preset_and_a_seed(model, batch):
    observation = gibench.capture(model, *batch)
    by_class = gibench.attack(IG, observation, steps=3, seed=1)
    assert torch.equal(by_class.images, gibench.attack("ig", observation, steps=3, seed=1).images)
    assert not torch.equal(by_class.images, gibench.attack("ig", observation, steps=3).images)
    assert gibench.attack("ig", observation, preset="paper", steps=3).gradient_evaluations == 3  # one restart


def test_scores_follow_the_assignment(batch):
    images, _ = batch
    scores = gibench.score(images[[2, 0, 1]], images)
    assert scores["psnr"] == [PSNR_CAP] * 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": torch.zeros(3, 16, 16)}, r"give floats \(B, C, H, W\)"),
        ({"images": torch.zeros(3, 3, 16, 16, dtype=torch.uint8)}, r"give floats \(B, C, H, W\)"),
        ({"images": torch.full((3, 3, 16, 16), 2.0)}, r"images go from 2 to 2; give them in \[0, 1\]"),
        ({"labels": torch.zeros(2, dtype=torch.long)}, "give 3 integers"),
        ({"labels": torch.tensor([0, 1, 10])}, "labels go from 0 to 10; the model has 10 classes"),
        ({"defense": "noize:1"}, "did you mean 'noise'"),
        ({"epochs": 2}, "give lr="),
        ({"lr": 0.1, "clients": 2}, "evenly"),
    ],
)
def test_what_does_not_fit_is_one_line(model, batch, change, message):
    given = {"images": batch[0], "labels": batch[1], **change}
    with pytest.raises(gibench.InputError, match=message) as error:
        gibench.capture(model, **given)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "igg"}, "did you mean 'ig'"),
        ({"method": "ig", "preset": "tuned:nowhere"}, "nowhere"),
        ({"method": "rgap", "preset": "tuned"}, "rgap has not been tuned on the track photos-default; run make tune"),
        ({"method": "lti", "preset": "paper"}, "preset paper is of a prior that is not shipped; train it .*--prior"),
        ({"method": "ig", "preset": "papr"}, "ig has no preset 'papr'; did you mean 'paper'"),
        ({"method": "ggl", "optimizer": "Adam"}, "ggl option optimizer is one of cma, nevergrad, adam, not 'Adam'"),
        ({"method": "ig", "eta": "0.1"}, "ig option eta is a number, not '0.1'"),
        ({"method": "gias", "prior": "dcgan-photo32"}, "did you mean"),
        ({"method": "gias", "prior": nn.Identity()}, "a prior is of type Identity; give a name, or an object of"),
        ({"method": "ig", "steps": 0}, "steps is 0"),
        ({"method": "idlg"}, "works on batches of 1, not 3; run with --batch 1.$"),
        ({"method": "rgap"}, "--batch 1. It is made for --victim fcn3 --batch 1 --defense none.$"),
    ],
)
def test_an_attack_that_cannot_run_is_one_line(model, batch, options, message):
    observation = gibench.capture(model, *batch)
    with pytest.raises(gibench.InputError, match=message):
        gibench.attack(options.pop("method"), observation, **options)


def test_the_readmes_lines_run():
    """Every block of Python in the README that imports gibench."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    (example,) = [block for block in blocks if "import gibench" in block]
    names: dict = {}
    exec(example, names)
    assert len(names["scores"]["psnr"]) == len(names["images"])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"bn": "runing"}, "bn is 'runing'"),
        ({"mode": "Train"}, "mode is 'Train'"),
        ({"giv_labels": False}, "did you mean 'give_labels'"),
        ({"mean": 0.5}, "mean= and std= go together, and std is missing"),
        ({"std": 0.5}, "mean= and std= go together, and mean is missing"),
        ({"mean": (0.5,), "std": 1}, "mean has 1 numbers"),
        ({"mean": torch.zeros(3, 16, 16), "std": 1}, "mean has 768 numbers"),
        ({"mean": "0.5", "std": 1}, "mean is of type str, and no numbers"),
        ({"mean": 0, "std": [None] * 3}, "std is of type list, and no numbers"),
        ({"mean": 0, "std": (0.5, 0.0, 0.5)}, "numbers above 0"),
        ({"defense": lambda update: update}, "defense is of type function; give a name"),
        ({"defense": Noise}, "defense is the class Noise; give a name, such as 'noise:0.01', or an object"),
    ],
)
def test_mistyped_words_of_capture_are_refused(model, batch, options, expected):
    with pytest.raises(gibench.InputError, match=expected):
        gibench.capture(model, *batch, **options)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"match": "xx"}, "match is one of aga, fa, sme, not 'xx'"),
        ({"compile": "maybe"}, "compile is one of auto, on, off, not 'maybe'"),
        ({"compile_s": 0}, "compile_s is 0"),
        ({"stepz": 3}, "did you mean 'steps_x'|did you mean 'steps'"),
        ({"prior": "dcgan"}, "ig takes no prior"),
        ({"preset": "papr"}, "did you mean 'paper'"),
    ],
)
def test_mistyped_words_of_attack_are_refused(model, batch, options, expected):
    with pytest.raises(gibench.InputError, match=expected):
        gibench.attack("ig", gibench.capture(model, *batch), **options)


def test_what_is_no_batch_is_refused(model, batch):
    images, labels = batch
    for wrong in ((images.numpy(), labels), (images, labels.tolist()), (images[:0], labels[:0]), (images, labels > 1)):
        with pytest.raises(gibench.InputError, match="give"):
            gibench.capture(model, *wrong)
    with pytest.raises(gibench.InputError, match="no logits"):
        gibench.capture(nn.Conv2d(3, 3, 1), images, labels)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_of_half_precision_is_attacked_in_float32(dtype, batch):
    """In half precision the cost of noise is rounded to 0, and no image is better than another."""
    images, labels = (part[:1] for part in batch)
    model = build(LeNet, image_shape=(3, 16, 16), num_classes=10, seed=0)
    half = gibench.capture(model.to(dtype), images, labels, bn="none")
    assert {g.dtype for g in half.update.values()} == {dtype}
    found = gibench.attack("ig", half, steps=2, restarts=1)
    single = gibench.capture(model.float(), images, labels)
    assert found.images.dtype == torch.float32
    as_single = replace(single, update={name: g.float() for name, g in half.update.items()})
    assert torch.equal(found.images, gibench.attack("ig", as_single, steps=2, restarts=1).images)
    assert half.victim.mean.dtype == dtype


def test_batch_norm_in_train_mode_is_no_reason_to_attack_in_half_precision(batch):
    """A single image would have one value per channel there, and is refused."""
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(3), nn.Linear(3, 10)).bfloat16()
    observation = gibench.capture(pooled, *batch, mode="train")
    assert gibench.attack("ig", observation, steps=1, restarts=1).images.dtype == torch.float32


def test_a_client_in_half_precision_shows_in_its_numbers(batch):
    model = build(LeNet, image_shape=(3, 16, 16), num_classes=10, seed=0)
    for dtype in (torch.bfloat16, torch.float16):
        observation = gibench.capture(deepcopy(model).to(dtype), *batch)
        assert half_type(in_single_precision(observation)) == half_type(observation) == dtype
    assert half_type(gibench.capture(model, *batch)) is None
    from_half = deepcopy(model).bfloat16().float()  # a file of half precision, trained on in float32
    assert half_type(gibench.capture(from_half, *batch)) is None


class HalfAlone(LeNet):
    def forward(self, x):
        return super().forward(x.bfloat16())


def test_a_model_that_runs_in_half_precision_alone_says_so(batch):
    model = build(HalfAlone, image_shape=(3, 16, 16), num_classes=10, seed=0).bfloat16()
    with pytest.warns(Notice, match="HalfAlone runs in bfloat16 alone .* costs in bfloat16 are rounding"):
        assert gibench.attack("ig", gibench.capture(model, *batch), steps=1).images.dtype == torch.bfloat16


def test_a_loss_of_probabilities_alone_is_matched_by_who_searches_probabilities(model, batch):
    images, labels = batch
    soft = nn.functional.one_hot(labels, 10).float()
    observation = gibench.capture(
        model, images, soft, loss=lambda z, y: -(y * z.log_softmax(-1)).sum(1).mean(), give_labels=False
    )
    assert gibench.attack("dlg", observation, steps=2, restarts=1).labels.shape == (1, 3, 10)
    with pytest.raises(gibench.InputError, match="cannot be used on 10 logits with classes as labels") as error:
        gibench.attack("cocktail_party_fi", observation, restarts=1)
    assert "\n" not in str(error.value)


class Standardized(nn.Sequential):
    """Probabilities of images that it standardizes; those of one color become NaN."""

    def forward(self, x):
        return super().forward((x - x.mean((1, 2, 3), keepdim=True)) / x.std((1, 2, 3), keepdim=True)).sigmoid()


def of_probabilities(p, labels):
    return nn.functional.binary_cross_entropy(p, nn.functional.one_hot(labels, p.shape[-1]).to(p))


def without_class_0(z, labels):
    weight = z.new_ones(z.shape[-1]).index_fill(0, torch.tensor(0), 0)
    return nn.functional.cross_entropy(z, labels, weight, reduction="sum") / len(z)


@pytest.mark.parametrize(("kind", "loss"), [(Standardized, of_probabilities), (nn.Sequential, without_class_0)])
def test_a_loss_is_tried_on_images_and_labels_as_it_may_get(kind, loss, batch):
    images, labels = (part[:1] for part in batch)
    model = kind(nn.Flatten(), build(partial(nn.Linear, 3 * 16 * 16, 10), seed=0))
    observation = gibench.capture(model, images, labels.clamp(min=1), loss=loss)
    assert gibench.attack("cocktail_party_fi", observation, steps=3, restarts=1).cost.isfinite().all()


def test_what_is_no_prior_is_refused_in_one_line(model, batch):
    observation = gibench.capture(model, *batch)
    with pytest.raises(gibench.InputError, match="a prior is of type function; give a name, or an object of a Prior"):
        gibench.attack("gias", observation, prior=lambda z: z)
    with pytest.raises(gibench.InputError, match="a prior is of type Identity"):
        gibench.attack("ig", observation, refine=nn.Identity())


class ThreeImages(LeNet):
    def forward(self, x):
        return super().forward(x.view(3, 3, 16, 16))


def test_a_model_is_tried_on_batches_such_as_the_given_one(batch):
    """torch's batch norm refuses a single image of one pixel; another model takes three images alone."""
    observation = gibench.capture(build(ThreeImages, image_shape=(3, 16, 16), num_classes=10, seed=0), *batch)
    assert gibench.attack("ig", observation, steps=1, restarts=2).cost.isfinite().all()
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(3), nn.Linear(3, 10))
    pooled[2].register_forward_hook(lambda layer, given, out: None)  # so that it stays torch's
    gibench.capture(pooled, *batch, mode="train")
    with pytest.raises(gibench.InputError, match="Expected more than 1 value per channel"):
        gibench.capture(pooled, batch[0][:1], batch[1][:1], mode="train")


def test_the_prior_of_the_caller_stays_as_it_is(batch):
    from priors.dcgan import DCGAN

    prior = build(DCGAN, size=32, ngf=4, seed=0).eval()
    model = build(LeNet, image_shape=(3, 16, 16), num_classes=10, seed=0).double()
    observation = gibench.capture(model, batch[0].double(), batch[1])
    gibench.attack("gi_z", observation, prior=prior, steps=1, restarts=1)
    assert {p.dtype for p in prior.parameters()} == {torch.float32}


class Cached(nn.Module):
    """Keeps what it makes of a weight in its first pass, and has a number that it needs in a list."""

    def __init__(self):
        super().__init__()
        self.weight, self.head = nn.Parameter(torch.ones(3, 1, 1)), nn.Linear(192, 5)
        self.cache, self.factors = {}, [torch.tensor(2.0)]

    def forward(self, x):
        if "scale" not in self.cache:
            self.cache["scale"] = self.weight * self.factors[0]
        return self.head((x * self.cache["scale"]).flatten(1))


def test_what_a_model_keeps_of_an_earlier_pass_hides_no_gradient():
    x, y = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 4])
    model = Cached()
    loss = cross_entropy(model(x), y)
    expected = torch.autograd.grad(loss, model.weight)[0]
    update = gibench.capture(model, x, y).update
    torch.testing.assert_close(update["weight"], expected)
    assert expected.any()
