"""What an audit is about: a model, images and the defenses of the client, checked before any attack begins."""

import json
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmark.audit.assumed import assumed_under
from benchmark.audit.check import attacked, check, check_finite
from benchmark.code_version import code_version
from benchmark.config import Config
from benchmark.contents import contents
from benchmark.registry import find
from benchmark.sources import loaded, sources
from benchmark.state import of_tensors
from benchmark.tasks.controls import strangers
from victims.data.base import ImageData, digest
from victims.errors import InputError, Notice
from victims.names import is_dotted_path
from victims.victim import Victim


@contextmanager
def in_its_own_words() -> Iterator[None]:
    """What other commands call --victim is the --model of an audit."""
    try:
        yield
    except InputError as error:
        raise InputError(re.sub(r"--victim(?![-\w])", "--model", str(error))) from None


@dataclass(frozen=True)
class Subject:
    """A model, images and defenses that can be audited.

    Attributes:
        config: of a run on them under the first defense.
        data: the images.
        client: the model without a defense, in eval mode.
        defenses: of the client.
        right: how many of the images are classified right, in words.
        warning: what makes the whole audit doubtful; empty for nothing.
    """

    config: Config
    data: ImageData
    client: Victim
    defenses: Sequence[str]
    right: str
    warning: str

    @classmethod
    @in_its_own_words()
    def checked(cls, config: Config, defenses: Sequence[str], images: Path, tasks: int) -> "Subject":
        """With a notice where the model seems to be another one than its user believes.

        Args:
            images: where the user has them.
            tasks: the most batches that are attacked.

        Raises:
            InputError: there are too few images, or too few that are no copies; an update is not finite, or a defense
                does not fit the model.
        """
        data, plain = config.make_data(), replace(config, defense="none")
        if len(data) < 2 * config.batch:
            needed = f"the controls need {2 * config.batch} images, twice a batch"
            raise InputError(f"{needed}; in {images} are {len(data)}.")
        for batch in plain.make_batches(data, min(tasks, len(data) // config.batch)):
            strangers(data, batch)  # refuses a folder of copies before any attack
        check_finite(plain, data)
        client = replace(plain, victim_mode="eval").make_victim(data)
        right, warning = check(client, data, is_dotted_path(config.victim) or config.weights_file() is not None)
        if warning:
            warnings.warn(warning, Notice, stacklevel=1)
        for defense in defenses:
            defended = replace(config, defense=defense)
            defended.check_defense(defended.make_victim(data), data, defended.make_batches(data, 1)[0])
        return cls(replace(config, defense=defenses[0]), data, client, defenses, right, warning)

    def identity(self, attacks: Sequence[str], *more: object) -> str:
        """A digest of everything that a plan depends on: options, images, weights, and the code of all of them.

        Args:
            attacks: their names.
            more: options of the audit.
        """
        plain, method = replace(self.config, defense="none"), self.config.make_attack()
        parts: list[object] = [plain.identity(), self.defenses, attacks, more]
        parts += [contents(replace(plain, defense=d), self.data, self.client, method, []) for d in self.defenses]
        parts += [of_tensors(self.client.model.state_dict()), code_version()]
        parts += [sources(loaded(), name, find("attack", name)) for name in attacks if is_dotted_path(name)]
        return digest(json.dumps(parts, sort_keys=True, default=str))

    def described(
        self, model: str, under: Sequence[Config], ids: Sequence[str], rows: Sequence[Mapping[str, Any]]
    ) -> dict[str, str]:
        """What was assumed of client, model and attacker, in words.

        Args:
            model: as the user named it.
            under: of the runs, by defense, which labels may be read by other methods.
            ids: of the images that were attacked.
            rows: of all attacks on them.
        """
        priors = {(row["prior"], row["prior_trained_on"]) for row in rows if row["prior"] != "none"}
        return {
            "model": f"{model}, weights {self.config.weights_label()}, {len(self.data.classes)} classes",
            "classified right": f"{self.right} images of the folder; {attacked(self.client, self.data, ids)} of those "
            "attacked",
            **assumed_under(under, self.client.preprocessing),
            "shared": f"{rows[0]['shared_parameters']} of {rows[0]['total_parameters']} parameters",
            "attacked": f"{len(ids)} of {len(self.data)} images",
            "generator": "; ".join(sorted(f"{name}, trained on {what}" for name, what in priors)) or "none",
        }
