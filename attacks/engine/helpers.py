"""What a method's `search` is written with: starting points, images, boxes, statistics, for all runs at once."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from attacks.engine.gradients import victim_statistics
from attacks.engine.regularizers import statistics_distance
from attacks.engine.stage import Variables
from priors.base import Prior, shrink
from victims.observation import Observation
from victims.seeds import seed_of
from victims.victim import Victim


class Toolbox:
    """Of an attack that has taken up tasks."""

    observations: list[Observation]
    victim: Victim
    vectorized: bool
    prior: Prior | None
    seed: int
    _alive: int

    @property
    def runs(self) -> int:
        """R: tasks times the restarts that are still going on."""
        return len(self.observations) * self._alive

    @property
    def batch_size(self) -> int:
        return self.observations[0].batch_size

    def seeds(self, *salt: object) -> list[int]:
        """One per run; it depends on seed, task, restart and salt alone, on no device or grouping."""
        tasks = [observation.task for observation in self.observations]
        return [seed_of(self.seed, task, restart, *salt) for task in tasks for restart in range(self._alive)]

    def draw(self, sample: Callable[[torch.Generator], Tensor], *salt: object) -> Tensor:
        """One draw per run, (R, ...), from its seed."""
        draws = [sample(torch.Generator().manual_seed(seed)) for seed in self.seeds(*salt)]
        return torch.stack(draws).to(self.victim.mean)

    def for_runs(self, tensors: Sequence[Tensor]) -> Tensor:
        """One tensor of each task, (...) -> that of its task for every run, (R, ...)."""
        return torch.stack(list(tensors)).repeat_interleave(self._alive, 0)

    def noise(self) -> Tensor:
        """Standard normal images, (R, B, C, H, W)."""
        shape = (self.batch_size, *self.observations[0].image_shape)
        return self.draw(lambda generator: torch.randn(shape, generator=generator))

    def latents(self) -> dict[str, Tensor]:
        """What goes into the prior, from its own distribution, (R, B, ...) each; a conditional one has the labels y."""
        draws = [self.prior.draw(self.batch_size, torch.Generator().manual_seed(seed)) for seed in self.seeds()]
        state = {name: torch.stack([draw[name] for draw in draws]).to(self.victim.mean) for name in draws[0]}
        if self.prior.classes:
            state["y"] = self.for_runs([o.knowledge.labels for o in self.observations])
        return state

    def images(self, decoded: Tensor) -> Tensor:
        """A prior's images (R, B, C, H, W) in [0, 1] as the victim takes them: area-resized, normalized."""
        return self.victim.normalize(shrink(decoded, self.observations[0].image_shape[-1]))

    def box(self, images: Tensor) -> None:
        """Clamp normalized images, in place, to what pixels in [0, 1] can be."""
        torch.clamp(images, self.victim.normalize(0), self.victim.normalize(1), out=images)

    def bn(self, v: Variables, x: Tensor, first: float = 1.0) -> Tensor:
        """Distance of the images' batch-norm statistics to those given, which are in v; (R,), zero where none are."""
        known = {name.removeprefix("bn "): s for name, s in v.items() if name.startswith("bn ")}
        if not known:
            return x.new_zeros(len(x))
        return statistics_distance(victim_statistics(self.victim, x, vectorized=self.vectorized), known, first)
