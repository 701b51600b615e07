"""Rounds of federated learning, as the server sees them."""

from collections.abc import Callable
from dataclasses import replace

from benchmark.setting import Setting
from benchmark.tasks.capture import capture_task
from victims.errors import InputError
from victims.observation import Observation
from victims.rounds import LR
from victims.seeds import seed_of
from victims.victim import Victim


def simulate(
    config: Setting, image_shape: tuple[int, int, int], clients: int, device: str, between_lr: float = LR
) -> Callable[[int], Observation]:
    """Every client shares one update in every round, computed from its own batch of the data set's train split.

    No image is used again before all images have been used.

    Args:
        between_lr: learning rate of the other clients' steps from one round to the next.

    Returns:
        a function of i < rounds x clients: update i as the server gets it, with labels. It is computed by the call,
        as the updates of all clients together can be larger than memory.

    Raises:
        InputError: an option cannot be used, or the images of the data set are not of `image_shape`.
    """
    data, client = config.make_data("train"), config.make_client()
    if (shape := data.image_shape) != image_shape:
        raise InputError(
            f"the generator makes {image_shape} images, {config.data} has {shape}; choose another data set."
        )
    # None is a victim that `run` attacks.
    models, preprocessing = config.make_models(data, seed_of(config.seed, "rounds"), between_lr)
    batches = config.make_batches(data, config.rounds * clients)
    one = replace(config, rounds=1, between=0)
    one.check_defense(one.make_victim(data), data, batches[0])
    victims = [Victim(m, mean=data.mean, std=data.std, preprocessing=preprocessing).to(device) for m in models]
    return lambda i: capture_task(victims[i // clients], data, batches[i], client).observation
