"""GIML: Jeon, Kim, Lee, Oh, Ok, *Gradient Inversion with Generative Image Prior*, NeurIPS 2021, algorithm 2."""

import math
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.optim import SGD, Adam, Optimizer

from attacks.engine.distances import cosine
from attacks.engine.gradients import GradientPaths
from attacks.engine.objective import Objective
from attacks.engine.optimizers import minimize
from attacks.engine.preset import Preset
from attacks.gias import LITERAL, VARIATION
from priors import checkpoint
from priors.base import Generator, decode
from victims.errors import InputError
from victims.observation import Observation
from victims.ranges import above_zero, at_least, not_negative
from victims.seeds import seed_of

# Left open by the paper; those of meta_train.sh in the code, which learns a StyleGAN2.
OPEN: dict[str, Any] = {"steps_z": 1_000, "eta_z": 3e-2, "tau": 500}
SEARCHES = "Adam with GIAS's decay in both searches, where line 9 is plain descent, and its rates"
META: dict[str, Callable[..., Optimizer]] = {"reptile": SGD, "adam": partial(Adam, fused=True)}


class GIML:
    """Gradient inversion to meta-learn: a generator G_w from a set S of captured updates (theta_i, g_i) alone.

    This is not an attack: it returns no batch, but learns a prior for attacks. G stays in eval mode with its initial
    batch-norm statistics 0 and 1, as in the code. Both searches use Adam, as GIAS does (appendix G); line 9 of
    algorithm 2 is plain descent.

    Paper and code differ in the meta update (Reptile; a step of Adam along w - w'), in the variation of both searches
    (see GIAS), and in the norm of latents: the code adds, N times, lambda times the norm of all N latents as one
    vector, which for latents of equal length is sqrt(N) lambda times the sum of their norms. They also differ in S,
    which `prior learn` simulates: the paper has 4 rounds of 200 clients; in the code the model takes one step of SGD
    after every 50 outer steps.

    Args:
        G: the generator with its initial w; it is trained in place.
        seed: of the order of the tasks and of the latents.
        N: tasks in a step.
        steps_z: steps on the latents.
        eta_z: their learning rate.
        lam: lambda, the weight of sum_j |z_ij|_2.
        tau: steps on w'.
        alpha: their learning rate.
        tv: weight of the variation.
        variation: mean_abs or sum_squares of neighbor differences on the normalized image.
        meta: how w is updated from w': reptile or adam.
        beta: its step size.
    """

    presets: ClassVar[Mapping[str, Preset]] = {
        "paper": Preset(
            "the paper, algorithm 2",
            assumed=f"the variation, N, lambda, tau and steps on z are those of the code; beta; {SEARCHES}",
            beta=0.1,
            **OPEN,
        ),
        "paper-literal": Preset(
            "as `paper`, but the variation as eq. 4 writes it, where a pair of neighbors comes twice: so tv is 2e-4",
            assumed=f"N, lambda, tau and steps on z are those of the code; beta; {SEARCHES}",
            beta=0.1,
            **LITERAL,
            **OPEN,
        ),
        "code": Preset(
            "the authors' code, whose rounds are `--rounds 4 --clients 200 --between 1 --between-lr 1e-4`, and whose "
            "generator at 32 px is `--architecture dcgan_gias`",
            assumed="the step between rounds is on 64 images of other clients (the code: on the private ones of four); "
            "the tasks of all rounds are mixed",
            lam=2e-3,
            meta="adam",
            beta=1e-2,
            **OPEN,
        ),
    }

    def __init__(
        self,
        G: Generator,
        *,
        seed: int = 0,
        N: int = 4,
        steps_z: int = 30,
        eta_z: float = 0.1,
        lam: float = 1e-3,
        tau: int = 40,
        alpha: float = 1e-3,
        tv: float = 1e-4,
        variation: Literal["mean_abs", "sum_squares"] = "mean_abs",
        meta: Literal["reptile", "adam"] = "reptile",
        beta: float = 0.5,
    ) -> None:
        at_least(1, N=N, steps_z=steps_z, tau=tau)
        above_zero(eta_z=eta_z, alpha=alpha, beta=beta)
        not_negative(lam=lam, tv=tv)
        self.G, self.seed, self.N = G.eval().requires_grad_(), seed, N
        self.steps_z, self.eta_z, self.lam, self.tau, self.alpha = steps_z, eta_z, lam, tau, alpha
        self.tv, self.variation = tv, VARIATION[variation]
        self.meta = META[meta](self.G.parameters(), lr=beta)
        self.t = 0

    def sample(self, tasks: int) -> list[int]:
        """Line 3: the N tasks of S for the next step; all are used once before any is used again, as in the code."""
        places = range(self.t * self.N, (self.t + 1) * self.N)
        passes = range(places[0] // tasks, places[-1] // tasks + 1)
        order = {p: torch.randperm(tasks, generator=self.draws("order", p)).tolist() for p in passes}
        return [order[place // tasks][place % tasks] for place in places]

    def step(self, tasks: Sequence[Observation]) -> float:
        """Lines 4 to 11 on N tasks of equal shape; returns the mean over them of the objective of line 9.

        Raises:
            InputError: a task without labels, or one whose update cannot be matched; w is unchanged then.
        """
        c = self.cost(tasks)
        G = deepcopy(self.G)  # w' <- w
        w, w_ = list(self.G.parameters()), list(G.parameters())
        z = torch.stack([G.draw(task.batch_size, self.draws("z", self.t, task.task))["z"] for task in tasks])
        z = z.to(w[0]).requires_grad_()

        def regularized() -> Tensor:
            return c(decode(G, {"z": z})) + self.lam * z.norm(dim=-1).sum()

        for _ in minimize(regularized, [z], self.eta_z, self.steps_z):
            pass
        z.requires_grad_(False)
        *_, cost = minimize(lambda: c(decode(G, {"z": z})), w_, self.alpha, self.tau)
        if not math.isfinite(cost):
            raise InputError(f"no cost of giml's step {self.t} is finite: an update in it cannot be matched.")
        for w_k, w_k_ in zip(w, w_, strict=True):
            w_k.grad = (w_k - w_k_).detach()  # SGD with learning rate beta makes it w - beta (w - w')
        self.meta.step()
        self.t += 1
        return cost / len(tasks)

    def cost(self, tasks: Sequence[Observation]) -> Callable[[Tensor], Tensor]:
        """Images (N, B, C, H, W) in [0, 1] -> sum_i c(x_i1, ..., x_iB; theta_i, g_i), with the variation; a scalar."""
        for task in tasks:
            task.require_labels("giml")
        labels = [task.knowledge.labels[None] for task in tasks if task.knowledge.labels is not None]
        objectives = [Objective([task], cosine, GradientPaths(task.victim)) for task in tasks]

        def c(x: Tensor) -> Tensor:
            total = x.new_zeros(())
            for task, objective, x_i, y_i in zip(tasks, objectives, x, labels, strict=True):
                normalized = task.victim.normalize(x_i)[None]
                total = total + (objective.cost(normalized, y_i) + self.tv * self.variation(normalized)).sum()
            return total

        return c

    def draws(self, *salt: object) -> torch.Generator:
        return torch.Generator().manual_seed(seed_of(self.seed, *salt))

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on, besides the options."""
        return {"G": self.G.state_dict(), "meta": checkpoint.moments(self.meta), "t": self.t}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.G.load_state_dict(state["G"])
        checkpoint.restore(self.meta, state["meta"])
        self.t = state["t"]
