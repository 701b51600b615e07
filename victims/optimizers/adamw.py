"""AdamW: Loshchilov, Hutter, *Decoupled Weight Decay Regularization*, ICLR 2019, algorithm 2."""

from victims.optimizers.adam import adapted
from victims.optimizers.base import Optimizer, State, require_decay
from victims.victim import Gradient


class AdamW(Optimizer):
    """Adam with weight decay beside its step, as in `torch.optim.AdamW`: d = m / (sqrt(v) + eps) + decay theta."""

    examples = ("adamw", "adamw:0.1")
    averages = False

    def __init__(self, decay: float = 0.01) -> None:
        """
        Args:
            decay: of the weights, 0 or more.

        Raises:
            InputError: it is negative or not finite.
        """
        require_decay("adamw", decay)
        self.decay = decay

    def direction(self, theta: Gradient, g: Gradient, state: State, step: int) -> Gradient:
        return {name: d + self.decay * theta[name] for name, d in adapted(g, state, step).items()}
