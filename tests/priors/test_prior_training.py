"""Training: one round against the game written out; a killed training against an uninterrupted one."""

import json
from copy import deepcopy

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy
from torch.optim import Adam

from priors import train as training
from priors import weights
from victims.data.photos import Photos
from victims.errors import InputError


class Counted(Photos):
    """The train split; it counts its draws, and fails after a number of them."""

    def __init__(self, limit=100):
        super().__init__(split="train", size=32)
        self.drawn, self.limit = 0, limit

    def augmented(self, count, generator):
        if self.drawn == self.limit:
            raise KeyboardInterrupt
        self.drawn += 1
        return super().augmented(count, generator)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Batches of 8, one thread, a state after every step; the global generator is restored."""
    monkeypatch.setattr(training, "BATCH", 8)
    monkeypatch.setattr(training, "CHECKPOINT_EVERY", 1)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng():
        yield
    torch.set_num_threads(threads)


def train(data, out, **changes):
    options = {
        "steps": 3,
        "seed": 0,
        "trained_on": "photos train, 32 px",
        "command": "make prior",
        "conditional": False,
        **changes,
    }
    return training.train(data, out, **options)


@pytest.fixture
def uninterrupted(tmp_path):
    """Three steps without interruption."""
    return train(Counted(), tmp_path / "at-once" / "prior.safetensors")


def same(one, other):
    one, other = weights.load(one).state_dict(), weights.load(other).state_dict()
    return all(torch.equal(one[name], other[name]) for name in one)


def names(out):
    return sorted(path.name for path in out.parent.iterdir())


# The command's function.


def test_training_on_the_photographs_writes_a_prior(uninterrupted):
    prior = weights.load(uninterrupted)
    assert prior.trained_on == "photos train, 32 px"
    assert json.loads(uninterrupted.with_suffix(".json").read_text())["command"] == "make prior"
    assert names(uninterrupted) == ["prior.json", "prior.png", "prior.safetensors"]  # the state is gone
    images = prior(prior.draw(4, torch.Generator().manual_seed(0)))
    assert images.isfinite().all()


def test_training_depends_only_on_the_seed(uninterrupted, tmp_path):
    torch.rand(7)
    assert same(train(Counted(), tmp_path / "again.safetensors"), uninterrupted)
    assert not same(train(Counted(), tmp_path / "other.safetensors", seed=1), uninterrupted)


@pytest.mark.parametrize("done", [1, 2])
def test_a_killed_training_resumes_to_the_same_weights(uninterrupted, tmp_path, done):
    out = tmp_path / "killed" / "prior.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train(Counted(limit=done), out)
    assert names(out) == ["prior.state"]
    rest = Counted()
    torch.rand(7)  # the global generator is elsewhere in the second process
    assert same(train(rest, out), uninterrupted)
    assert rest.drawn == 3 - done
    assert names(out) == names(uninterrupted)


@pytest.mark.parametrize("changes", [{"seed": 1}, {"conditional": True}], ids=str)
def test_the_state_of_another_training_is_refused_in_one_line(tmp_path, changes):
    out = tmp_path / "killed" / "prior.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train(Counted(limit=2), out)
    with pytest.raises(InputError, match="another training") as error:
        train(Counted(), out, **changes)
    assert "\n" not in str(error.value)
    assert names(out) == ["prior.state"]


def test_the_state_of_a_training_on_other_images_of_the_same_names_is_refused(tmp_path, monkeypatch):
    out = tmp_path / "killed" / "prior.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train(Counted(limit=2), out)
    plain = Photos.__getitem__
    monkeypatch.setattr(Counted, "__getitem__", lambda data, i: (plain(data, i)[0].flip(-1), plain(data, i)[1]))
    with pytest.raises(InputError, match=r"another training .*images"):
        train(Counted(), out)
    assert names(out) == ["prior.state"]


def test_a_broken_state_is_refused_in_one_line(tmp_path):
    (tmp_path / "prior.state").write_bytes(b"half of a")
    with pytest.raises(InputError, match=r"prior\.state is not a file") as error:
        train(Counted(), tmp_path / "prior.safetensors")
    assert "\n" not in str(error.value)


def test_a_state_of_more_steps_is_refused_in_one_line(tmp_path):
    out = tmp_path / "killed" / "prior.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train(Counted(limit=2), out)
    with pytest.raises(InputError, match="2 steps already") as error:
        train(Counted(), out, steps=1)
    assert "\n" not in str(error.value)
    assert names(out) == ["prior.state"]


@pytest.mark.parametrize("size", [31, 48])
def test_images_of_another_size_are_refused_in_one_line(tmp_path, size):
    with pytest.raises(InputError, match=str(size)) as error:
        train(Photos(split="train", size=size), tmp_path / "new" / "prior.safetensors")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("options", [{"conditional": True}, {"size": 64}], ids=str)
def test_conditional_and_larger_priors_are_trained_and_loaded(tmp_path, options):
    data = Photos(split="train", size=options.pop("size", 32))
    prior = weights.load(train(data, tmp_path / "prior.safetensors", steps=1, **options))
    assert prior.classes == (10 if options else None)
    state = training.inputs(prior, 12, torch.Generator().manual_seed(0))
    assert prior(state).shape == (12, *data[0][0].shape)
    if options:
        assert state["y"].tolist() == [*range(10), 0, 1]


# One round.


@pytest.fixture
def real():
    return Photos(split="train", size=32).augmented(8, torch.Generator().manual_seed(3))


def test_a_round_is_the_game_of_the_paper(real):
    """Binary cross-entropy with labels 1 and 0, the non-saturating generator loss, Adam(2e-4, 0.5)."""
    game = training.Game(seed=0, size=32, classes=None)
    generator, judge = deepcopy(game.generator), deepcopy(game.discriminator)
    latents = torch.Generator()
    latents.set_state(game.draws.get_state())
    adam_g, adam_d = (Adam(net.parameters(), lr=2e-4, betas=(0.5, 0.999)) for net in (generator, judge))
    one, zero = torch.ones(8), torch.zeros(8)

    images, _ = real
    fake = generator({"z": torch.randn(8, 100, generator=latents)})
    loss_d = cross_entropy(judge(2 * images - 1), one) + cross_entropy(judge(2 * fake.detach() - 1), zero)
    loss_d.backward()
    adam_d.step()
    loss_g = cross_entropy(judge(2 * fake - 1), one)
    loss_g.backward()
    adam_g.step()

    assert game.step(*real) == pytest.approx((loss_d.item(), loss_g.item()), rel=1e-5)
    for trained, expected in ((game.generator, generator), (game.discriminator, judge)):
        for name, parameter in expected.named_parameters():
            difference = (trained.get_parameter(name) - parameter).abs().mean()
            assert difference < 1e-3 * 2e-4, name  # Adam's first step is 2e-4 in every entry, rounding aside


def test_the_discriminators_step_sees_no_gradient_of_the_generators(real):
    """Two rounds: what the generator's loss added to the discriminator's gradients is dropped."""
    game = training.Game(seed=0, size=32, classes=None)
    game.step(*real)
    before = deepcopy(game)
    game.step(*real)
    for parameter in before.discriminator.parameters():
        parameter.grad = None
    before.step(*real)
    for name, parameter in before.discriminator.named_parameters():
        assert torch.equal(game.discriminator.get_parameter(name), parameter), name


def test_the_prior_is_the_moving_average_of_the_generator(real):
    game = training.Game(seed=0, size=32, classes=None)
    seen = []
    for _ in range(3):
        game.step(*real)
        seen.append({name: p.detach().clone() for name, p in game.generator.named_parameters()})
    prior = game.prior()
    for name, parameter in prior.named_parameters():
        expected = seen[0][name]
        for later in seen[1:]:
            expected = 0.999 * expected + 0.001 * later[name]
        torch.testing.assert_close(parameter, expected, rtol=1e-5, atol=1e-7)
    assert not prior.training


def test_batch_norm_statistics_are_those_of_the_averaged_generator(real):
    """The first layer's mean and variance over many latents, against latents drawn elsewhere."""
    game = training.Game(seed=0, size=32, classes=None)
    game.step(*real)
    conv, norm, _ = game.prior().blocks[0]
    features = conv(torch.randn(4000, 100, 1, 1, generator=torch.Generator().manual_seed(8)))
    sigma = features.std((0, 2, 3))
    shift = (norm.running_mean - features.mean((0, 2, 3))) / sigma
    assert shift.abs().max() < 0.15  # 512 latents x 16 places
    torch.testing.assert_close(norm.running_var.sqrt(), sigma, rtol=0.1, atol=0)


def test_batch_norm_statistics_are_those_of_all_classes(monkeypatch):
    """More classes than a batch has latents: the batches take turns."""
    seen = []
    monkeypatch.setattr(training, "update_bn", lambda batches, prior: seen.extend(batch["y"] for batch in batches))
    training.Game(seed=0, size=32, classes=100).prior()
    counts = torch.cat(seen).bincount(minlength=100)
    assert (len(seen), len(counts)) == (64, 100)
    assert counts.max() - counts.min() <= 1
