"""Everything that `--prior` may say, and what is refused."""

import hashlib
import inspect
import json
import re
import subprocess
import sys
import warnings
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

import priors
from priors import names, weights
from priors.by_name import find
from priors.dcgan import DCGAN
from priors.dcgan_faces import DCGANFaces
from tests.conftest import SHARED
from victims.checkpoints import tensors
from victims.errors import InputError, Notice
from victims.modules import build

NAME = "dcgan-faces32"
PUBLISHED = names.published()
ARCHITECTURES = names.architectures()
WITH_LAYOUT = [name for name, each in ARCHITECTURES.items() if "load_public" in vars(each.load())]


def get(spec, folder, *, size=32, seed=0):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Notice)
        return find(str(spec), folder, size=size, seed=seed)


def refusal(spec, folder, **options):
    with pytest.raises(InputError) as error:
        get(spec, folder, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def same(one, other):
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def faces():
    return build(DCGANFaces, seed=7)


@pytest.fixture
def file(faces, tmp_path):
    """Weights in the published layout, where they are looked for by name."""
    path = tmp_path / "priors" / PUBLISHED[NAME].file
    path.parent.mkdir()
    torch.save({k.replace("blocks", "generator_deconv"): v for k, v in faces.state_dict().items()}, path)
    return path


@pytest.fixture
def known_as(monkeypatch):
    """Gives the published weights another SHA-256."""
    return lambda sha256: monkeypatch.setattr(
        names, "published", lambda: {NAME: replace(PUBLISHED[NAME], sha256=sha256)}
    )  # fmt: skip


# Published weights.


@pytest.mark.parametrize("entry", PUBLISHED.values(), ids=PUBLISHED)
def test_published_weights_are_described_and_fit_their_architecture(entry):
    inspect.signature(ARCHITECTURES[entry.architecture].load().load_public).bind("path", **entry.options)
    assert entry.options.get("size", entry.size) == entry.size
    assert entry.sha256 is None or re.fullmatch("[0-9a-f]{64}", entry.sha256)
    assert all((entry.trained_on, entry.license))
    assert "https://" in entry.source
    assert len({other.file for other in PUBLISHED.values()}) == len(PUBLISHED)


def test_no_two_things_have_one_name():
    assert len(PUBLISHED) == sum(len(each.published) for each in ARCHITECTURES.values())
    assert not {*names.shipped()} & {*PUBLISHED}
    assert not {*ARCHITECTURES} & {*names.shipped()}
    for name in {*ARCHITECTURES} & {*PUBLISHED}:  # an architecture with one set of weights: its name means these
        assert PUBLISHED[name].architecture == name


@pytest.mark.parametrize("name", PUBLISHED)
def test_an_absent_file_is_named_with_its_place_and_source(name, tmp_path):
    message = refusal(name, tmp_path)
    entry = PUBLISHED[name]
    assert all(text in message for text in (entry.file, str(tmp_path / entry.folder), entry.source))


@pytest.mark.parametrize("sha256", ["right", None])
def test_published_weights_by_name(faces, file, known_as, tmp_path, sha256):
    known_as(sha256 and hashlib.sha256(file.read_bytes()).hexdigest())
    prior = get(NAME, tmp_path)
    assert same(prior, faces)
    assert prior.trained_on == PUBLISHED[NAME].trained_on
    assert not prior.training
    assert not any(p.requires_grad for p in prior.parameters())


def test_the_sha256_of_published_weights_is_checked(file, tmp_path):
    assert "SHA-256" in refusal(NAME, tmp_path)


@pytest.mark.parametrize("spec", [NAME, "dcgan_faces:{file}"])
def test_without_a_known_sha256_a_record_beside_the_file_counts(faces, file, known_as, tmp_path, spec):
    known_as(None)
    spec, record = spec.format(file=file), file.with_suffix(".json")
    record.write_text(json.dumps({"sha256": hashlib.sha256(file.read_bytes()).hexdigest()}))
    assert same(get(spec, tmp_path), faces)
    record.write_text(json.dumps({"sha256": "0" * 64}))
    assert record.name in refusal(spec, tmp_path)
    record.write_text("{}")
    assert "no sha256" in refusal(spec, tmp_path)


@pytest.mark.shared
@pytest.mark.skipif(not (SHARED / "weights" / "priors").is_dir(), reason="needs ../shared/weights/priors")
def test_the_published_faces_are_the_described_file():
    prior = get(NAME, SHARED / "weights")
    assert isinstance(prior, DCGANFaces)
    assert prior.trained_on.startswith("CelebA")


# Files of the user's own, and shipped ones.


def test_a_file_in_its_authors_layout(faces, file, tmp_path):
    moved = file.rename(tmp_path / "mine.pt")
    prior = get(f"dcgan_faces:{moved}", tmp_path / "elsewhere")
    assert same(prior, faces)
    assert prior.trained_on == "mine"


@pytest.mark.parametrize("architecture", WITH_LAYOUT)
def test_each_architecture_has_its_own_loader(architecture, tmp_path, monkeypatch, faces):
    loaded = {tmp_path / "x.bin": faces}
    monkeypatch.setattr(ARCHITECTURES[architecture].load(), "load_public", lambda path: loaded[path])
    assert get(f"{architecture}:{tmp_path / 'x.bin'}", tmp_path) is faces


@pytest.mark.parametrize("number", [torch.nan, torch.inf])
@pytest.mark.parametrize("spec", [NAME, "dcgan_faces:{file}"])
def test_numbers_that_are_no_weights_are_refused(spec, number, file, known_as, tmp_path):
    known_as(None)
    stored = tensors(file)
    name = next(name for name in stored if name.endswith("running_var"))
    torch.save({**stored, name: stored[name].index_fill(0, torch.tensor(3), number)}, file)
    assert "NaN or infinite numbers in" in (message := refusal(spec.format(file=file), tmp_path))
    assert str(file) in message


@pytest.mark.parametrize("architecture", WITH_LAYOUT)
def test_an_absent_file_of_ones_own(architecture, tmp_path):
    assert "no " in (message := refusal(f"{architecture}:{tmp_path / 'x.pt'}", tmp_path))
    assert str(tmp_path / "x.pt") in message


@pytest.mark.parametrize("name", names.shipped())
def test_shipped_weights(name, tmp_path):
    path = names.SHIPPED / f"{name}.safetensors"
    assert same(get(name, tmp_path), weights.load(path))
    assert same(get(path, tmp_path), weights.load(path))


def test_a_class_of_ones_own_takes_a_safetensors_file(faces, tmp_path, monkeypatch):
    """Its own layout; a file whose path looks alike is in this suite's."""
    monkeypatch.chdir(tmp_path)
    file, own = tmp_path / "gen.safetensors", "priors.dcgan_faces.DCGANFaces"
    save_file({k.replace("blocks", "generator_deconv"): v for k, v in faces.state_dict().items()}, file)
    assert same(get(f"{own}:gen.safetensors", tmp_path), faces)
    other = build(DCGANFaces, seed=8)
    for name in (f"{own}:gen.safetensors", "runs.v1/b:1.safetensors"):
        weights.save(other, tmp_path / name, architecture="dcgan_faces", options={}, command="none")
        assert same(get(name, tmp_path), other)
    assert "no weights at runs.v2/b:1.safetensors" in refusal("runs.v2/b:1.safetensors", tmp_path)


@pytest.mark.parametrize("make", [DCGANFaces, DCGAN])
def test_a_file_in_this_suites_layout(make, tmp_path):
    prior, name = build(make, seed=5), {"DCGAN": "dcgan", "DCGANFaces": "dcgan_faces"}[make.__name__]
    prior.trained_on = "nothing"
    weights.save(prior, tmp_path / "own.safetensors", architecture=name, options={}, command="none")
    loaded = get(tmp_path / "own.safetensors", tmp_path)
    assert same(loaded, prior)
    assert loaded.trained_on == "nothing"


# Random weights.


SIDES = {
    "dcgan": 64,
    "dcgan:32": 32,
    "dcgan_faces": 32,
    "stylegan2": 256,
    "stylegan2:32": 32,
    "biggan:128": 128,
    "tiny_autoencoder": 64,
}


@pytest.mark.parametrize(("spec", "side"), SIDES.items())
def test_the_size_is_the_given_the_tasks_or_the_default(spec, side, tmp_path):
    with torch.device("meta"):  # no weights, which would take long
        prior = get(spec, tmp_path, size=64)
    assert prior.image_shape == (3, side, side)
    assert prior.trained_on == "untrained"
    assert not prior.training
    assert not any(p.requires_grad for p in prior.parameters())


@pytest.mark.parametrize("spec", ["dcgan", "dcgan_faces", "priors.dcgan.DCGAN"])
def test_random_weights_depend_only_on_the_seed(spec, tmp_path):
    first = get(spec, tmp_path, seed=3)
    torch.rand(7)
    assert same(first, get(spec, tmp_path, seed=3))
    assert not same(first, get(spec, tmp_path, seed=4))


def test_random_weights_are_said_to_be_random(tmp_path):
    with pytest.warns(Notice, match="untrained"):
        find("dcgan", tmp_path, size=32, seed=0)


# What is refused.

BAD = {
    "dcgan-foto32": "did you mean 'dcgan-photos32'",
    "biggan-deep256": "did you mean 'biggan-deep-256'",
    "bigan:256": "unknown prior 'bigan'; did you mean 'biggan'",
    "nonsense": "dcgan-photos32.*stylegan2.*dotted path",
    "biggan:100": "BigGAN has no size 100",
    "dcgan:48": "32 or 64 px, not 48",
    "dcgan_faces:32": "comes in one size",
    "priors.lti.LTI:x.pt": "no layout but this suite's own",
    "priors.base.Generator:x.pt": "Generator lacks draw",
    "550000.pt": "write ARCHITECTURE:550000.pt",
    "x.th": "write ARCHITECTURE:x.th",
    "last.ckpt": "write ARCHITECTURE:last.ckpt",
    "best.pth.tar": "write ARCHITECTURE:best.pth.tar",
    "nowhere.safetensors": "no weights at",
    "nowhere.Mine": "cannot import the prior",
    "json.loads": "not a subclass of priors.base.Prior",
}


@pytest.mark.parametrize(("spec", "expected"), BAD.items(), ids=BAD)
def test_a_refusal_is_one_line_that_helps(spec, expected, tmp_path):
    assert re.search(expected, refusal(spec, tmp_path))


# Adding one.

MINE = '''
import torch
from torch import nn

from priors.base import Generator
from victims.checkpoints import tensors


class Mine(Generator):
    """Colors: three numbers, one image.

    More of it.
    """

    published = {
        "mine-colors": {
            "file": "colors.pt", "size": 8, "trained_on": "colors", "license": "MIT", "source": "https://here",
            "sha256": None, "options": {"shade": 0.5},
        },
    }

    def __init__(self, *, size: int = 16) -> None:
        super().__init__()
        self.image_shape, self.shade = (3, size, size), nn.Parameter(torch.rand(1))
        self.blocks = nn.ModuleList([nn.Sigmoid()])

    def draw(self, count, generator):
        return {"z": torch.randn(count, 3, generator=generator)}

    def enter(self, state):
        return {**state, "h": self.shade * state["z"][..., None, None].expand(-1, *self.image_shape)}

    @classmethod
    def load_public(cls, path, *, shade=1.0):
        prior = cls(size=8)
        prior.shade.data.fill_(tensors(path) * shade)
        return prior
'''


@pytest.mark.parametrize("name", ["mine", "elsewhere.mine.Mine"])
def test_a_prior_is_one_file(name, tmp_path, monkeypatch):
    """In the folder, or elsewhere by its dotted path."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "mine.py").write_text(MINE)
    (tmp_path / "priors").mkdir()
    torch.save(torch.tensor(3.0), file := tmp_path / "priors" / "colors.pt")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(priors, "__path__", [*priors.__path__, str(folder)])
    monkeypatch.delitem(sys.modules, "priors.mine", raising=False)

    assert names.architectures()["mine"].summary == "Colors: three numbers, one image."
    assert get(name, tmp_path).image_shape == (3, 16, 16)
    assert get(f"{name}:24", tmp_path).image_shape == (3, 24, 24)
    assert get(f"{name}:{file}", tmp_path).shade == 3
    published = get("mine-colors", tmp_path)
    assert (published.shade, published.trained_on) == (1.5, "colors")
    assert re.search("did you mean 'mine-colors'", refusal("mine-color", tmp_path))


def test_names_are_read_without_torch():
    code = "import sys; from priors import names; assert names.published() and names.shipped(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "priors.names" in loaded
    assert "torch" not in loaded
