"""Adam: Kingma, Ba, *Adam: A Method for Stochastic Optimization*, ICLR 2015, algorithm 1."""

from victims.optimizers.base import Optimizer, State, require_decay
from victims.victim import Gradient

BETA1, BETA2, EPS = 0.9, 0.999, 1e-8  # torch's
TINY = 1e-30  # a root has no derivative at 0


class Adam(Optimizer):
    """Adam, with weight decay as in `torch.optim.Adam`: g += decay theta.

    Its steps have the size of the learning rate whatever the size of the gradient. So what a client sends is no average
    of gradients, and of one step it is little more than the signs of one.
    """

    examples = ("adam", "adam:0.01")
    averages = False

    def __init__(self, decay: float = 0.0) -> None:
        """
        Args:
            decay: of the weights, 0 or more.

        Raises:
            InputError: it is negative or not finite.
        """
        require_decay("adam", decay)
        self.in_gradient = decay

    @property
    def decays(self) -> bool:
        return self.in_gradient > 0

    def direction(self, theta: Gradient, g: Gradient, state: State, step: int) -> Gradient:
        if self.in_gradient:
            g = {name: tensor + self.in_gradient * theta[name] for name, tensor in g.items()}
        return adapted(g, state, step)


def adapted(g: Gradient, state: State, step: int) -> Gradient:
    """m / (sqrt(v) + eps), both corrected for their start at zero."""
    m = {name: (1 - BETA1) * tensor for name, tensor in g.items()}
    v = {name: (1 - BETA2) * tensor.square() for name, tensor in g.items()}
    if step > 1:
        m = {name: BETA1 * state["m"][name] + tensor for name, tensor in m.items()}
        v = {name: BETA2 * state["v"][name] + tensor for name, tensor in v.items()}
    state["m"], state["v"] = m, v
    first, second = 1 - BETA1**step, 1 - BETA2**step
    return {name: m[name] / first / ((v[name] / second + TINY).sqrt() + EPS) for name in g}
