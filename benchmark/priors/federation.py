"""Rounds of federated learning, as the server sees them."""

from collections.abc import Callable

from benchmark.config import Config
from benchmark.tasks.capture import capture_task
from victims.errors import InputError
from victims.observation import Observation
from victims.seeds import seed_of
from victims.victim import Victim


def simulate(
    config: Config, image_shape: tuple[int, int, int], clients: int, device: str
) -> Callable[[int], Observation]:
    """Every client shares one update in every round, each of a batch of its own of the data set's train split.

    No image is in two batches before all have been in one.

    Returns:
        update i of rounds x clients, as the server gets it, labels given. It is computed when it is asked for:
        those of all clients together can be larger than memory.

    Raises:
        InputError: an option cannot be used, or the data's images are not of `image_shape`.
    """
    data, client = config.make_data("train"), config.make_client()
    if (shape := data.image_shape) != image_shape:
        raise InputError(
            f"the generator makes {image_shape} images, {config.data} has {shape}; choose another data set."
        )
    models = config.make_models(data, seed_of(config.seed, "rounds"))  # no victim that `run` attacks
    batches = config.make_batches(data, config.rounds * clients)
    victims = [Victim(model, mean=data.mean, std=data.std).to(device) for model in models]
    return lambda i: capture_task(victims[i // clients], data, batches[i], client).observation
