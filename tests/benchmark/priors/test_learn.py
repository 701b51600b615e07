"""`prior learn`: the rounds that it simulates, what it writes, and a killed run compared with an undisturbed one."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from attacks.giml import GIML
from benchmark.config import Config
from benchmark.priors.federation import simulate
from benchmark.priors.learn import learn
from benchmark.tasks.batches import draw_batches
from defenses.sparsification import Sparsification
from priors import weights
from priors.dcgan_gias import DCGANGIAS
from victims.client import fed_sgd
from victims.data.photos import Photos
from victims.errors import InputError
from victims.modules import build

SMALL = {"rounds": 2, "clients": 3, "steps": 3, "set": ["N=2", "steps_z=1", "tau=2", "beta=0.5"]}


@pytest.fixture(autouse=True)
def _global_generator_is_given_back():
    with torch.random.fork_rng():
        yield


# The rounds.


def federation(**changes):
    config = Config(**{"victim": "lenet", "rounds": 2, "batch": 2, "defense": "none", **changes})
    update = simulate(config, (3, 32, 32), 3, "cpu")
    return [update(i) for i in range(6)]


def test_an_update_is_that_of_a_clients_training_images_on_its_rounds_model():
    data, defense = Photos(split="train"), Sparsification(0.5)
    batches = draw_batches(data, "photos-train-32px", batch_size=2, tasks=6)
    assert len({index for batch in batches for index in batch.indices}) == 12
    for observation, batch in zip(federation(defense="sparsification:0.5"), batches, strict=True):
        images, labels = data.batch(batch.indices)
        expected = defense(fed_sgd(observation.victim, images, labels), torch.Generator())
        for name, sent in observation.update.items():
            torch.testing.assert_close(sent, expected[name])
        assert observation.knowledge.labels.tolist() == sorted(labels.tolist())
        assert observation.knowledge.estimate is Sparsification.estimate


@pytest.mark.parametrize("between", [0, 1])
def test_every_round_has_a_model_of_its_own(between):
    observations = federation(between=between)
    one, other = observations[0].victim, observations[3].victim
    assert [o.victim is one for o in observations] == [True] * 3 + [False] * 3
    assert all(o.victim is other for o in observations[3:])
    distance = sum((one.parameters[n] - other.parameters[n]).norm() for n in one.parameters)
    assert distance > 0
    assert (distance < 1) == bool(between)  # trained by a step, or drawn again
    attacked = Config(victim="lenet").make_victim(Photos(split="test"))
    assert not any(
        torch.equal(v.parameters["body.0.weight"], attacked.parameters["body.0.weight"]) for v in (one, other)
    )


def test_the_step_between_rounds_has_the_learning_rate_that_is_given():
    """One step of SGD from the same weights on the same images: its length is proportional to the rate."""
    config = Config(victim="lenet", rounds=2, between=1, batch=1, defense="none")
    lengths = []
    for lr in (0.01, 1e-4):
        update = simulate(config, (3, 32, 32), 1, "cpu", lr)
        before, after = (update(i).victim.parameters for i in (0, 1))
        lengths.append({name: (before[name] - after[name]).double() for name in before})
    for name, longer in lengths[0].items():
        torch.testing.assert_close(100 * lengths[1][name], longer, rtol=0.01, atol=2e-5, msg=name)
    assert max(float(step.abs().max()) for step in lengths[0].values()) > 1e-3


# The command's function.


@pytest.fixture
def undisturbed(tmp_path):
    out = tmp_path / "at-once" / "prior.safetensors"
    learn(out, **SMALL)
    return out


@pytest.fixture
def killed(tmp_path, monkeypatch):
    """The same learning, killed in its third step."""
    out, step = tmp_path / "killed" / "prior.safetensors", GIML.step

    def until(giml, tasks):
        if giml.t == 2:
            raise KeyboardInterrupt
        return step(giml, tasks)

    with monkeypatch.context() as patch:
        patch.setattr(GIML, "step", until)
        with pytest.raises(KeyboardInterrupt):
            learn(out, **SMALL)
    return out


def names(out):
    return sorted(path.name for path in out.parent.iterdir())


def test_it_writes_a_prior_that_names_its_training_data(undisturbed):
    prior, record = weights.load(undisturbed), json.loads(undisturbed.with_suffix(".json").read_text())
    assert prior.trained_on == "gradients of photos train by GIML (2 rounds x 3 clients, B=1)"
    assert "--clients 3" in record["command"]
    assert "--set+=beta=0.5" in record["command"]
    assert names(undisturbed) == ["prior.json", "prior.png", "prior.safetensors"]  # the state is gone
    start = build(type(prior), seed=0).get_parameter("blocks.0.0.weight")
    assert not torch.equal(prior.get_parameter("blocks.0.0.weight"), start)
    assert all((b == name.endswith("running_var")).all() for name, b in prior.named_buffers())


def test_the_generator_of_gimls_code_is_learned_too(tmp_path):
    out = tmp_path / "prior.safetensors"
    learn(out, **SMALL | {"steps": 1, "architecture": "dcgan_gias"})
    prior = weights.load(out)
    assert isinstance(prior, DCGANGIAS)
    start = build(DCGANGIAS, seed=0).state_dict()
    assert any(not torch.equal(start[name], tensor) for name, tensor in prior.state_dict().items())
    assert "--architecture dcgan_gias" in json.loads(out.with_suffix(".json").read_text())["command"]


def test_a_killed_run_continues_to_the_same_weights_and_picture(undisturbed, killed):
    assert names(killed) == ["prior.state"]
    learn(killed, **SMALL)
    assert names(killed) == names(undisturbed)
    one, other = (weights.load(out).state_dict() for out in (undisturbed, killed))
    assert all(torch.equal(one[name], other[name]) for name in one)
    one, other = (Image.open(out.with_suffix(".png")).tobytes() for out in (undisturbed, killed))
    assert one == other


@pytest.mark.parametrize("changes", [{"seed": 1}, {"steps": 4}, {"defense": "sparsification:0.5"}], ids=str)
def test_the_state_of_another_command_is_refused_in_one_line(killed, changes):
    with pytest.raises(InputError, match="another training") as error:
        learn(killed, **{**SMALL, **changes})
    assert "\n" not in str(error.value)
    assert names(killed) == ["prior.state"]


def test_the_state_of_other_images_or_another_model_of_the_same_name_is_refused(killed, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Photos, "digest", lambda data: "others")
        with pytest.raises(InputError, match="another training"):
            learn(killed, **SMALL)
    monkeypatch.setattr(
        Path, "read_bytes", lambda path, read=Path.read_bytes: read(path) + b"#" * (path.name == "lenet.py")
    )
    with pytest.raises(InputError, match="another training"):
        learn(killed, **SMALL)
    assert names(killed) == ["prior.state"]


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"out": "prior.pt"}, "safetensors"),
        ({"rounds": 0}, "rounds"),
        ({"between": -1}, "between"),
        ({"between_lr": 0.0}, "between_lr"),
        ({"clients": 0}, "clients"),
        ({"steps": 0}, "steps"),
        ({"batch": 0}, "batch"),
        ({"size": 31}, "32 or 64"),
        ({"size": 64, "architecture": "dcgan_gias"}, "32 px, not 64"),
        ({"victim": "lenett"}, "lenet"),
        ({"data": "nothing"}, "photos"),
        ({"defense": "sparsification"}, "RATE"),
        ({"preset": "mine"}, "paper, paper-literal, code"),
        ({"set": ["tau=0"]}, "tau"),
        ({"set": ["meta=maml"]}, "reptile, adam"),
        ({"set": ["restarts=2"]}, "steps_z"),
    ],
    ids=str,
)
def test_bad_options_are_refused_in_one_line_before_anything_is_written(tmp_path, changes, match):
    out = tmp_path / "new" / changes.get("out", "prior.safetensors")
    with pytest.raises(InputError, match=match) as error:
        learn(out, **{**SMALL, **{name: value for name, value in changes.items() if name != "out"}})
    assert "\n" not in str(error.value)
    assert not out.parent.exists()
