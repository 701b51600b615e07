"""Learning-rate factors as functions of (step, steps)."""


def multistep(step: int, steps: int) -> float:
    """A factor 0.1 at 3/8, 5/8 and 7/8 of the phase, milestones rounded down (Inverting Gradients' code)."""
    return 0.1 ** sum(step >= steps * eighths // 8 for eighths in (3, 5, 7))


def constant(step: int, steps: int) -> float:
    return 1.0
