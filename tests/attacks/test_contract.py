"""Tests that every attack must pass. An attack is tested because it is in the folder."""

import gc
import inspect
import types
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch.autograd import gradcheck

from attacks.base import Attack
from attacks.engine import gradients, probe
from attacks.engine.distances import cosine
from attacks.engine.factored_gradients import Layers
from attacks.engine.objective import Objective
from attacks.engine.space import Between
from attacks.ig import IG
from benchmark.config import options_of
from benchmark.registry import find, open_defense, registered
from benchmark.scoring.metrics import score
from benchmark.tasks.batches import Batch
from benchmark.tasks.capture import Client, Task, capture_task
from benchmark.tasks.module import GradientDataModule
from benchmark.tracks.budget import evaluations
from defenses.base import Defense
from priors.base import Denoiser, Generator
from priors.dcgan import DCGAN
from priors.ffdnet import FFDNet
from priors.inverters import Inverter
from victims.data.photos import Photos
from victims.errors import InputError
from victims.victim import Victim, build, gradient

ATTACKS = registered("attack")
STEPS = 6
DEFENSES = registered("defense")
ACTS = ("model", "class_counts", "gradient_fn", "__call__")  # the places where a client can act, in its order


def acts_at(defense: type[Defense]) -> int:
    return next(place for place, method in enumerate(ACTS) if method in vars(defense))


IN_ORDER = sorted(DEFENSES, key=lambda name: (acts_at(DEFENSES[name]), name))
REFUSES = {"idlg": "precode"}  # it needs features that are never negative; those of a bottleneck can be negative


def together(attack: str) -> str:
    """A chain of all defenses that the attack accepts."""
    return "+".join(DEFENSES[name].examples[0] for name in IN_ORDER if name != REFUSES.get(attack))


def any_update(network: type[Inverter]) -> Inverter:
    """An inverter of a kind that takes every update: the contract is of attacks, `test_inverters.py` of networks."""

    class Untrained(network):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            torch.nn.Module.__init__(self)

        def check(self, observation):
            self.shape = (observation.batch_size, *observation.image_shape)

        def forward(self, update, labels):
            u = torch.cat([g.flatten(1) for g in update.values()], 1)[:, : torch.Size(self.shape).numel()]
            return (u / u.abs().mean(1, keepdim=True)).sigmoid().unflatten(1, self.shape)

    return Untrained()


every_attack = pytest.mark.parametrize("method", ATTACKS.values(), ids=ATTACKS.keys())


@pytest.fixture
def make(small_prior: DCGAN, small_denoiser: FFDNet) -> Callable[..., Attack]:
    def make(method: type[Attack], dtype: torch.dtype = torch.float32, **options: Any) -> Attack:
        if "prior" in method.needs:
            kinds = {Denoiser: small_denoiser, Generator: small_prior}
            own = kinds.get(method.takes) or any_update(method.takes)
            options["prior"] = own.to(dtype)
        if not method.analytic:
            options = {"steps": STEPS, **options}
        if "population" in inspect.signature(method.__init__).parameters:
            options = {"population": 4, **options}
        return method(**{"restarts": 1, **options})

    return make


@pytest.fixture
def capture(method: type[Attack], capture: Callable[..., Task]) -> Callable[..., Task]:
    """Captures tasks that the method is made for."""
    setting = method.made_for

    def take(indices: tuple[int, ...] = (3, 50, 90), **options: Any) -> Task:
        if "victim" in setting:
            options["model"] = find("victim", setting["victim"])
        if setting.get("defense") == "none":
            options = {"rate": None, **options}
        return capture(indices[: setting.get("batch")], training=setting.get("victim_mode") == "train", **options)

    return take


@every_attack
def test_its_search_space_has_options_of_its_own_around_their_defaults(method, make):
    options = options_of(method)
    assert method.space.keys() <= options.keys() - {"restarts", "steps"}
    for name, values in method.space.items():
        default = options[name].default
        if isinstance(values, Between):
            assert 0 < values.low <= default <= values.high
            values = (values.low, values.high)
        else:
            assert default in values
        for value in values:
            make(method, **{name: value})


@every_attack
def test_what_it_costs_is_known_before_the_first_step(method, make, capture):
    observation = capture().observation
    for restarts in (1, 2):
        attack = make(method, restarts=restarts)
        known = evaluations(attack, observation)
        assert attack.run([observation]).gradient_evaluations == known


def as_the_attacker_sees(task):
    """The private batch, normalized, in the order of its sorted labels: images (1, B, C, H, W), labels (1, B)."""
    labels, order = task.labels.sort()
    victim = task.observation.victim
    return victim.normalize(task.images.to(victim.mean))[order][None], labels[None]


def force(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a path the fastest one that is found for a victim, if it is possible at all."""
    if path in ("vectorized", "plain"):
        monkeypatch.setattr(probe, "find_layers", lambda *_: None)
    if path == "plain":
        monkeypatch.setattr(probe, "vectorizes", lambda *_: False)


@every_attack
def test_cost_at_the_truth_is_zero_to_rounding(method, make, capture):
    task = capture(dtype=torch.float64)
    attack = make(method, torch.float64)
    attack.begin([task.observation])
    truth, labels = as_the_attacker_sees(task)
    assert abs(attack.cost(truth, labels).item()) < 1e-9
    assert attack.cost(truth.flip(-1), labels).item() > 1e-4


@every_attack
@pytest.mark.parametrize("path", ["factored", "vectorized", "plain"])
def test_cost_passes_gradcheck(method, path, make, capture, monkeypatch):
    attack = make(method, torch.float64, restarts=2)
    task = capture((3, 50), dtype=torch.float64)
    force(path, monkeypatch)
    attack.begin([task.observation])
    assert attack.paths.choose(2, 1).name == path
    corner = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)
    rest, labels = attack.noise(), as_the_attacker_sees(task)[1].expand(2, -1)

    def cost(pixels):  # of a few pixels: gradcheck evaluates twice per entry
        patch = torch.nn.functional.pad(pixels, (4, 25, 8, 21))
        return attack.cost(rest + patch, labels)

    assert gradcheck(cost, (corner,), eps=1e-6, atol=1e-7)


@every_attack
def test_looped_chunked_and_vectorized_restarts_agree(method, make, capture, monkeypatch):
    tasks = [capture(dtype=torch.float64), capture((8, 30, 77), task="u", dtype=torch.float64)]
    observations = [task.observation for task in tasks]

    def outcome(**options):
        result = make(method, torch.float64, restarts=3, **options).run(observations)
        return result.images, torch.stack([cost for _, cost in result.curve])

    images, curve = outcome(chunk=6)
    chunked_images, chunked_curve = outcome(chunk=2)
    force("vectorized", monkeypatch)
    vectorized = outcome(chunk=6)
    force("plain", monkeypatch)
    for other, other_curve in ((chunked_images, chunked_curve), vectorized, outcome()):
        torch.testing.assert_close(other_curve, curve, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(other, images, rtol=1e-6, atol=1e-9)


@every_attack
def test_batched_tasks_do_not_influence_each_other(method, make, capture):
    tasks = [capture(dtype=torch.float64), capture((8, 30, 77), task="u", dtype=torch.float64)]
    together = make(method, torch.float64).run([task.observation for task in tasks])
    for k, task in enumerate(tasks):
        alone = make(method, torch.float64).run([task.observation])
        torch.testing.assert_close(together.images[k], alone.images[0], rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(together.cost[k], alone.cost[0], rtol=1e-9, atol=1e-12)


@every_attack
def test_more_restarts_never_cost_more_and_start_alike(method, make, capture):
    observation = capture(dtype=torch.float64).observation  # L-BFGS enlarges rounding
    one, three = (make(method, torch.float64, restarts=r).run([observation]) for r in (1, 3))
    assert three.cost <= one.cost + 1e-6
    assert three.curve[0][1] <= one.curve[0][1] + 1e-6
    other = make(method, torch.float64, seed=1).run([observation])
    assert torch.equal(one.curve[0][1], other.curve[0][1]) == method.analytic


@every_attack
def test_the_returned_cost_is_the_cost_of_the_returned_image(method, make, capture):
    observations = [capture().observation, capture((8, 30, 77), task="u").observation]
    result = make(method, restarts=2).run(observations)
    fresh = make(method)
    fresh.begin(observations)
    torch.testing.assert_close(fresh.cost(result.images, result.labels), result.cost, rtol=1e-4, atol=1e-6)
    curve = torch.stack([cost for _, cost in result.curve])
    latest = fresh.session.stage.latest  # such a stage returns its last images, whatever they cost
    torch.testing.assert_close(result.cost, curve[-1] if latest else curve.amin(0))


@every_attack
def test_same_seed_same_result_to_the_last_bit(method, make, capture):
    first, second = (make(method, restarts=2).run([capture().observation]) for _ in range(2))
    assert torch.equal(first.images, second.images)
    assert torch.equal(first.cost, second.cost)


@every_attack
def test_budget_counts_every_victim_gradient(method, make, capture, monkeypatch):
    one = capture().observation
    observations = [one, capture((8, 30, 77), task="u", victim=one.victim).observation]
    attack = make(method, restarts=2, chunk=3)
    attack.admit(one)  # its trial of every gradient path is not part of the attack
    counted = []

    def counting(real):
        def count(of, images, labels, **how):
            counted.append(len(images))
            return real(of, images, labels, **how)

        return count

    for owner, name in ((gradients, "victim_gradients"), (Layers, "gradient")):
        monkeypatch.setattr(owner, name, counting(getattr(owner, name)))
    result = attack.run(observations)
    assert result.gradient_evaluations * len(observations) == sum(counted)
    assert len(result.curve) == (sum(make(method).plan.values()) if method.analytic else STEPS)


@every_attack
def test_cycling_the_batch_changes_no_score(method, make, capture):
    def scores(indices):
        task = capture(indices, dtype=torch.float64)
        images = make(method, torch.float64).run([task.observation]).images[0]
        _, values = score(task.observation.victim.denormalize(images), task.images)
        return {sample: (values["psnr"][k], values["ssim"][k]) for k, sample in enumerate(task.sample_ids)}

    size = method.made_for.get("batch", 3)
    straight, cycled = scores((3, 50, 90)[:size]), scores((50, 90, 3)[3 - size :])
    for sample, values in straight.items():
        assert cycled[sample] == pytest.approx(values, abs=1e-3)


@every_attack
def test_refuses_an_observation_that_does_not_fit(method, make, capture):
    if "labels" in method.needs:
        with pytest.raises(InputError, match="labels") as refusal:
            make(method).begin([capture(give_labels=False).observation])
        assert "\n" not in str(refusal.value)
    if "prior" in method.needs:
        with pytest.raises(InputError, match="prior"):
            method()
        if issubclass(method.takes, Generator):
            with pytest.raises(InputError, match="image"):
                make(method).begin([capture(size=40).observation])  # the prior makes 32 px
    if method.analytic:
        with pytest.raises(InputError, match="steps"):
            method(steps=STEPS)
    if "batch" in method.made_for:
        with pytest.raises(InputError, match="batch"):
            make(method).begin([replace(capture().observation, batch_size=2)])
    if method.made_for.get("defense") == "none":
        with pytest.raises(InputError, match="--defense none"):
            make(method).begin([capture(rate=0.5).observation])
    if "bn" not in method.uses:
        observation = capture().observation
        told = replace(observation.knowledge, statistics={"bn1": torch.zeros(2, 8)})
        with pytest.raises(InputError, match="batch-norm"):
            make(method).begin([replace(observation, knowledge=told)])


SEARCH = [m for m in ATTACKS.values() if "prior" in m.needs and issubclass(m.takes, Generator)]


@pytest.mark.parametrize("method", SEARCH, ids=lambda method: method.name)
def test_a_generator_of_larger_images_is_searched_at_any_size(method, make, capture):
    result = make(method).run([capture(size=24).observation])  # the prior makes 32 px
    assert result.images.shape == (1, method.made_for.get("batch", 3), 3, 24, 24)
    assert result.cost.isfinite().all()


@every_attack
@pytest.mark.parametrize("broken", [0.0, torch.nan])
def test_an_update_that_cannot_be_matched_diverges(method, broken, make, capture):
    observation = capture().observation
    for tensor in observation.update.values():
        tensor.mul_(broken)
    result = make(method).run([observation])
    assert torch.isinf(result.cost).all()
    assert torch.isfinite(result.images).all()


@every_attack
@pytest.mark.parametrize("exponent", [-83, 83])  # 1e-25 and 1e25
def test_tiny_and_huge_updates_do_not_diverge(method, exponent, make, capture):
    observation = capture().observation
    ordinary = make(method).run([observation])
    for tensor in observation.update.values():
        tensor.mul_(2.0**exponent)
    attack = make(method)
    result = attack.run([observation])
    assert result.cost.isfinite().all()
    if attack.distance is cosine:
        torch.testing.assert_close(result.images, ordinary.images)


def test_every_attack_declares_its_own_name():
    assert {name: method.name for name, method in ATTACKS.items()} == {name: name for name in ATTACKS}


def test_an_attack_that_declares_no_name_has_its_dotted_path():
    class Mine(IG):
        pass

    assert Mine.name == f"{__name__}.Mine"
    assert Mine().name == Mine.name


@every_attack
def test_presets_and_defaults_fit_the_constructor(method, make):
    for preset in ({}, *method.presets.values()):
        attack = make(method, **preset) if method.analytic else make(method, **{"steps": None, **preset})
        assert all(count >= 1 for count in attack.plan.values())
        assert not preset or "restarts" in preset, "a preset states the number of starts of its source"
        assert not preset or preset.source, "a preset says its source"
    assert method.__doc__, "an attack says what it does and who published it"


class Keep(Callback):
    """Runs the walk while everything is alive, and keeps nothing."""

    def __init__(self, check):
        self.check = check

    def on_train_epoch_end(self, trainer, pl_module):
        self.check(trainer, pl_module)


def reachable(*roots: Any) -> list[torch.Tensor]:
    """Every tensor that can be reached from `roots` through attributes, containers and closures.

    Not followed: modules, classes and a function's globals (code, which reaches the whole program), and
    Lightning's reference from the attack back to its Trainer.
    """
    seen: dict[int, Any] = {}
    queue: list[Any] = list(roots)
    while queue:
        item = queue.pop()
        if id(item) in seen or isinstance(item, types.ModuleType | type | Trainer | str | int | float | None):
            continue
        seen[id(item)] = item
        if isinstance(item, types.FunctionType):
            queue += [cell.cell_contents for cell in item.__closure__ or ()] + list(item.__defaults__ or ())
        elif isinstance(item, types.GeneratorType):
            queue += list(inspect.getgeneratorlocals(item).values())
        else:
            queue += gc.get_referents(item)
            queue += list(vars(item).values()) if hasattr(item, "__dict__") else []
    return [item for item in seen.values() if isinstance(item, torch.Tensor)]


def holds(tensors, images, victim) -> bool:
    """Whether any tensor is, contains or shares memory with one of the images, plain or normalized."""
    secrets = [*images, *victim.normalize(images)]
    memory = {image.untyped_storage().data_ptr() for image in (images, *images)}
    for tensor in tensors:
        if tensor.numel() and tensor.untyped_storage().data_ptr() in memory:
            return True
        if tensor.is_floating_point() and tensor.shape[-3:] == images.shape[-3:]:
            for image in tensor.detach().reshape(-1, *images.shape[-3:]):
                if any(torch.allclose(image, secret.to(image), atol=1e-3) for secret in secrets):
                    return True
    return False


@every_attack
def test_no_private_image_is_reachable(method, make, capture):
    data, victim = Photos(split="tune"), capture().observation.victim
    batch, steps = Batch("t", (3, 50, 90)[: method.made_for.get("batch")]), sum(make(method).plan.values())
    client = Client(bn="exact" if victim.running and "bn" in method.uses else "none")
    control = "shuffled_update" if method.analytic else "none"  # a closed form does reconstruct the image
    task = capture_task(victim, data, batch, client, control)
    module = GradientDataModule(lambda _: [task.observation], groups=1, steps=steps)
    verdicts = []

    def check(trainer: Trainer, attack: LightningModule) -> None:
        verdicts.append(holds(reachable(attack, task.observation), task.images, victim))
        attack.leak = [{"deep": (lambda images=task.images[:1] * 1: images)}]  # the walk must find this
        verdicts.append(holds(reachable(attack, task.observation), task.images, victim))

    trainer = Trainer(
        accelerator="cpu", max_epochs=1, callbacks=[Keep(check)], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(make(method), module)
    assert verdicts == [False, True]


# Under every defense.


@pytest.fixture
def defended() -> Callable[..., Task]:
    """Tasks of an adaptive attacker, by default on a LeNet."""

    def take(text: str, indices: tuple[int, ...] = (3, 50, 90), surrogate: str = "", victim: str = "lenet") -> Task:
        data, defense = Photos(split="tune"), open_defense(text)
        make = find("victim", victim)
        net = build(
            lambda image_shape, **options: defense.model(make(image_shape=image_shape, **options), image_shape),
            image_shape=data.image_shape,
            num_classes=10,
            seed=0,
        )
        victim = Victim(net, mean=data.mean, std=data.std)
        return capture_task(victim, data, Batch("t", indices), Client(defense=defense, surrogate=surrogate))

    return take


@pytest.mark.parametrize("name", DEFENSES)
def test_every_defense_has_examples_of_its_use(name):
    uses = DEFENSES[name].examples
    assert uses, f"give {name} uses in its class attribute examples"
    assert {use.partition(":")[0] for use in uses} == {name}
    assert len(set(uses)) == len(uses) == (2 if inspect.signature(DEFENSES[name]).parameters else 1)


@pytest.mark.parametrize(
    ("method", "text"),
    [
        *(pytest.param(m, together(name), id=f"{name}-all") for name, m in ATTACKS.items() if not m.analytic),
        *(pytest.param(IG, use, id=f"ig-{use}") for name in IN_ORDER for use in DEFENSES[name].examples),
    ],
)
def test_steps_change_the_variables_under_a_defense(method, text, make, defended, monkeypatch):
    seen = []

    def watch(name):
        real = getattr(Objective, name)

        def watched(self, stage, variables):
            found = real(self, stage, variables)
            seen.append(({n: v.detach().clone() for n, v in variables.items()}, found))
            return found

        monkeypatch.setattr(Objective, name, watched)

    watch("cost_and_gradients")
    watch("values")
    attack = make(method, steps=8 * STEPS)
    made_for = method.made_for
    task = defended(text, (3, 50, 90)[: made_for.get("batch")], victim=made_for.get("victim", "lenet"))
    attack.begin([task.observation])
    while len(seen) < 2 or seen[-2][0].keys() != seen[-1][0].keys():  # a first stage may have a single step
        attack.advance()
    (before, _), (after, _) = seen[-2:]
    assert all(not torch.equal(before[name], after[name]) for name in before)
    for _, (cost, *_, last) in seen:
        assert cost.isfinite().all()
        assert all(tensor.isfinite().all() for tensor in (last.values() if isinstance(last, dict) else [last]))


SURROGATES = [(name, surrogate) for name, defense in DEFENSES.items() for surrogate in ("", *defense.surrogates)]


@pytest.mark.parametrize(("name", "surrogate"), SURROGATES)
def test_a_surrogate_depends_only_on_the_update(name, surrogate, defended):
    """Two clients with different images and parameters but the same update have the same surrogate."""
    defended = partial(defended, surrogate=surrogate)
    mild, strong = DEFENSES[name].examples[0], DEFENSES[name].examples[-1]
    victim = defended(mild).observation.victim
    received = {n: g[None] for n, g in defended(mild).observation.update.items()}
    estimates = [defended(mild).observation.knowledge.estimate]
    estimates.append(defended(strong, (8, 30, 77)).observation.knowledge.estimate)
    generator = torch.Generator().manual_seed(0)
    dummy = {n: torch.randn(g.shape, generator=generator) for n, g in received.items()}
    one, other = (estimate(received, victim)(dummy) for estimate in estimates)
    assert one.keys() == other.keys()
    assert all(torch.equal(g, other[n]) for n, g in one.items())


@pytest.mark.parametrize(("text", "surrogate"), [(use, s) for name, s in SURROGATES for use in DEFENSES[name].examples])
def test_a_surrogate_brings_the_true_gradient_no_further_from_the_update(text, surrogate, defended):
    task = defended(text, surrogate=surrogate)
    victim, update = task.observation.victim, task.observation.update
    received = {n: g[None] for n, g in update.items()}
    true = {n: g[None] for n, g in gradient(victim, victim.normalize(task.images), task.labels).items()}
    surrogate = task.observation.knowledge.estimate(received, victim)(true)
    assert surrogate
    adaptive, non_adaptive = (cosine({n: dummy[n] for n in surrogate}, received) for dummy in (surrogate, true))
    assert adaptive <= non_adaptive + 1e-6
