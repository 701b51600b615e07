"""SPEAR: Dimitrov, Baader, Müller, Vechev, *SPEAR: Exact Gradient Inversion of Batches in Federated Learning*, 2024."""

import warnings
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Unpack

import torch
from torch import Tensor

from attacks.base import Attack, Common
from attacks.closed_form.first_linear import FirstLinear, first_linear, in_double, labels_of
from attacks.closed_form.sparse_factors import LowRank, bases, low_rank
from attacks.engine.half_precision import half_type
from attacks.engine.preset import Preset
from attacks.engine.stage import Reconstruction, Search, Stage
from victims.errors import InputError, Notice
from victims.modules import tensor_name
from victims.observation import Observation
from victims.ranges import at_least
from victims.victim import Victim, gradient

UNCERTAIN = 64  # times fewer draws where no certificate can end them
ENOUGH = 10  # neurons more than images: a wrong certificate has a chance of about 2^-10, and far less in wide layers
AGREEING = 0.99  # of the neurons; a gradient can be zero to rounding by chance


@dataclass(frozen=True)
class Factors:
    """What was recovered of r images: dL/dz (r, m), the layer's inputs x (r, n), and whether all agree on zeros."""

    dz: Tensor
    x: Tensor
    agree: bool


class SPEAR(Attack):
    """A whole batch exactly, from the first layer z = W x + c of a ReLU network, if it is linear and b < m.

    1. dL/dW = dL/dZ X has rank b: L R by a singular value decomposition, and dL/dZ = L Q diag(d) for some Q (b, b).
    2. ReLU makes about half of each column of dL/dZ zero. b - 1 rows of L are drawn; where all are zero in a column,
       the vector that is orthogonal to them is a column of Q, and L q has far more zeros than these.
    3. The b sparsest linearly independent ones make Q; dL/dc = L Q d gives the scales and signs d.
    4. X = (Q diag(d))^-1 R.

    The *certificate* needs no truth, and is of the whole batch, because each image depends on all columns of Q:

    - at an image every neuron must be silent, z <= 0, exactly where its gradient is zero; at least 99 % agree at every
      image, where at a wrong one about half do; and
    - the gradient at the batch that was found, with its labels, is the update that was seen, in all tensors, but for
      one common factor and rounding.

    So it says that the images are those from which the update was computed: those that the client mixed, where mixup
    mixes within a class. A defense that changes the update loses it, even where images are close, and so do labels that
    are probabilities, for only classes are recovered.

    The draws that are needed grow as 2^b. Images that are zero or multiples of each other, as the layer sees them,
    leave fewer than b directions in the update; the mean color stands for the rest, others may be wrong, and nothing is
    certified. With two classes or one logit nothing is found: all columns of dL/dZ are parts of one vector, and their
    combinations are as sparse.

    One victim gradient judges the images of each start, and is counted. Not counted are the certificate's, one for each
    start whose zeros agree, and what finds labels: for every class a forward pass of the batch, and a backward pass to
    the first layer.

    Args:
        draws: of rows, at most; a 64th of them where a certificate, which ends the search, is impossible.
    """

    name = "spear"
    labels = "inferred"
    analytic = True
    made_for = {"victim": "fcn", "defense": "none"}
    presets = {
        "paper": Preset(
            "the paper's algorithm",
            assumed="how many rows are drawn; tolerances follow from the noise that the singular values show; labels "
            "are those whose gradient at the images is nearest",
            restarts=1,
        ),
    }

    def __init__(self, *, draws: int = 2**20, **common: Unpack[Common]) -> None:
        common.setdefault("restarts", 1)
        super().__init__({"x": 1}, **common)
        at_least(1, draws=draws)
        self.draws = draws

    def check(self, observation: Observation) -> None:
        """Refuse a victim that does not begin with a linear layer, wider than the batch, and ReLU.

        Raises:
            InputError: names the first layer, and what is wrong.
        """
        super().check(observation)
        layer = first_linear(observation.victim, observation.image_shape, self.name)
        if not relu_follows(observation.victim, layer, observation.image_shape):
            raise InputError(
                f"spear reads images from the zeros that ReLU leaves in gradients, and no ReLU follows {layer.name}; "
                "choose another victim, such as --victim fcn:400."
            )
        if observation.batch_size >= min(layer.W.shape):
            m, n = layer.W.shape
            raise InputError(
                f"spear takes batches smaller than the first layer, {layer.name} ({n} -> {m}), not of "
                f"{observation.batch_size} images; lower --batch, or choose a wider victim, such as --victim fcn:400."
            )
        if observation.num_classes <= 2:
            warnings.warn(
                "spear finds nothing in batches of two classes, whose gradients mix without losing zeros; this says "
                "nothing about the leak.",
                Notice,
                stacklevel=2,
            )

    def search(self) -> Search:
        layer = first_linear(self.victim, self.observations[0].image_shape, self.name)
        self.certified = torch.zeros(self.instances, self.batch_size, dtype=torch.bool)
        images, labels = [], []
        for number, (observation, seed) in enumerate(zip(self.of_instances, self.seeds("rows"), strict=True)):
            found = self.factors(layer, observation, torch.Generator().manual_seed(seed))
            missing = self.batch_size - len(found.x)
            x = torch.cat([layer.images(found.x, observation), self.mean_color(missing)])
            self.box(x)
            images.append(x)
            dz = torch.cat([found.dz, found.dz.new_zeros(missing, len(layer.c))])
            labels.append(labels_of(layer, observation, x, dz))
            self.certified[number] = found.agree and explained(observation, x, labels[-1])
        yield Stage(
            name="x",
            variables={"x": torch.stack(images)},
            fixed={"y": torch.stack(labels)},
            labels=itemgetter("y"),
            lr=0.0,
        )

    def result(self) -> Reconstruction:
        return replace(super().result(), certified=self.certified[self.session.winners().cpu()])

    def mean_color(self, count: int) -> Tensor:
        return self.victim.mean.new_zeros(count, *self.observations[0].image_shape)

    def factors(self, layer: FirstLinear, observation: Observation, generator: torch.Generator) -> Factors:
        """dL/dZ and X of as many images as the update has directions."""
        dW, dc = layer.gradients(observation)
        nothing = Factors(dW.new_zeros(0, len(dW)), dW[:0], agree=False)
        if not dW.any() or not (dW.isfinite().all() and dc.isfinite().all()):
            return nothing
        low = low_rank(dW, observation.batch_size, *rounding(observation)[tensor_name(layer.name, "weight")])
        if low.hopeless:
            return nothing
        for Q in bases(low, self.draws if low.exact else -(-self.draws // UNCERTAIN), generator):
            found = solved(layer, low, Q, dc)
            if found.agree:
                break
        return found


def solved(layer: FirstLinear, low: LowRank, Q: Tensor, dc: Tensor) -> Factors:
    """Steps 3 and 4, and whether zeros of gradients are those of ReLU."""
    d = torch.linalg.solve(Q, low.L.T @ dc)
    dz = (low.L @ Q * d).T
    x = torch.linalg.solve(Q, low.R) / d[:, None]
    silent = dz.abs() <= low.zero(Q.T) * d.abs()[:, None]
    agreeing = (silent == (x @ layer.W.T + layer.c <= 0)).double().mean(1)
    right = (agreeing >= AGREEING) & ~silent.all(1) & x.isfinite().all(1)
    known = bool(right.all()) and low.exact and len(low.L) - len(Q) >= ENOUGH
    return Factors(dz, x.nan_to_num(0.0, 0.0, 0.0), known)


def rounding(observation: Observation) -> dict[str, tuple[float, float]]:
    """By tensor: the relative rounding of its gradient, and what its entries have of the rounding of weights, of which
    it is a difference after local training."""
    local, half = observation.knowledge.local, half_type(observation)
    types = {name: half or sent.dtype for name, sent in observation.update.items()}
    eps = {name: torch.finfo(dtype).eps for name, dtype in types.items()}
    if local is None:
        return {name: (relative, 0.0) for name, relative in eps.items()}
    moved = (local.lr or 1.0) * local.steps(observation.batch_size)
    largest = {name: float(p.abs().max()) for name, p in observation.victim.parameters.items()}
    return {name: (relative, relative * largest[name] / moved) for name, relative in eps.items()}


def explained(observation: Observation, images: Tensor, labels: Tensor) -> bool:
    """Whether every tensor of the update is the gradient at these images, but for one common factor and rounding."""
    sent = {name: in_double(g) for name, g in observation.gradient().items()}
    ours = {name: in_double(g) for name, g in gradient(observation.victim, images, labels).items()}
    factor = sum((sent[name] * ours[name]).sum() for name in sent) / sum(ours[name].square().sum() for name in sent)
    for name, (eps, entry) in rounding(observation).items():
        g = sent[name]
        if not (g - factor * ours[name]).norm() <= eps**0.5 * g.norm() + entry * g.numel() ** 0.5:
            return False
    return True


@torch.no_grad()
def relu_follows(victim: Victim, layer: FirstLinear, image_shape: tuple[int, int, int]) -> bool:
    """Whether logits stay the same where the layer's outputs below zero become zero, whatever computes that."""
    images = torch.randn(8, *image_shape, generator=torch.Generator().manual_seed(0)).to(victim.mean)
    before = victim.logits(victim.parameters, images)
    hook = victim.model.get_submodule(layer.name).register_forward_hook(lambda *call: call[-1].clamp(min=0))
    try:
        return torch.equal(victim.logits(victim.parameters, images), before)
    finally:
        hook.remove()
