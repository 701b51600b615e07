"""How the victim's gradient is computed, decided in one place.

Three paths compute the same gradient up to rounding: `plain`, one dummy batch after another by autograd; `vectorized`,
all at once by `torch.func`; and `factored`, layer by layer, without forming the large tensors. A function that uses any
of them can be compiled.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from attacks.engine.compiled import Compiler, Function
from attacks.engine.factored_gradients import Layers, find_layers
from attacks.engine.gradients import vectorizes, victim_gradients, victim_statistics
from victims.client import LocalTraining
from victims.observation import Observation
from victims.victim import Gradient, Statistics, Victim

CPU_IMAGES = 4  # measured: with more images, grouped convolutions of many instances are slower than one by one
CPU_FACTORED = 16  # measured: convolutions run on one large batch, and more images do not fit into the caches
CPU_CANDIDATES = 25  # of a gradient-free step, which keeps nothing for a backward pass


@dataclass(frozen=True)
class GradientPath:
    """One way to compute the victim's gradient.

    Attributes:
        name: plain, vectorized or factored.
        gradient: images (n, B, C, H, W), normalized, and labels, classes (n, B) or probabilities (n, B, K) ->
            d loss / d theta, (n, *shape) per parameter.
        compiler: for functions that use this path; None where compiling is not worth its time.
    """

    name: str
    gradient: Callable[[Tensor, Tensor], Gradient]
    compiler: Compiler | None = None

    def prepare(self, function: Function, inputs: Sequence[Tensor]) -> tuple[str, Function]:
        """The function for repeated calls on inputs of these shapes, compiled if possible, and the name of the path."""
        fast = self.compiler(function, inputs) if self.compiler else function
        return self.name if fast is function else f"{self.name}+compiled", fast


@dataclass(frozen=True)
class GradientPaths:
    """The paths that are possible for a victim, found by `probe`.

    Attributes:
        local: training that is repeated on the dummy batch; None for one gradient.
        layers: the victim's, if its gradient can be factored.
        vectorized: whether `torch.func` works for this victim; not probed where `layers` make it unnecessary.
        compiler: None never compiles.
    """

    victim: Victim
    local: LocalTraining | None = None
    layers: Layers | None = None
    vectorized: bool = False
    compiler: Compiler | None = None

    @classmethod
    def probe(cls, observation: Observation, local: LocalTraining | None, compiler: Compiler) -> "GradientPaths":
        """Find the paths for the victim of an observation, on random images of its shape."""
        case = observation.victim, observation.image_shape, observation.batch_size
        layers = None if local else find_layers(*case)
        needed = layers is None or bool(observation.knowledge.statistics)
        return cls(observation.victim, local, layers, needed and vectorizes(*case, local), compiler)

    def choose(self, n: int, evaluations: int) -> GradientPath:
        """The fastest path for n dummy batches at once, as measured.

        Args:
            evaluations: how often the stage evaluates its objective, which decides about compiling.
        """
        device = self.victim.mean.device
        compiler = self.compiler if self.compiler and self.compiler.repays(evaluations, device) else None
        if self.layers and (n > 1 or self.layers.faster_for_one):
            return GradientPath("factored", self.layers.gradient, compiler)
        vectorized = self.vectorized and n > 1  # one batch is faster without
        gradient = partial(victim_gradients, self.victim, local=self.local, vectorized=vectorized)
        return GradientPath("vectorized" if vectorized else "plain", gradient, compiler)

    def at_once(self, batch_size: int, population: int) -> int | None:
        """How many dummy batches to evaluate at once on this device; None for all."""
        if self.victim.mean.device.type != "cpu":
            return None
        images = CPU_IMAGES if not self.layers else CPU_FACTORED if population == 1 else CPU_CANDIDATES
        return max(1, images // batch_size)

    def statistics(self, images: Tensor) -> Statistics:
        """Batch-norm statistics of normalized images (R, B, C, H, W): (R, 2, C) per layer."""
        return victim_statistics(self.victim, images, vectorized=self.vectorized)
