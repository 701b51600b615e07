from dataclasses import replace

import pytest

from leaderboard.options import abouts, defaults
from leaderboard.rows import PROTOCOL, Row

SETTINGS = {
    "attack": "ig",
    "preset": "paper",
    "control": "none",
    "prior": "none",
    "prior_trained_on": "",
    "victim": "convnet",
    "victim_weights": "random",
    "victim_mode": "eval",
    "data": "photos",
    "split": "test",
    "size": 32,
    "batch_size": 2,
    "labels": "given",
    "label_method": "",
    "bn": "none",
    "defense": "none",
    "adapt": False,
    "restarts": 1,
    "steps": 100,
    "seed": 0,
    "options": {"tv": 0.1},
    "precision": "fp32",
}
UNSAID = {about.rows[0]: defaults()[name] for name, about in abouts().items() if about.rows}
UNSAID |= {key: "" for about in abouts().values() for key in about.rows[1:]}
PLAIN = Row(
    protocol=PROTOCOL,
    settings=UNSAID | SETTINGS,
    task="t0",
    image="a",
    label=1,
    gradient_evaluations=100,
    status="ok",
    cost=0.5,
    scores={"psnr": 20.0, "ssim": 0.5, "fsim": 0.75, "lpips": 0.25, "mse": 0.01, "iip": 1.0},
    higher_is_better={"psnr": True, "ssim": True, "fsim": True, "lpips": False, "mse": False, "iip": True},
    ranges={"psnr": [0, 100], "ssim": [-1, 1], "fsim": [0, 1], "lpips": [0, None], "mse": [0, 1], "iip": [0, 1]},
    lpips_backbone="squeeze",
    seconds=2.0,
    memory=512,
    device="cpu",
    code="abc",
)


@pytest.fixture
def scored():
    """A function that makes one `Row`; a test passes the keywords that it is about."""

    def make(task="t0", image="a", psnr=20.0, **changes):
        return replace(PLAIN, task=task, image=image, scores={**PLAIN.scores, "psnr": psnr}, **changes)

    return make


@pytest.fixture
def row():
    """A function that makes one row as it is read from a file; a test passes the keywords that it is about."""
    return lambda **changes: PLAIN.flat() | changes
