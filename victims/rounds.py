"""Several rounds of federated learning in which a client shares updates of the same images.

The models of all rounds form one victim, and its update holds the updates of all rounds. So every attack that matches
updates matches all of them, as in GIAS, appendix D: min over x of sum_t c_t(x; theta_t, g_t).
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim import SGD
from tqdm import tqdm

from victims.data.base import ImageData
from victims.losses.base import Loss
from victims.losses.cross_entropy import CrossEntropy
from victims.modules import modes_kept
from victims.preprocessing import Preprocessing
from victims.victim import Gradient, Victim, client_loss, penalties

BATCH = 64
LR = 0.01  # of the steps between rounds


class Rounds(nn.Module):
    """Images (B, C, H, W) -> the logits of T rounds' models, (B, T, K)."""

    def __init__(self, models: list[nn.Module]) -> None:
        super().__init__()
        self.rounds = nn.ModuleList(models)

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack([model(images) for model in self.rounds], 1)


def by_round(victim: Victim, update: Gradient) -> list[Gradient]:
    """The update of every round, under the parameter names of its model; a list of one if there is one round."""
    if not isinstance(victim.model, Rounds):
        return [update]
    parts: list[Gradient] = [{} for _ in victim.model.rounds]
    for name, tensor in update.items():
        _, t, own = name.split(".", 2)
        parts[int(t)][own] = tensor
    return parts


def each_round(victim: Victim, update: Gradient, act: Callable[[Gradient], Gradient]) -> Gradient:
    """What `act` makes of the update of every round, which a client sends one after another; under the same names."""
    tensors: list[Tensor] = []
    for part in by_round(victim, update):
        made = act(part)
        tensors += [made[name] for name in part]
    return dict(zip(update, tensors, strict=True))  # round after round, which is the order of the parameters


def models_of_rounds(
    first: nn.Module,
    make: Callable[..., nn.Module],
    data: ImageData,
    preprocessing: Preprocessing,
    *,
    rounds: int,
    between: int,
    seed: int,
    loss: Loss | None = None,
    lr: float = LR,
) -> list[nn.Module]:
    """The global model at every round.

    Args:
        first: the model of the first round.
        make: builds a model from `seed=`.
        data: what the other clients train on.
        between: steps of SGD from one round to the next; with 0 every round has new weights.
        loss: of all clients; by default cross-entropy.
        lr: of the steps between rounds.
    """
    models = [first]
    draws = torch.Generator().manual_seed(seed)
    while len(models) < rounds:
        model = make(seed=seed + len(models))
        if between:
            model.load_state_dict(models[-1].state_dict())
            train(model, loss or CrossEntropy(), data, preprocessing, between, draws, lr)
        models.append(model)
    return models


def train(
    model: nn.Module,
    loss: Loss,
    data: ImageData,
    preprocessing: Preprocessing,
    steps: int,
    draws: torch.Generator,
    lr: float = LR,
    bar: str = "",
) -> None:
    """SGD with momentum 0.9 and a constant learning rate, on batches of 64 images, half of them mirrored.

    So a model after some steps is one on the way to more of them.

    Args:
        bar: what a bar of the progress is called; empty for none.
    """
    device = next(model.parameters()).device
    with modes_kept(model):
        sgd = SGD(model.train().parameters(), lr=lr, momentum=0.9)
        for _ in tqdm(range(steps), desc=bar, disable=not bar, mininterval=1):
            images, labels = data.augmented(BATCH, draws)
            sgd.zero_grad()
            tensors = dict([*model.named_parameters(), *model.named_buffers()])
            inputs = preprocessing.normalize(images).to(device)
            client_loss(model, loss, penalties(model), tensors, inputs, labels.to(device)).backward()
            sgd.step()
