"""What an attack must be told, and its refusal of observations that it cannot work on."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

from torch import Tensor

from attacks.engine.objective import Match, refuse_unknown_scale
from attacks.labels import infer
from priors.base import Prior
from victims.client import LocalTraining
from victims.errors import InputError
from victims.observation import Observation
from victims.rounds import by_round
from victims.victim import Gradient


class Admission:
    """The door of every attack; `Attack` sets the rest.

    Class attributes:
        needs: what the attack must be given: any of `labels`, `prior`.
        uses: what it can make use of where it is given: `bn`, the batch-norm statistics.
        labels: where the labels of its dummy batch come from.
        made_for: options of a run outside of which the method is not defined, such as `{"batch": 1}`.
        analytic: solved layer by layer and judged once: no steps to share out.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    uses: ClassVar[frozenset[str]] = frozenset()
    labels: ClassVar[Literal["given", "inferred", "joint"]] = "given"
    made_for: ClassVar[Mapping[str, Any]] = {}
    analytic: ClassVar[bool] = False

    name: ClassVar[str]
    prior: Prior | None
    label_method: str | None
    match: Match
    distance: Callable[[Gradient, Gradient], Tensor]

    def check(self, observation: Observation) -> None:
        """Refuse an observation that this attack cannot work on.

        Raises:
            InputError: it lacks what the attack needs, gives what it cannot use, or is of a kind that it is not for
                (batch size, defense, image shape of the prior).
        """
        observation.require(self.needs - {"prior"}, self.name)
        if observation.knowledge.statistics and "bn" not in self.uses:
            raise InputError(f"{self.name} makes no use of batch-norm statistics; leave --bn none.")
        only = self.made_for.get("batch", observation.batch_size)
        if observation.batch_size != only:
            raise InputError(
                f"{self.name} works on batches of {only}, not {observation.batch_size}; run with --batch {only}."
            )
        if observation.knowledge.local:
            self.check_local(observation, observation.knowledge.local)
        if self.made_for.get("defense") == "none" and observation.knowledge.estimate:
            raise InputError(f"{self.name} has no answer to a defense; run with --defense none, or --adapt false.")
        if self.prior is not None:
            self.check_prior(self.prior, observation)

    def admit(self, observation: Observation) -> Observation:
        """The observation as the attack takes it up: with the labels that its label method reads, checked.

        Raises:
            InputError: as `check` does, and the label method.
        """
        if self.label_method is not None:
            observation = infer(observation, self.label_method)
        self.check(observation)
        return observation

    def check_local(self, observation: Observation, local: LocalTraining) -> None:
        """Refuse local training that is not one step for a closed form, and an unknown scale where it matters."""
        if self.analytic and local.steps(observation.batch_size) * local.clients > 1:
            raise InputError(f"{self.name} solves for one gradient; run with one local step, or without --lr.")
        if local.lr is None:
            refuse_unknown_scale(self.distance, by_round(observation.victim, observation.update)[0], self.match)

    def check_prior(self, prior: Prior, observation: Observation) -> None:
        """Refuse a prior whose images are no whole multiple of the task's, or that has other classes."""
        (channels, side, _), wanted = prior.image_shape, observation.image_shape
        if channels != wanted[0] or wanted[1] != wanted[2] or side % wanted[1]:
            raise InputError(
                f"the prior makes {prior.image_shape} images, the task has {wanted}; choose another --prior or --size."
            )
        if prior.classes and (observation.knowledge.labels is None or prior.classes < observation.num_classes):
            raise InputError(
                f"the prior takes labels of {prior.classes} classes, the task has {observation.num_classes} and "
                f"{'none' if observation.knowledge.labels is None else 'its own'} given; choose another --prior."
            )
