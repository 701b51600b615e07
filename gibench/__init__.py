"""Gradient inversion in Python, without files, Trainer or command line.

    observation = gibench.capture(model, images, labels, defense="noise:0.001")
    reconstruction = gibench.attack("ig", observation, steps=500)
    scores = gibench.score(reconstruction, images)

This package only re-exports. A name is loaded when it is first used, so that `import gibench` takes no time.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attacks.base import Attack
    from attacks.engine.stage import Reconstruction
    from benchmark.api import attack, capture, score
    from benchmark.scoring.metrics import metric
    from defenses.base import Defense
    from priors.base import Denoiser, Generator, Prior
    from priors.inverters import Inverter
    from victims.errors import InputError
    from victims.observation import Observation

_HOMES = {
    "Attack": "attacks.base",
    "Defense": "defenses.base",
    "Denoiser": "priors.base",
    "Generator": "priors.base",
    "InputError": "victims.errors",
    "Inverter": "priors.inverters",
    "Observation": "victims.observation",
    "Prior": "priors.base",
    "Reconstruction": "attacks.engine.stage",
    "attack": "benchmark.api",
    "capture": "benchmark.api",
    "metric": "benchmark.scoring.metrics",
    "score": "benchmark.api",
}

__all__ = [
    "Attack",
    "Defense",
    "Denoiser",
    "Generator",
    "InputError",
    "Inverter",
    "Observation",
    "Prior",
    "Reconstruction",
    "attack",
    "capture",
    "metric",
    "score",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("gibench")
    if name not in _HOMES:
        raise AttributeError(f"module 'gibench' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
