import pytest

from attacks.gias import GIAS
from attacks.gias_parts import GIz
from attacks.ig import IG
from benchmark.config import Config
from benchmark.names import known
from benchmark.registry import KINDS, find, registered
from defenses.sparsification import Sparsification
from priors import names as priors
from victims.data.photos import Photos
from victims.errors import InputError
from victims.models.lenet import LeNet

KIND = {name: architecture.kind for name, architecture in priors.architectures().items()}


def test_what_is_in_the_folder_has_a_name():
    assert {"ig": IG, "gi_z": GIz, "gias": GIAS}.items() <= registered("attack").items()
    assert find("data", "photos") is Photos
    assert find("victim", "lenet") is LeNet
    assert find("defense", "sparsification") is Sparsification


def test_modules_that_are_no_method_are_no_name():
    assert not {"base", "engine", "stage", "distances"} & registered("attack").keys()


@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_name_lists_all_there_is(kind):
    known = registered(kind)
    with pytest.raises(InputError) as refusal:
        find(kind, "nonsense")
    assert all(name in str(refusal.value) for name in known)


@pytest.mark.parametrize("name", priors.published())
def test_a_name_that_means_published_weights_says_so(name):
    """Also where the architecture that takes them has the same name."""
    assert known("prior")[name].summary.startswith(f"published {KIND[priors.published()[name].architecture]}")


def test_the_nearest_name_is_offered():
    with pytest.raises(InputError, match="did you mean 'gias'"):
        find("attack", "gais")


def test_a_dotted_path_works_wherever_a_name_does(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("from attacks.ig import IG\nclass Mine(IG):\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert issubclass(find("attack", "mine.Mine"), IG)
    for wrong, why in (("mine.Yours", "cannot import"), ("nowhere.Mine", "cannot import"), ("json.loads", "subclass")):
        with pytest.raises(InputError, match=why):
            find("attack", wrong)


def test_a_function_that_builds_a_victim_is_one(tmp_path, monkeypatch):
    (tmp_path / "ours.py").write_text(
        "from victims.models.lenet import LeNet\ndef build(**options):\n    return LeNet(**options)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    config = Config(victim="ours.build")
    assert isinstance(config.make_victim(config.make_data()).model, LeNet)
    with pytest.raises(InputError, match="subclass"):
        find("attack", "ours.build")
