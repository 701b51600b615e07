"""Whether a defense changes anything: tried on a batch, before anything is written."""

from collections import Counter
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial

import torch
from torch import Tensor

from benchmark.tasks.capture import Client, check_victims_loss, client_update
from defenses.base import Chain, Defense, applied, parts
from victims.client import LocalTraining
from victims.errors import InputError
from victims.rounds import each_round
from victims.victim import Gradient, Victim, norm

ROUNDING = 10  # times float32's precision: as much differs if the same is summed up in another order


def check_effect(
    client: Client,
    names: Sequence[str],
    victim: Victim,
    without: Callable[[int], Victim],
    images: Tensor,
    labels: Tensor,
) -> None:
    """Refuse a defense, or a part of one, that leaves the update of a batch, the model and the choice of images alone.

    A defense at 0 on its axis says by itself that it changes nothing, and is not refused. Where the model can, all is
    computed in float64 and without mixed precision, so that what differs is no rounding of weights or activations.

    Args:
        names: of the defense's parts; it is one itself if it is no chain.
        victim: with the defense's model.
        without: makes the victim without the part of this number.
        images: (B, C, H, W) in [0, 1].
        labels: (B,) classes, or (B, K) probabilities.

    Raises:
        InputError: says which part, and what was seen.
    """
    if client.defense is None:
        return
    numbered = sorted(enumerate(parts(client.defense)), key=lambda pair: later(pair[1]))  # in the client's order
    chain = [part for _, part in numbered]
    own = deepcopy(victim)  # a model may keep the images that it is given
    check_victims_loss(own, images, labels)
    try:
        updates = sent(deepcopy(victim).to(own.mean.device, torch.float64), chain, client.local, images, labels)
    except InputError:
        raise
    except Exception:  # of a layer or defense with a type of its own, of a device without float64
        updates = sent(own, chain, client.local, images, labels)
    if not 0 < norm(updates[0]) < torch.inf:
        return  # such an update can stay the same under any defense
    for (number, part), before, update in zip(numbered, updates, updates[1:], strict=False):
        if differ(before, update) or forms(part, names[number], labels) or (part.axis and not any(part.axis.values())):
            continue
        if type(part).model is not Defense.model and not same_logits(own, without(number), images):
            continue
        step = len(labels[client.local.schedule(len(labels))[0][0]] if client.local else labels)
        fix = "choose stronger parameters"
        if step < part.least_images:
            fix = f"it needs {part.least_images} images or more in a step, not {step}: give larger (mini-)batches"
        raise InputError(
            f"the defense {names[number]} changes nothing: the update of the first {len(images)} images, of norm "
            f"{norm(before):.3g}, is the same without it; {fix}, or leave it out."
        )


def sent(
    victim: Victim, chain: Sequence[Defense], local: LocalTraining | None, images: Tensor, labels: Tensor
) -> list[Gradient]:
    """What a client sends without a defense, with the first of a chain, with the first two, ..."""
    draws, each_its_own = torch.Generator(), local is not None and local.clients > 1
    updates: list[Gradient] = []
    for count in range(len(chain) + 1):
        if count and later(chain[count - 1]) and not each_its_own:
            before = {name: g.clone() for name, g in updates[-1].items()}  # which a defense may change in place
            last = partial(applied, chain[count - 1], generator=draws)
            updates.append(each_round(victim, before, last))
            continue
        draws.manual_seed(0)
        defense = Chain(chain[:count])
        updates.append(client_update(victim, images, labels, generator=draws, defense=defense, local=local))
    return updates


def later(part: Defense) -> bool:
    """Whether a client comes to a defense after its gradients are computed."""
    return type(part).gradient_fn is Defense.gradient_fn


def differ(one: Gradient, other: Gradient) -> bool:
    """Whether some tensor differs by more than rounding; one that is not finite does."""
    if one.keys() != other.keys():
        return True
    bounds = {
        name: ROUNDING * max(torch.finfo(g.dtype).eps, torch.finfo(torch.float32).eps) * g.norm()
        for name, g in one.items()
    }
    return any(not (other[name] - g).norm() <= bounds[name] for name, g in one.items())


def forms(part: Defense, name: str, labels: Tensor) -> bool:
    """Whether a defense decides which images are in a batch of more than one.

    Raises:
        InputError: it does, but not in this batch.
    """
    classes = labels if labels.ndim == 1 else labels.argmax(1)
    counts, found = part.class_counts(len(labels)), sorted(Counter(classes.tolist()).values(), reverse=True)
    if counts and counts != found:
        raise InputError(
            f"the defense {name} forms batches with {listed(counts)} images of a class, and this batch has "
            f"{listed(found)}; give such images, or leave it out."
        )
    return len(counts) > 0 and len(labels) > 1


def listed(counts: list[int]) -> str:
    return ", ".join(map(str, counts))


@torch.no_grad()
def same_logits(one: Victim, other: Victim, images: Tensor) -> bool:
    """Whether two victims give the same logits for images (B, C, H, W) in [0, 1]."""
    x = one.normalize(images.to(one.mean))
    return torch.equal(*(victim.to(x.device).logits(victim.parameters, x) for victim in (one, other)))
