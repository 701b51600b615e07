"""A run is identified by its contents: what changed under the same name is attacked anew."""

import importlib
import json
import logging
import shutil
import sys
import threading
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from attacks.ig import IG
from benchmark.__main__ import main
from benchmark.config import Config
from benchmark.contents import contents, digests, image_digest
from benchmark.launch.claim import changed
from benchmark.sources import loaded, sources
from benchmark.state import of_state, of_tensors
from priors import weights
from priors.dcgan import DCGAN
from victims.data.photos import Photos
from victims.modules import build

MODEL = """
from torch import nn
from my_parts import WIDTH
class Net(nn.Sequential):
    def __init__(self, *, image_shape, num_classes):
        super().__init__(nn.Flatten(), nn.Linear(3072, WIDTH), nn.Sigmoid(), nn.Linear(WIDTH, num_classes))
"""
ATTACK = "from attacks.ig import IG\nclass Mine(IG):\n    name = 'my_attack'\n"
LABELS = "from attacks.labels.zlr import zlr as guess\n"
DEFENSE = "from defenses.sign import Sign\nclass Mine(Sign):\n    pass\n"


@pytest.fixture
def write(tmp_path, monkeypatch):
    """A function that writes a file in a folder of the user's own, from which Python imports."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(name, text):
        (tmp_path / name).write_text(text)
        for module in [module for module in sys.modules if module.startswith("my_")]:
            del sys.modules[module]
        importlib.invalidate_caches()

    yield write
    for module in [module for module in sys.modules if module.startswith("my_")]:
        del sys.modules[module]


@pytest.fixture
def pictures(tmp_path):
    """A function that saves random pictures of two classes, and returns the data set's name."""

    def save(seed):
        draws = np.random.default_rng(seed)
        for place in range(8):
            folder = tmp_path / "pictures" / "test" / "ab"[place % 2]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draws.integers(0, 256, (32, 32, 3), np.uint8)).save(folder / f"{place}.png")
        return f"folder:{tmp_path / 'pictures'}"

    return save


@pytest.fixture
def run(tmp_path, capsys):
    """A function that runs, and returns the file of rows, and what was said to have changed."""

    def run(*options):
        small = ["--attack=ig", "--victim=lenet", "--defense=none", "--batch=1", "--tasks=1", "--steps=2"]
        places = ["--restarts=1", "--devices=1", "--wandb=off", f"--out={tmp_path / 'out'}"]
        assert main(["run", *small, *places, *options]) == 0
        printed = capsys.readouterr()
        (rows,) = [line.split(maxsplit=1)[1] for line in printed.out.splitlines() if line.startswith("rows ")]
        return rows, [line for line in printed.err.splitlines() if "changed" in line]

    return run


def found(**options):
    """The contents of a run."""
    config = Config(**{"tasks": 2, "steps": 8, "batch": 1, **options})
    data = config.make_data()
    batches = config.make_batches(data, config.tasks)
    return contents(config, data, config.make_victim(data), config.make_attack(), batches)


def prior(tmp_path, seed):
    file = tmp_path / "prior.safetensors"
    made = build(DCGAN, seed=seed, nz=8, ngf=4)
    weights.save(made, file, architecture="dcgan", options={"nz": 8, "ngf": 4}, command="")
    return file


def test_a_changed_model_is_attacked_anew_and_the_old_one_finds_its_rows(run, write):
    write("my_parts.py", "WIDTH = 16\n")
    write("my_model.py", MODEL)
    first, said = run("--victim=my_model.Net")
    assert said == []
    before = Path(first).read_text()
    write("my_parts.py", "WIDTH = 17\n")  # what the model imports
    second, (line,) = run("--victim=my_model.Net")
    folder = str(Path(first).parent)
    assert line.startswith("benchmark: my_parts.py, the state of my_model.Net changed since the rows in ")
    assert second == f"{folder}-2/rows.jsonl"
    assert line.endswith(f"{folder}; they stay, and this run goes into {folder}-2.")
    old, new = (json.loads(Path(rows).read_text()) for rows in (first, second))
    assert old["psnr"] != new["psnr"]
    assert {key for key in old if key.endswith("_digest") and old[key] != new[key]} == {"victim_digest"}
    assert all(old[f"{kind}_digest"] for kind in ("attack", "victim", "data", "image"))
    write("my_parts.py", "WIDTH = 16\n")
    assert run("--victim=my_model.Net") == (first, [])
    assert Path(first).read_text() == before


@pytest.mark.filterwarnings("ignore:.*there is no list of its tasks")
def test_whatever_goes_in_is_seen_to_change(write, pictures, tmp_path):
    write("my_parts.py", "WIDTH = 16\n")
    write("my_model.py", MODEL)
    write("my_attack.py", ATTACK)
    write("my_defense.py", DEFENSE)
    write("my_labels.py", LABELS)
    named = {"victim": "my_model.Net", "attack": "my_attack.Mine", "defense": "sign+my_defense.Mine"}
    named |= {"labels": "my_labels.guess", "data": pictures(1)}
    classes = tmp_path / "pictures" / "classes.txt"
    before = found(**named)
    changes = {
        "my_model.py": lambda: write("my_model.py", MODEL + "\n"),
        "my_parts.py": lambda: write("my_parts.py", "WIDTH = 16  # as before\n"),
        "my_attack.py": lambda: write("my_attack.py", ATTACK + "    presets = {}\n"),
        "my_defense.py": lambda: write("my_defense.py", DEFENSE + "\n"),
        "my_labels.py": lambda: write("my_labels.py", LABELS + "\n"),
        "the images of task 0, the images of task 1": lambda: pictures(2),
        "the classes, the state of my_model.Net": lambda: classes.write_text("a\nb\nc"),
    }
    for what, change in changes.items():
        change()
        after = found(**named)
        assert set(changed(before, after)) == set(what.split(", "))
        before = after
    states = {kind: f"the state of my_{kind}.Mine" for kind in ("attack", "defense")}
    files = {"my_attack.py", "attacks/ig.py", "my_labels.py", "attacks/labels/zlr.py"}
    assert before["attack"].keys() == {*files, states["attack"]}
    assert before["defense"].keys() == {"my_defense.py", "defenses/sign.py", states["defense"]}


@pytest.mark.filterwarnings("ignore:.*there is no list of its tasks")
@pytest.mark.parametrize("channels", [None, 1])
def test_another_picture_in_the_split_is_another_gallery(pictures, tmp_path, channels):
    name = pictures(1)
    before = found(data=name, attack="ig", channels=channels)
    folder = tmp_path / "pictures" / "test" / "a"
    shutil.copy(folder / "0.png", folder / "zz.png")
    assert "the images of the split" in changed(before, found(data=name, attack="ig", channels=channels))
    (folder / "zz.png").unlink()
    assert found(data=name, attack="ig", channels=channels) == before


def test_a_prior_that_was_trained_further_is_another_one(run, tmp_path):
    named = ["--attack=gias", "--steps=8", f"--prior={prior(tmp_path, 0)}"]
    first, _ = run(*named)
    prior(tmp_path, 1)
    second, (line,) = run(*named)
    assert f"the weights of {tmp_path / 'prior.safetensors'} changed" in line
    assert second != first
    prior(tmp_path, 0)
    assert run(*named) == (first, [])


def test_a_model_that_loads_its_weights_by_itself(write, tmp_path):
    file = tmp_path / "weights.txt"
    write("my_parts.py", f"from pathlib import Path\nWIDTH, file = 8, Path({str(file)!r})\n")
    load = "        from my_parts import file\n        nn.init.constant_(self[3].weight, float(file.read_text()))\n"
    write("my_model.py", MODEL + load)
    file.write_text("0.1")
    before = found(victim="my_model.Net", attack="ig")
    file.write_text("0.2")
    assert changed(before, found(victim="my_model.Net", attack="ig")) == ["the state of my_model.Net"]


READS = """
import json
from pathlib import Path
def read():
    return json.loads(Path({file!r}).read_text())
"""
READERS = {
    "attack": (ATTACK, "class Mine(IG):\n    name = 'my_attack'\n"),
    "victim": ("from torch import nn\n", "class Mine(nn.Sequential):\n"),
    "loss": ("from torch import nn\n", "class Mine(nn.CrossEntropyLoss):\n"),
    "local_optimizer": ("from victims.optimizers.sgd import SGD\n", "class Mine(SGD):\n"),
    "defense": ("from defenses.sign import Sign\n", "class Mine(Sign):\n"),
}
CONSTRUCTORS = {
    "attack": "    def __init__(self, **common):\n        super().__init__(**common)\n",
    "victim": "    def __init__(self, *, image_shape, num_classes):\n"
    "        super().__init__(nn.Flatten(), nn.Linear(3072, num_classes))\n",
}


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("held", ["read()", "(1, {'a': [read()]})", "torch.tensor(read())", "Holder()"])
def test_what_a_constructor_reads_from_a_file_counts(write, tmp_path, kind, held):
    file = tmp_path / "gain.json"
    imported, head = READERS[kind]
    init = CONSTRUCTORS.get(kind, "    def __init__(self) -> None:\n        super().__init__()\n")
    holder = "class Holder:\n    def __init__(self):\n        self.gain = read()\n"
    text = f"import torch\n{READS.format(file=str(file))}{holder}{imported}{head}{init}        self.gain = {held}\n"
    write("my_reader.py", text)
    named = {"attack": "ig", kind: "my_reader.Mine", "lr": 0.1 if kind == "local_optimizer" else None}
    file.write_text("1.5")
    before = found(**named)
    assert found(**named, seed=3) == before
    file.write_text("2.5")
    assert changed(before, found(**named)) == ["the state of my_reader.Mine"]


def test_a_state_is_what_an_object_holds_and_not_where_files_are():
    def made(**attributes):
        model = nn.Sequential(nn.LazyLinear(2), nn.Flatten())
        model.register_buffer("hidden", torch.ones(2), persistent=False)
        for name, value in attributes.items():
            setattr(model, name, value)
        return of_state(model)

    assert made() == made()
    same = {
        "file": "/home/a/b.pt",
        "log": logging.getLogger(),
        "lock": threading.Lock(),
        "sparse": torch.eye(2).to_sparse(),
    }
    assert made(**same) == made(**same | {"file": "/home/c/d.pt"})
    values = [
        1,
        1.0,
        2,
        True,
        "a",
        "b",
        [1, 2],
        [2, 1],
        {1: 2},
        {1: 3},
        {1, 2},
        {1, 3},
        np.ones(2),
        np.ones(3),
        torch.relu,
    ]
    values += [
        SimpleNamespace(a=1),
        SimpleNamespace(a=2),
        partial(max, 1),
        partial(max, 2),
        torch.sigmoid,
        nn.ReLU(),
        nn.GELU(),
    ]
    values += [b"a", b"b", None, torch.ones(2), torch.zeros(2)]
    assert len({made(value=value) for value in values}) == len(values)
    around = [1]
    around.append(around)
    assert made(value=around) == made(value=around)
    assert made(hidden=torch.zeros(2)) != made()


def test_only_what_is_named_and_what_it_imports_counts(write):
    write("my_parts.py", "WIDTH = 16\n")
    write("my_other.py", "")
    write("my_model.py", MODEL)
    importlib.import_module("my_other")
    model = importlib.import_module("my_model").Net
    assert sources(loaded(), "", model).keys() == {"my_model.py", "my_parts.py"}
    assert sources(loaded(), "cosine+my_other.loss:2").keys() == {"my_other.py"}
    assert sources(loaded(), "stylegan2:some/file.pt 0.5", IG).keys() == {"attacks/ig.py"}
    assert not any("/torch/" in str(path) or path.name == "json" for path in loaded().values())


def test_what_an_installed_package_makes_does_not_count(write, monkeypatch):
    """As torch's compiler does, during a run: else the next run in the same process were of other contents."""
    write("kernel.py", "")
    made = importlib.import_module("kernel")
    monkeypatch.setitem(sys.modules, "torch._inductor.kernel", made)
    write("my_parts.py", "import torch\nWIDTH = 16\n")
    write("my_model.py", MODEL)
    model = importlib.import_module("my_model").Net
    assert not any("kernel" in name for name in sources(loaded(), "", model))


@pytest.mark.filterwarnings("ignore:prior dcgan is untrained")
@pytest.mark.parametrize(
    ("statement", "files"),
    {
        "from my_late import SCALE": {"my_late.py", "my_later.py"},
        "import my_late as other, torch": {"my_late.py", "my_later.py"},
        "import importlib; importlib.import_module('my_late')": {"my_late.py", "my_later.py"},
        "from my_package import late": {"my_package/__init__.py", "my_package/late.py", "my_package/near.py"},
        "import my_package.late": {"my_package/__init__.py", "my_package/late.py", "my_package/near.py"},
        "import my_missing, my_package.missing, json": {"my_package/__init__.py"},
        "from . import nothing; from victims.names import at; import numpy.linalg": set(),
    }.items(),
)
def test_what_is_imported_only_in_a_function_counts_before_it_is(write, tmp_path, statement, files):
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "__init__.py").write_text("raise RuntimeError('imported')")
    (tmp_path / "my_package" / "late.py").write_text("from .near import this\n")
    (tmp_path / "my_package" / "near.py").write_text("")
    write("my_late.py", "def scale():\n    from my_later import SCALE\n    return SCALE\n")
    write("my_later.py", "SCALE = 1\n")
    write("my_attack.py", f"{ATTACK}    def search(self):\n        {statement}\n")
    method = importlib.import_module("my_attack").Mine
    assert sources(loaded(), "", method).keys() == {"my_attack.py", "attacks/ig.py", *files}
    assert not {"my_late", "my_package"} & sys.modules.keys()


def test_seeds_of_one_model_have_the_same_digests_and_another_model_others():
    first = found(prior="dcgan")
    assert found(prior="dcgan", seed=1) == first
    assert all(digests(first).values())
    ig, none = digests(found(attack="ig")), digests(found(attack="ig", defense="none", victim="lenet"))
    assert (ig["prior_digest"], none["defense_digest"]) == ("", "")
    assert none["victim_digest"] != ig["victim_digest"] == digests(first)["victim_digest"]
    shuffled = found(attack="ig", control="shuffled_update")
    assert digests(shuffled) == ig
    assert shuffled["tasks"] != first["tasks"]  # the images whose update is shown count too


def test_a_digest_of_an_image_tells_its_pixels_and_its_label():
    data = Photos(split="test")
    image, label = data[0]
    assert image_digest(image, label) == image_digest(image.double(), label)
    others = [image_digest(*data[1]), image_digest(image, label + 1), image_digest(image.flip(-1), label)]
    assert len({image_digest(image, label), *others}) == 4


def test_a_digest_of_weights_does_not_depend_on_their_precision_or_order():
    state = build(DCGAN, seed=0, nz=8, ngf=4).state_dict()
    double = build(DCGAN, seed=0, nz=8, ngf=4).double().state_dict()
    assert of_tensors(state) == of_tensors(dict(reversed(double.items())))
    first = next(iter(state))
    assert of_tensors(state) != of_tensors({**state, first: state[first] + 1e-6})
    assert of_tensors(state) != of_tensors({**state, first: state[first].flatten()})
