"""LPIPS against the package `lpips`, and the places its weights may come from."""

import io
import threading
import time
from hashlib import sha256
from pathlib import Path
from urllib.error import URLError

import lpips as oracle_package
import pytest
import torch
from torch import Tensor, nn
from torchvision.models import squeezenet1_1

from benchmark.scoring import lpips as lpips_backbone
from benchmark.scoring.lpips import FILE_NAME, MIN_SIDE, Lpips
from benchmark.scoring.metrics import score
from victims.errors import InputError

SHARED = Path(__file__).resolve().parents[3].parent / "shared"


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
    return tmp_path / "home" / "hub" / "checkpoints" / FILE_NAME


def answer_with(monkeypatch, payload: bytes) -> None:
    monkeypatch.setattr(lpips_backbone, "urlopen", lambda url, timeout: io.BytesIO(payload))


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
def test_lpips_has_the_documented_values():
    generator = torch.Generator().manual_seed(42)
    a, b = (torch.rand(2, 3, 100, 100, generator=generator) for _ in range(2))
    assert Lpips.find(SHARED / "weights")(a, b).tolist() == pytest.approx([0.1024, 0.0938], abs=5e-5)


def test_a_gray_image_is_an_image_of_three_equal_channels(features_file):
    a, b = random_images(2, 32, seed=1)[:, :1], random_images(2, 32, seed=2)[:, :1]
    lpips = Lpips.find(features_file.parents[1])
    assert torch.equal(lpips(a, b), lpips(a.expand(-1, 3, -1, -1), b.expand(-1, 3, -1, -1)))


def test_score_takes_lpips_after_the_matching(features_file):
    lpips = Lpips.find(features_file.parents[1])
    truth = random_images(3, 32, seed=1)
    reconstruction = 0.8 * truth
    _, scores = score(reconstruction[[1, 2, 0]], truth, backbone=lpips)
    assert scores["lpips"] == lpips(reconstruction, truth).tolist()
    assert min(scores["lpips"]) > 0


def test_scores_are_full_precision_within_autocast(features_file):
    lpips = Lpips.find(features_file.parents[1])
    truth, reconstruction = random_images(2, 32, seed=1), random_images(2, 32, seed=2)
    _, expected = score(reconstruction, truth, backbone=lpips)
    with torch.autocast("cpu", torch.bfloat16):
        _, scores = score(reconstruction, truth, backbone=lpips)
    assert scores == expected


def test_images_below_the_smallest_side_have_no_lpips(features_file):
    lpips = Lpips.find(features_file.parents[1])
    small = random_images(2, MIN_SIDE - 1, seed=1)
    assert score(small, small, backbone=lpips)[1]["lpips"] == [None, None]
    with pytest.raises(RuntimeError):  # the network really does not take them
        lpips(small, small)


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
    monkeypatch.setattr(lpips_backbone, "SHA256_PREFIX", sha256(payload).hexdigest()[:8])
    assert Lpips.find(None).available
    assert cached_file.read_bytes() == payload
    assert list(cached_file.parent.iterdir()) == [cached_file]


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


def test_a_network_that_never_answers_does_not_hang(cached_file, monkeypatch):
    answered = threading.Event()
    monkeypatch.setattr(lpips_backbone, "urlopen", lambda url, timeout: answered.wait(60) and io.BytesIO())
    monkeypatch.setattr(lpips_backbone, "DOWNLOAD_SECONDS", 0.1)
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
    assert score(image, image, backbone=lpips)[1]["lpips"] == [None]
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
