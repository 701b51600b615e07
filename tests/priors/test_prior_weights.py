"""Weight files: what is written is read again, and other files are refused in one line."""

import hashlib
import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from priors import names, weights
from priors.base import Generator
from priors.dcgan import DCGAN
from victims.data.photos import Photos
from victims.errors import InputError

OPTIONS = {"nz": 5, "ngf": 4}
ABOUT = {"prior": "dcgan", "options": json.dumps(OPTIONS), "trained_on": "nothing", "command": "none"}


@pytest.fixture
def prior():
    """A small generator whose batch-norm statistics are away from where they start."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = DCGAN(**OPTIONS)
        made.train()({"z": torch.randn(16, 5)})
    made.trained_on = "sixteen latents"
    return made.eval()


@pytest.fixture
def path(prior, tmp_path):
    """The prior, saved."""
    file = tmp_path / "new" / "small.safetensors"
    weights.save(prior, file, architecture="dcgan", options=OPTIONS, command="make small")
    return file


def refusal(path):
    """The message with which the file is refused; it names the file."""
    with pytest.raises(InputError) as error:
        weights.load(path)
    message = str(error.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def rewrite(path, change=lambda tensors: None, **about):
    """The file again with other tensors or metadata, and no record beside it."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    change(tensors)
    save_file(tensors, path, metadata={name: text for name, text in {**ABOUT, **about}.items() if text is not None})
    path.with_suffix(".json").unlink()
    return path


# Round trip.


def test_what_is_loaded_is_what_was_saved(prior, path):
    loaded = weights.load(path)
    assert list(loaded.state_dict()) == list(prior.state_dict())
    for name, tensor in prior.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    z = {"z": torch.randn(2, 5)}
    assert torch.equal(loaded(z), prior(z))
    assert loaded.trained_on == "sixteen latents"
    assert loaded.nz == 5


def test_what_is_loaded_is_frozen_and_in_eval_mode(path):
    loaded = weights.load(path)
    assert not any(module.training for module in loaded.modules())
    assert not any(p.requires_grad for p in loaded.parameters())


def test_the_file_and_its_record_say_what_it_is(path):
    expected = {
        "prior": "dcgan",
        "options": json.dumps(OPTIONS),
        "trained_on": "sixteen latents",
        "command": "make small",
    }
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == expected
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert json.loads(path.with_suffix(".json").read_text()) == {**expected, "sha256": digest}
    assert weights.sha256(path) == digest


def test_a_file_without_a_record_is_loaded(prior, path):
    path.with_suffix(".json").unlink()
    assert weights.load(path).trained_on == "sixteen latents"


def test_saving_does_not_change_the_prior(prior, path):
    assert prior.trained_on == "sixteen latents"
    assert all(p.requires_grad for p in prior.parameters())


# What is refused.


@pytest.mark.parametrize("name", ["absent.safetensors", "."])
def test_no_file(path, name):
    message = refusal(path.parent / name)
    assert "no weights" in message
    assert all(shipped in message for shipped in names.shipped())


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_a_truncated_file(path, keep):
    path.write_bytes(path.read_bytes()[:keep])
    assert "safetensors" in refusal(path)


def test_one_changed_byte(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    message = refusal(path)
    assert "SHA-256" in message
    assert "small.json" in message


def test_a_record_of_another_file(path):
    record = path.with_suffix(".json")
    record.write_text(json.dumps({**json.loads(record.read_text()), "sha256": "0" * 64}))
    assert "SHA-256" in refusal(path)


@pytest.mark.parametrize("text", ["", "{", "{}", "[]"])
def test_a_damaged_record(path, text):
    path.with_suffix(".json").write_text(text)
    assert "small.json" in refusal(path)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_pickle_is_not_opened(prior, tmp_path, suffix):
    pickled = tmp_path / f"pickled{suffix}"
    torch.save(prior.state_dict(), pickled)
    assert "safetensors" in refusal(pickled)


@pytest.mark.parametrize("about", [None, {}, {"format": "pt"}, {"prior": "vae"}], ids=str)
def test_a_safetensors_file_of_somebody_else(tmp_path, about):
    foreign = tmp_path / "foreign.safetensors"
    save_file({"layer.weight": torch.zeros(2, 2)}, foreign, metadata=about)
    assert "dcgan" in refusal(foreign)  # what would be known


@pytest.mark.parametrize(
    "about",
    [
        {"options": None},
        {"trained_on": None},
        *({"options": text} for text in ("", "{", "[]", "null", "3", '"nz"', "NaN", "[" * 9**5, '{"colors": 4}')),
        *({"options": f'{{"classes": {value}}}'} for value in ("-1", "NaN", "1e999", '"ten"', "[3]", "9" * 30, "2.0")),
        *({"options": f'{{"nz": {value}}}'} for value in ("null", "-5", "5.5", "{}", 10**9, 10**15, "9" * 5000)),
        *({"options": f'{{"nz": 5, "size": {value}}}'} for value in ("0", "33", "32.0", "NaN", '"32"', 10**12)),
    ],
    ids=lambda about: str(about)[:60],
)
def test_metadata_that_does_not_fit_the_architecture(path, about):
    """Also sizes that no memory holds."""
    refusal(rewrite(path, **about))


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: tensors.update({"blocks.0.0.weight": torch.zeros(3, 3)}),
        lambda tensors: tensors.update({"blocks.9.weight": torch.zeros(3, 3)}),
        lambda tensors: tensors.pop("blocks.0.0.weight"),
        lambda tensors: tensors.clear(),
    ],
    ids=["shape", "extra", "missing", "none"],
)
def test_other_tensors_than_the_architecture_has(path, change):
    assert "blocks." in refusal(rewrite(path, change))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: w * torch.nan, "NaN or infinite numbers in"),
        (lambda w: w / 0, "NaN or infinite numbers in"),
        (lambda w: w.to(torch.complex64), "is complex64, not floating point"),
        (lambda w: w > 0, "is bool, not floating point"),
    ],
)
def test_numbers_that_are_no_weights(path, change, said):
    def spoil(tensors):
        name = next(name for name, tensor in tensors.items() if tensor.dim() == 4)
        tensors[name] = change(tensors[name])

    assert said in refusal(rewrite(path, spoil))


def test_options_of_another_size(path):
    assert "size mismatch" in refusal(rewrite(path, options='{"nz": 5, "ngf": 8}'))


# The weights inside the package.


@pytest.fixture(scope="module", params=names.shipped())
def shipped(request):
    return names.SHIPPED / f"{request.param}.safetensors"


def test_shipped_weights_are_small_and_have_the_recorded_hash(shipped):
    record = json.loads(shipped.with_suffix(".json").read_text())
    assert shipped.stat().st_size <= 8_000_000
    assert record["sha256"] == hashlib.sha256(shipped.read_bytes()).hexdigest()


def test_shipped_weights_say_what_they_saw(shipped):
    record = json.loads(shipped.with_suffix(".json").read_text())
    with safe_open(shipped, framework="pt") as file:
        assert record == {**file.metadata(), "sha256": record["sha256"]}
    assert record["command"].strip()
    assert weights.load(shipped).trained_on == record["trained_on"].strip() != ""


def test_shipped_weights_make_different_finite_images(shipped):
    prior = weights.load(shipped)
    if not isinstance(prior, Generator):
        pytest.skip(f"a {prior.kind} makes no images by itself")
    for label in range(prior.classes or 1):
        state = prior.draw(32, torch.Generator().manual_seed(label))
        if prior.classes:  # one picture for a whole class is how conditional ones fail
            state["y"] = torch.full((32,), label)
        with torch.no_grad():
            images = prior(state)
        assert images.shape == (32, *prior.image_shape)
        assert images.isfinite().all()
        assert images.min() >= 0
        assert images.max() <= 1
        assert images.flatten(1).std(1).median() > 0.05  # within an image
        assert images.std(0).mean() > 0.05  # between images


@torch.no_grad()
def test_the_shipped_denoiser_removes_noise_of_photographs_that_it_has_not_seen():
    denoiser, clean = (
        weights.load(names.SHIPPED / "denoiser-photos.safetensors"),
        Photos(split="test").batch(range(0, 96, 3))[0],
    )
    for sigma, psnr in {0.02: 35.5, 0.05: 31, 0.1: 28, 0.2: 25}.items():
        noisy = clean + sigma * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
        mse = (denoiser(noisy, sigma).clamp(0, 1) - clean).square().mean((1, 2, 3))
        assert -10 * mse.log10().mean() > psnr
