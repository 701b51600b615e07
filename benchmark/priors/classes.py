"""Whether a conditional generator and a data set mean the same by a label."""

import warnings

from benchmark.names import known
from benchmark.registry import find
from priors.base import Generator, Prior
from victims.errors import Notice


def tell_other_classes(prior: Prior, data: str) -> None:
    """A Notice where a conditional generator has learned classes of other names than those of the data set.

    To it a label means another class then. Names are known of the suite's data sets that have them without files.
    """
    if not (isinstance(prior, Generator) and prior.classes):
        return
    learned = prior.trained_on.partition(" ")[0].strip(",").lower()
    theirs, ours = (classes_of(name) for name in (learned, data.partition(":")[0]))
    if theirs and ours and theirs != ours:
        text = (
            f"the prior was trained on the classes of {learned}, and those of {data} are others: class 0 is "
            f"{theirs[0]} to the prior and {ours[0]} here; choose another --prior or --data."
        )
        warnings.warn(text, Notice, stacklevel=3)


def classes_of(name: str) -> tuple[str, ...]:
    """The names of the classes of a data set of this suite; none where there is no such data set, or its files say."""
    return tuple(getattr(find("data", name), "classes", ())) if name in known("data") else ()
