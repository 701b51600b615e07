"""What an attack must be told, and the refusal of observations that it cannot work on."""

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from attacks.engine.objective import Distance
from priors.base import Denoiser, Prior
from victims.choices import Match
from victims.client import LocalTraining, fed_sgd
from victims.contract import Broken, line_of
from victims.errors import InputError, Notice
from victims.losses.base import FLAT, check_loss, fault_of
from victims.observation import Estimate, Observation
from victims.rounds import by_round
from victims.small_images import smallest
from victims.trial import noise, type_and_shape
from victims.victim import Gradient, Victim, converted

if TYPE_CHECKING:
    from attacks.base import Attack

SURROGATE = "estimate gives a function of gradients"
FEW = 2  # images show whether a victim's gradient depends on them
SURE = 1e-4  # of the cost of the opposite gradient: a cost above has right digits in float32


def check_requirements(attack: "Attack", observation: Observation) -> None:
    """Refuse an observation that the attack cannot work on.

    Raises:
        InputError: the observation lacks what the attack needs, gives what it cannot use, or is of a kind that the
            attack is not made for (batch size, loss, defense, local training), or its prior is of no use for it.
    """
    knowledge = observation.knowledge
    if "labels" in attack.needs:
        observation.require_labels(attack.name)
    if knowledge.statistics and "bn" not in attack.uses:
        raise InputError(f"{attack.name} makes no use of batch-norm statistics; leave --bn none.")
    only = attack.made_for.get("batch", observation.batch_size)
    if observation.batch_size != only:
        raise InputError(
            f"{attack.name} works on batches of {only}, not {observation.batch_size}; run with --batch {only}."
            + whole_setting(attack)
        )
    if attack.labels != "given" or attack.label_method:
        check_labels(observation, soft=attack.labels == "joint")
    if knowledge.local:
        check_local_training(attack, observation, knowledge.local)
    if attack.made_for.get("defense") == "none" and knowledge.estimate:
        raise InputError(
            f"{attack.name} does not support defenses; run with --defense none, or --adapt no." + whole_setting(attack)
        )
    if knowledge.estimate:
        received = {name: g[None] for name, g in observation.gradient().items()}
        if not check_surrogate(knowledge.estimate, received, observation.victim):
            raise InputError(
                f"{attack.name}: the surrogate of the defense leaves nothing to match of what is shared; run with "
                "--adapt no."
            )
    for prior in (attack.prior, attack.refine):
        if prior is not None:
            prior.check(observation)


def check_surrogate(estimate: Estimate, received: Gradient, victim: Victim) -> Mapping[str, Tensor]:
    """What the surrogate of a defense makes of a received update.

    Raises:
        Broken: it is not a tensor of the same shape for some of the names.
    """
    fix = "give a function of a dictionary that gives one with tensors of the same shapes, (R, *shape)"
    transform: Any = estimate(received, victim)
    if not callable(transform):
        raise Broken(SURROGATE, f"it gives {type_and_shape(transform)}; {fix}", line_of(estimate))
    found: Any = transform(received)
    if not isinstance(found, Mapping):
        raise Broken(SURROGATE, f"its function gives {type_and_shape(found)}; {fix}", line_of(transform, estimate))
    for name, tensor in found.items():
        if name not in received or not isinstance(tensor, Tensor) or tensor.shape != received[name].shape:
            wrong = f"its function gives {type_and_shape(tensor)} for '{name}'; {fix}"
            raise Broken(SURROGATE, wrong, line_of(transform, estimate))
    return found


def kind_of(prior: Any) -> str:
    """What a message calls an object that was given for a prior."""
    return getattr(prior, "kind", type(prior).__name__)


def check_refinement(attack: "Attack", refine: Prior) -> None:
    """Refuse to refine by another prior than a denoiser, or what has no steps.

    Raises:
        InputError: says so.
    """
    if not isinstance(refine, Denoiser):
        raise InputError(f"--refine takes a denoiser, not a {kind_of(refine)}; give another, such as denoiser-photos.")
    if attack.analytic:
        raise InputError(f"{attack.name} has no steps to refine by; leave --refine out.")


def whole_setting(attack: "Attack") -> str:
    """Words on all that a method is made for, where that is more than one option: one refusal is enough."""
    flags = " ".join(f"--{name} {value}" for name, value in attack.made_for.items())
    return f" It is made for {flags}." if len(attack.made_for) > 1 else ""


def check_labels(observation: Observation, *, soft: bool) -> None:
    """Refuse a loss that does not take the labels that an attack finds.

    Args:
        soft: they are probabilities; else classes.
    """
    victim, (B, K) = observation.victim, (observation.batch_size, observation.num_classes)
    with torch.no_grad():
        logits = victim.logits(victim.parameters, noise(victim, (B, *observation.image_shape)))
    for first in range(0, K, B):  # a loss may leave out some classes
        classes = (first + torch.arange(B, device=logits.device)) % K
        targets = torch.eye(K).to(logits)[classes] if soft else classes
        if fault_of(victim.criterion, logits, targets) != FLAT:
            break
    check_loss(victim.criterion, logits, targets)


def check_local_training(attack: "Attack", observation: Observation, local: LocalTraining) -> None:
    """Refuse more than one local step for a closed form, and an unknown learning rate where the attack needs it."""
    if attack.analytic and local.steps(observation.batch_size) * local.clients > 1:
        raise InputError(
            f"{attack.name} needs a single gradient (FedSGD), not several local steps; run with one local step, or "
            "without --lr."
        )
    if attack.analytic and not local.optimizer.averages:
        raise InputError(
            f"{attack.name} needs a single gradient, which the steps of this local optimizer do not give; run with "
            "--local-optimizer sgd."
        )
    if attack.analytic and local.lr is None and local.optimizer.decay:
        raise InputError(
            f"{attack.name} solves for the gradient, and without the learning rate weight decay cannot be taken out of "
            "the update; run with --know-lr true."
        )
    if attack.analytic and attack.match == "sme":
        raise InputError(f"{attack.name} solves for the gradient at the weights before training; run with --match aga.")
    if local.lr is None:
        refuse_unknown_scale(attack.distance, by_round(observation.victim, observation.update)[0], attack.match)


def warn_of_average(local: LocalTraining | None, match: Match) -> None:
    """A Notice where local steps are matched as if they were gradients, and are not."""
    if local and not local.optimizer.averages:
        warnings.warn(
            f"the client's local optimizer takes no steps along gradients, and {match} matches their sum as if it were "
            "one gradient; --match fa repeats the steps.",
            Notice,
            stacklevel=3,
        )


def warn_of_rounding(distance: Distance, observation: Observation) -> None:
    """A Notice where the cost of another image has no right digit in the victim's precision.

    The cost is that of gray for noise, with the same labels, on images as small as the victim takes them. Sigmoids with
    random weights can make 1 - cosine less than one rounding. If it is small beside the cost of the opposite gradient,
    its error is found in float64.
    """
    victim = observation.victim
    if victim.mean.dtype != torch.float32:
        return
    shape = smallest(victim, (min(observation.batch_size, FEW), *observation.image_shape))
    x = torch.stack([torch.rand(shape, generator=torch.Generator().manual_seed(0)), torch.full(shape, 0.5)])
    try:
        one, other = updates_of(victim, x)
        rounded = cost_between(distance, one, other)
        if rounded > SURE * cost_between(distance, one, [{name: -g for name, g in each.items()} for each in one]):
            return
        right = cost_between(distance, *updates_of(converted(victim, victim.mean.device, torch.float64), x))
    except Exception:  # a model that only runs in float32
        return
    if abs(rounded - right) > right / 2:
        warnings.warn(
            f"in float32 the cost of gray for noise is {rounded:.1e} in place of {right:.1e}: this victim's gradient "
            "hardly depends on the images, and costs are rounding alone. Try --victim-mode train, calibrated or "
            "trained --victim-weights, or --precision float64.",
            Notice,
            stacklevel=3,
        )


def updates_of(victim: Victim, batches: Tensor) -> list[list[Gradient]]:
    """Of batches with the same labels, (N, B, C, H, W) in [0, 1]: of every round."""
    labels = torch.zeros(batches.shape[1], dtype=torch.long, device=victim.mean.device)
    sent = (fed_sgd(victim, x, labels) for x in batches.to(victim.mean))
    return [by_round(victim, {name: g[None] for name, g in update.items()}) for update in sent]


def cost_between(distance: Distance, one: Sequence[Gradient], other: Sequence[Gradient]) -> float:
    """Of two updates, of every round."""
    return float(sum(distance(*each) for each in zip(one, other, strict=True)))


def refuse_unknown_scale(distance: Distance, update: Gradient, match: Match) -> None:
    """Refuse what needs a learning rate that the attacker does not know.

    Args:
        update: one client's, not stacked; only its shapes are used.

    Raises:
        InputError: the training would have to be repeated, or the distance depends on the length of the gradient.
    """
    if match == "fa":
        raise InputError(
            "fa repeats the clients' training and needs their learning rate; run with --know-lr true, or --match aga."
        )
    generator = torch.Generator().manual_seed(0)
    one, other = ({n: torch.randn(1, *g.shape, generator=generator).to(g) for n, g in update.items()} for _ in "ab")
    longer = {name: 2 * g for name, g in one.items()}
    if not torch.allclose(distance(longer, other), distance(one, other), rtol=1e-3):
        raise InputError(
            "this distance depends on the length of the gradient, which an unknown learning rate hides; take an attack "
            "that compares directions (cosine), or run with --know-lr true."
        )
