"""New tasks follow from a secret, and their file has what an observation has, and nothing else."""

import sys
from functools import partial

import pytest
import torch
import yaml

from benchmark.command_line import options_of_track
from benchmark.config import Config
from benchmark.sealed.draw import Draw, draw, new_secret
from benchmark.sealed.observations import Facts, load, rebuilt
from benchmark.state import of_state
from benchmark.tracks.track import read
from tests.benchmark.sealed.conftest import TRACK
from victims.errors import InputError
from victims.victim import gradient


def where(folder):
    return {"data_dir": folder / "data", "weights_dir": folder / "weights", "out": folder / "out"}


def names(drawn):
    return [name for task in drawn.tasks for name in task.sample_ids]


def test_images_are_new_and_follow_from_the_secret(sealed_track, tmp_path):
    track, given = read(sealed_track), where(tmp_path)
    config = Config(**options_of_track(track))
    data = config.make_data()
    recorded = {data.ids[i] for batch in config.make_batches(data, track.tasks) for i in batch.indices}
    first, again, other = (draw(Draw(track, 20, secret), given) for secret in ("a", "a", "b"))
    assert names(first) == names(again) != names(other)
    assert not recorded & {*names(first), *names(other)}
    assert first.recorded == 0
    weights = [next(iter(drawn.tasks[0].observation.victim.parameters.values())) for drawn in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    plain = draw(Draw(track, 1, "a", new_weights=False), given)
    own = config.make_victim(data).parameters
    assert all(torch.equal(p, own[name]) for name, p in plain.tasks[0].observation.victim.parameters.items())


def test_images_of_the_record_come_last(sealed_track, tmp_path):
    assert draw(Draw(read(sealed_track), 96, "a"), where(tmp_path)).recorded == 2


def test_secrets_have_128_bits():
    secrets = {new_secret() for _ in range(9)}
    assert len(secrets) == 9
    assert {len(bytes.fromhex(secret)) for secret in secrets} == {16}


def test_a_track_that_lists_its_batches_is_refused(tmp_path):
    file = tmp_path / "listed.yaml"
    file.write_text(yaml.safe_dump(TRACK | {"options": {"batch": 1, "batches": "mine.txt"}}))
    with pytest.raises(InputError, match="lists its batches"):
        draw(Draw(read(str(file)), 1, "a"), where(tmp_path))


same = partial(torch.testing.assert_close, rtol=0, atol=0)


SETTINGS = [
    {"defense": "precode:8+clipping:1"},
    {"defense": "sparsification:0.9", "adapt": False, "labels": "none"},
    {"lr": 0.1, "epochs": 2, "local_optimizer": "sgd:0.9:1e-3", "know_lr": False},
    {"victim": "resnet20", "bn": "exact", "victim_mode": "train", "victim_weights": "calibrated"},
    {"rounds": 2, "mean": "0.5", "std": "0.25", "precision": "float64"},
]


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_file_makes_the_same_observation(setting, tmp_path):
    file = tmp_path / "other.yaml"
    file.write_text(yaml.safe_dump(TRACK | {"options": {"batch": 2, "victim": "lenet"} | setting}))
    track = read(str(file))
    drawn = draw(Draw(track, 1, "a"), where(tmp_path), tmp_path / "observations.pt")
    (seen,) = rebuilt(load(tmp_path / "observations.pt"), Config(**options_of_track(track)))
    task = drawn.tasks[0]
    sent = task.observation
    assert (seen.task, seen.batch_size, seen.image_shape, seen.num_classes) == ("task-0", 2, (3, 32, 32), 10)
    mine, other = seen.knowledge, sent.knowledge
    assert mine.decayed == other.decayed
    assert of_state(mine.local) == of_state(other.local)
    same(mine.labels, other.labels)
    same(mine.statistics, other.statistics)
    same(seen.update, sent.update)
    x = task.victim.normalize(task.images.to(task.victim.mean))
    same(*(o.victim.logits(o.victim.parameters, x) for o in (seen, sent)))
    same(*(gradient(o.victim, x, task.labels) for o in (seen, sent)))
    assert (mine.estimate is None) == (other.estimate is None)
    if mine.estimate:
        each = {name: g[None] for name, g in sent.update.items()}
        same(*(k.estimate(each, o.victim)(each) for k, o in ((mine, seen), (other, sent))))


def test_the_file_has_nothing_of_the_images(sealed_track, tmp_path):
    secret = new_secret()
    drawn = draw(Draw(read(sealed_track), 3, secret), where(tmp_path), tmp_path / "observations.pt")
    content = (tmp_path / "observations.pt").read_bytes()
    for word in (secret, str(drawn.config.seed), *names(drawn)):
        assert word.encode() not in content
    assert load(tmp_path / "observations.pt").keys() == {
        *("track", "version", "seed", "data", "preprocessing", "weights", "tasks")
    }


def test_a_file_with_code_is_refused(tmp_path):
    torch.save({"tasks": InputError("code")}, tmp_path / "results.pt")
    with pytest.raises(InputError, match="no file of a sealed run"):
        load(tmp_path / "results.pt")


def test_a_name_in_a_file_cannot_look_like_lines(tmp_path, monkeypatch):
    name = "\x1b[2J\nscores"
    monkeypatch.setattr(sys.modules[__name__], name, type(name, (), {"__module__": __name__}), raising=False)
    torch.save(getattr(sys.modules[__name__], name), tmp_path / "results.pt")
    with pytest.raises(InputError) as refused:
        load(tmp_path / "results.pt")
    assert str(refused.value).isprintable()


def test_there_are_no_images_among_the_facts():
    facts = Facts((3, 8, 8), 4, (0.5,) * 3, (0.2,) * 3)
    assert (len(facts), facts.image_shape, len(facts.classes)) == (0, (3, 8, 8), 4)
    with pytest.raises(InputError, match="no images"):
        facts[0]
