"""Learning-rate factors as functions of (step, steps)."""

import math


def multistep(step: int, steps: int) -> float:
    """A factor 0.1 at 3/8, 5/8 and 7/8 of the phase, milestones rounded down: within 15 steps of 24 000 as in
    Inverting Gradients' code, which divides by 2.667, 1.6 and 1.142."""
    return 0.1 ** sum(step >= steps * eighths // 8 for eighths in (3, 5, 7))


def constant(step: int, steps: int) -> float:
    return 1.0


def warmup_cosine(step: int, steps: int, warmup: int = 50) -> float:
    """Linear over the first 50 steps, then half a cosine down to 0 (Yin et al., 2021)."""
    if step < warmup:
        return (step + 1) / warmup
    return (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup))) / 2


def ramps(step: int, steps: int, up: float = 0.05, down: float = 0.75) -> float:
    """Linear over the share `up` of the phase, and half a cosine down to 0 over the share `down` (GIFD, GGL)."""
    t = (step + 1) / (steps + 1)  # inside (0, 1), so that no step is lost
    return min(1.0, t / up) * (1 - math.cos(math.pi * min(1.0, (1 - t) / down))) / 2
