"""LPIPS against the package `lpips`, and the places its weights may come from."""

import io
import shutil
import subprocess
import threading
import time
from hashlib import sha256
from pathlib import Path
from urllib.error import URLError

import lpips as oracle_package
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchvision.models import get_model, squeezenet1_1

from benchmark.scoring import lpips as lpips_backbone
from benchmark.scoring.lpips import BACKBONES, Lpips, find_all
from benchmark.scoring.networks import available_to
from benchmark.scoring.score import score
from victims.errors import InputError

SHARED = Path(__file__).resolve().parents[3].parent / "shared"
MIN_SIDE = BACKBONES["squeeze"].min_side


def random_images(count: int, side: int, seed: int) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def classifier() -> nn.Module:
    """SqueezeNet with random weights: all paths but the published numbers can be tested with them."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return squeezenet1_1()


@pytest.fixture
def features_file(classifier, tmp_path) -> Path:
    path = tmp_path / "lpips" / "squeezenet1_1_features.pth"
    path.parent.mkdir()
    torch.save(classifier.features.state_dict(), path)
    return path


@pytest.fixture
def cached_file(monkeypatch, tmp_path) -> Path:
    """The place of torchvision's file in an empty torch hub cache."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("GIBENCH_OFFLINE", raising=False)
    return tmp_path / "home" / "hub" / "checkpoints" / "squeezenet1_1-b8a52dc0.pth"


@pytest.fixture(scope="module")
def weights_dir(tmp_path_factory) -> Path:
    """All backbones with random weights, as the shared files have them: prefixed safetensors, VGG in half precision."""
    folder = tmp_path_factory.mktemp("weights")
    (folder / "lpips").mkdir()
    for backbone in BACKBONES.values():
        generator = torch.Generator().manual_seed(0)
        with torch.device("meta"):
            shapes = {name: tensor.shape for name, tensor in get_model(backbone.model).features.state_dict().items()}
        scales = {name: max(1, shape[1:].numel()) ** -0.5 for name, shape in shapes.items()}
        state = {name: torch.randn(shape, generator=generator) * scales[name] for name, shape in shapes.items()}
        if backbone.file.endswith(".pth"):
            torch.save(state, folder / "lpips" / backbone.file)
        else:
            dtype = torch.float16 if "fp16" in backbone.file else torch.float32
            save_file({f"features.{name}": t.to(dtype) for name, t in state.items()}, folder / "lpips" / backbone.file)
    return folder


def answer_with(monkeypatch, payload: bytes) -> None:
    monkeypatch.setattr(lpips_backbone, "urlopen", lambda url, timeout: io.BytesIO(payload))


def conv(x: Tensor, state: dict[str, Tensor], name: str, **options: int) -> Tensor:
    return nn.functional.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], **options).relu()


def features_of_alexnet(x: Tensor, state: dict[str, Tensor]) -> list[Tensor]:
    """The outputs of its five convolutions (Krizhevsky 2014), with a 3x3 pooling after the first and the second."""
    levels = [conv(x, state, "0", stride=4, padding=2)]
    levels.append(conv(nn.functional.max_pool2d(levels[-1], 3, 2), state, "3", padding=2))
    levels.append(conv(nn.functional.max_pool2d(levels[-1], 3, 2), state, "6", padding=1))
    levels.append(conv(levels[-1], state, "8", padding=1))
    return [*levels, conv(levels[-1], state, "10", padding=1)]


def features_of_vgg(x: Tensor, state: dict[str, Tensor]) -> list[Tensor]:
    """The output of the last convolution of every block of VGG-16, between which the size is halved."""
    levels, place = [], 0
    for convolutions in (2, 2, 3, 3, 3):
        x = nn.functional.max_pool2d(x, 2) if levels else x
        for _ in range(convolutions):
            x = conv(x, state, str(place), padding=1)
            place += 2
        levels.append(x)
        place += 1
    return levels


@pytest.mark.parametrize(("name", "features"), [("alex", features_of_alexnet), ("vgg", features_of_vgg)])
@pytest.mark.parametrize("side", ["least", 48])
def test_lpips_is_that_of_the_paper(name, features, side, weights_dir):
    """Equation 1 of Zhang et al. 2018, with the weights of the channels that the package of its authors ships."""
    lpips, side = Lpips.find(weights_dir, name), BACKBONES[name].min_side if side == "least" else side
    a, b = random_images(3, side, seed=1), random_images(3, side, seed=2)
    stored = load_file(weights_dir / "lpips" / BACKBONES[name].file)
    state = {key.removeprefix("features."): tensor.float() for key, tensor in stored.items()}
    channels = torch.load(Path(oracle_package.__file__).parent / "weights" / "v0.1" / f"{name}.pth", map_location="cpu")
    expected = torch.zeros(3)
    shift, scale = (torch.tensor(v)[:, None, None] for v in ([-0.030, -0.088, -0.188], [0.458, 0.448, 0.450]))
    ours, theirs = (features(((2 * x - 1) - shift) / scale, state) for x in (a, b))
    for level, (x, y) in enumerate(zip(ours, theirs, strict=True)):
        w = channels[f"lin{level}.model.1.weight"].flatten()
        unit_x, unit_y = (nn.functional.normalize(features, dim=1) for features in (x, y))
        expected += torch.einsum("bchw,c->bhw", (unit_x - unit_y) ** 2, w).mean((1, 2))
    assert lpips.backbone == name
    assert torch.allclose(lpips(a, b), expected, rtol=1e-4, atol=0)
    assert lpips(a, a).tolist() == [0, 0, 0]


@pytest.mark.filterwarnings("ignore::UserWarning:torchvision")
@pytest.mark.parametrize("side", [MIN_SIDE, 32, 64])
def test_lpips_is_that_of_the_package(classifier, features_file, side):
    oracle = oracle_package.LPIPS(net="squeeze", pretrained=True, pnet_rand=True, verbose=False)
    parts = [getattr(oracle.net, f"slice{number}") for number in range(1, 8)]
    nn.Sequential(*(layer for part in parts for layer in part)).load_state_dict(classifier.features.state_dict())
    a, b = random_images(3, side, seed=1), random_images(3, side, seed=2)
    ours = Lpips.find(features_file.parents[1])
    assert ours.available
    assert ours.backbone == "squeeze"
    assert torch.allclose(ours(a, b), oracle(a, b, normalize=True).flatten(), rtol=1e-5, atol=0)
    assert ours(a, a).tolist() == [0, 0, 0]


@pytest.mark.shared
@pytest.mark.skipif(not (SHARED / "weights" / "lpips").is_dir(), reason="needs ../shared/weights/lpips")
@pytest.mark.parametrize(
    ("name", "values"), {"squeeze": [0.1024, 0.0938], "alex": [0.1312, 0.1420], "vgg": [0.3582, 0.3457]}.items()
)
def test_lpips_has_the_documented_values(name, values):
    generator = torch.Generator().manual_seed(42)
    a, b = (torch.rand(2, 3, 100, 100, generator=generator) for _ in range(2))
    assert Lpips.find(SHARED / "weights", name)(a, b).tolist() == pytest.approx(values, abs=5e-5)


def test_a_gray_image_is_an_image_of_three_equal_channels(features_file):
    a, b = random_images(2, 32, seed=1)[:, :1], random_images(2, 32, seed=2)[:, :1]
    lpips = Lpips.find(features_file.parents[1])
    assert torch.equal(lpips(a, b), lpips(a.expand(-1, 3, -1, -1), b.expand(-1, 3, -1, -1)))


def test_score_takes_lpips_after_the_matching(features_file):
    lpips = Lpips.find(features_file.parents[1])
    truth = random_images(3, 32, seed=1)
    reconstruction = 0.8 * truth
    _, scores = score(reconstruction[[1, 2, 0]], truth, squeeze=lpips)
    assert scores["lpips"] == lpips(reconstruction, truth).tolist()
    assert min(scores["lpips"]) > 0


def test_scores_are_full_precision_within_autocast(features_file):
    lpips = Lpips.find(features_file.parents[1])
    truth, reconstruction = random_images(2, 32, seed=1), random_images(2, 32, seed=2)
    _, expected = score(reconstruction, truth, squeeze=lpips)
    with torch.autocast("cpu", torch.bfloat16):
        _, scores = score(reconstruction, truth, squeeze=lpips)
    assert scores == expected


@pytest.mark.parametrize(("name", "metric"), {"squeeze": "lpips", "alex": "lpips_alex", "vgg": "lpips_vgg"}.items())
def test_images_below_the_smallest_side_have_no_lpips(name, metric, weights_dir):
    lpips = Lpips.find(weights_dir, name)
    least, small = (random_images(2, side, seed=1) for side in (BACKBONES[name].min_side, BACKBONES[name].min_side - 1))
    assert score(least, least, **{name: lpips})[1][metric] == [0, 0]
    assert score(small, small, **{name: lpips})[1][metric] == [None, None]
    with pytest.raises(RuntimeError):  # the network really does not take them
        lpips(small, small)


def test_more_backbones_change_no_other_score(weights_dir):
    truth, reconstruction = random_images(2, 32, seed=1), random_images(2, 32, seed=2)
    all_of_them = find_all("vgg,squeeze,alex", weights_dir)
    assert list(all_of_them) == ["squeeze", "alex", "vgg"]
    alone = score(reconstruction, truth, **find_all("squeeze", weights_dir))[1]
    scores = score(reconstruction, truth, **all_of_them)[1]
    assert {name: scores[name] for name in alone} == alone
    assert scores.keys() - alone.keys() == {"lpips_alex", "lpips_vgg"}
    assert len({scores[name][0] for name in ("lpips", "lpips_alex", "lpips_vgg")}) == 3


def test_a_backbone_without_weights_is_not_available(weights_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "lpips").mkdir()
    shutil.copy(weights_dir / "lpips" / BACKBONES["alex"].file, tmp_path / "lpips")
    assert available_to("squeeze,alex,vgg", "photos", tmp_path) == ["alex"]
    image = random_images(1, 32, seed=1)
    scores = score(image, image, **find_all("alex,vgg", tmp_path))[1]
    assert (scores["lpips_alex"], scores["lpips_vgg"]) == ([0], [None])
    assert "lpips" not in scores


@pytest.mark.parametrize("names", ["vgg16", "squeeze,", "alex,resnet"])
def test_a_backbone_that_there_is_not_is_one_clear_line(names, tmp_path):
    with pytest.raises(
        InputError, match=r"lpips has no backbone '.*'; give squeeze, alex, vgg, or several with commas"
    ):
        find_all(names, tmp_path)


def test_loading_does_not_change_the_random_numbers(features_file):
    before = torch.get_rng_state()
    Lpips.find(features_file.parents[1])
    assert torch.equal(torch.get_rng_state(), before)


def test_the_hub_cache_is_used_if_no_folder_has_the_file(classifier, features_file, cached_file, monkeypatch):
    monkeypatch.setenv("GIBENCH_OFFLINE", "1")
    cached_file.parent.mkdir(parents=True)
    torch.save(classifier.state_dict(), cached_file)
    a, b = random_images(2, 32, seed=1), random_images(2, 32, seed=2)
    expected = Lpips.find(features_file.parents[1])(a, b)
    assert torch.equal(Lpips.find(None)(a, b), expected)
    assert torch.equal(Lpips.find(cached_file.parent)(a, b), expected)  # a folder without the file


def test_the_download_goes_to_the_hub_cache(classifier, cached_file, monkeypatch):
    buffer = io.BytesIO()
    torch.save(classifier.state_dict(), buffer)
    payload = buffer.getvalue()
    answer_with(monkeypatch, payload)
    digest = property(lambda backbone: sha256(payload).hexdigest()[:8])
    monkeypatch.setattr(lpips_backbone.Backbone, "digest", digest)
    assert Lpips.find(None).available
    assert cached_file.read_bytes() == payload
    assert list(cached_file.parent.iterdir()) == [cached_file]


def test_a_download_that_comes_too_late_is_thrown_away(classifier, cached_file, monkeypatch):
    """Else processes of one run that start a little later would have a metric that the first one lacks."""
    buffer, goes_on = io.BytesIO(), threading.Event()
    torch.save(classifier.state_dict(), buffer)
    payload = buffer.getvalue()
    answer_with(monkeypatch, payload)
    monkeypatch.setattr(lpips_backbone.Backbone, "digest", property(lambda _: sha256(payload).hexdigest()[:8]))
    monkeypatch.setattr(lpips_backbone.Backbone, "seconds", 0.01)
    monkeypatch.setattr(lpips_backbone, "ANSWER_SECONDS", 0.2)

    def slow(data):
        goes_on.wait(5)
        return sha256(data)

    monkeypatch.setattr(lpips_backbone, "sha256", slow)
    assert not Lpips.find(None).available
    goes_on.set()
    (attempt,) = (thread for thread in threading.enumerate() if "_fetch" in thread.name)
    attempt.join(5)
    assert not cached_file.exists()
    assert not list(cached_file.parent.iterdir())


def test_a_download_of_something_else_is_thrown_away(cached_file, monkeypatch):
    answer_with(monkeypatch, b"a login page")
    assert not Lpips.find(None).available
    assert not cached_file.exists()


def test_without_a_network_the_reason_is_in_the_backbones_name(cached_file, monkeypatch, capfd, tmp_path):
    def refuse(url: str, timeout: float) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(lpips_backbone, "urlopen", refuse)
    lpips = Lpips.find(tmp_path)
    assert not lpips.available
    assert lpips.backbone == (
        f"none: squeezenet1_1 weights are neither at {tmp_path}/lpips/squeezenet1_1_features.pth "
        "nor in the torch hub cache, and they could not be downloaded"
    )
    assert capfd.readouterr() == ("", "")


def test_the_command_that_gets_missing_weights_puts_them_where_they_are_found(
    classifier, cached_file, monkeypatch, tmp_path
):
    torch.save(classifier.state_dict(), tmp_path / "served.pth")
    monkeypatch.setenv("GIBENCH_OFFLINE", "1")
    lpips = Lpips.find(tmp_path)
    assert lpips.fix.endswith(f" {BACKBONES['squeeze'].url}")
    served = lpips.fix.replace(BACKBONES["squeeze"].url, (tmp_path / "served.pth").as_uri())
    subprocess.run(["bash", "-c", served], check=True, capture_output=True)
    assert Lpips.find(tmp_path).available


def test_a_network_that_never_answers_does_not_hang(cached_file, monkeypatch):
    answered = threading.Event()
    monkeypatch.setattr(lpips_backbone, "urlopen", lambda url, timeout: answered.wait(60) and io.BytesIO())
    monkeypatch.setattr(lpips_backbone, "ANSWER_SECONDS", 0.1)
    start = time.monotonic()
    assert not Lpips.find(None).available
    assert time.monotonic() - start < 30
    answered.set()


def test_offline_does_not_try(cached_file, monkeypatch):
    tried = []
    monkeypatch.setattr(lpips_backbone, "urlopen", lambda url, timeout: tried.append(url))
    monkeypatch.setenv("GIBENCH_OFFLINE", "1")
    lpips = Lpips.find(None)
    assert lpips.backbone == (
        "none: squeezenet1_1 weights are not in the torch hub cache, and GIBENCH_OFFLINE=1 forbids the download"
    )
    assert tried == []
    image = random_images(1, 32, seed=1)
    assert score(image, image, squeeze=lpips)[1]["lpips"] == [None]
    with pytest.raises(RuntimeError, match="forbids the download"):
        lpips(image, image)


@pytest.mark.parametrize("damage", ["truncated", "text", "empty", "another network", "one tensor short", "a list"])
def test_a_file_without_the_weights_is_one_clear_line(classifier, features_file, damage):
    if damage == "truncated":
        features_file.write_bytes(features_file.read_bytes()[:100_000])
    elif damage == "text":
        features_file.write_text("not a checkpoint\n")
    elif damage == "empty":
        features_file.write_bytes(b"")
    elif damage == "another network":
        torch.save(nn.Linear(2, 2).state_dict(), features_file)
    elif damage == "one tensor short":
        torch.save(dict(list(classifier.features.state_dict().items())[:-1]), features_file)
    else:
        torch.save([1, 2, 3], features_file)
    with pytest.raises(InputError) as caught:
        Lpips.find(features_file.parents[1])
    message = str(caught.value)
    assert message.startswith(f"{features_file} does not hold the weights of torchvision's squeezenet1_1")
    assert "\n" not in message
