"""The setting of an entry and the knowledge of its attacker, in words."""

from collections.abc import Iterable, Mapping
from typing import Any

from leaderboard.board import FOLLOWING, MEAN_IMAGE, SETTING, Entry, age, telling
from leaderboard.rows import OPTIONAL

Setting = tuple[tuple[str, Any], ...]
"""Names and values of the fields that the entries of one setting share."""

ALWAYS_NAMED = ("data", "size", "victim", "batch_size", "defense")


def setting_of(entry: Entry) -> Setting:
    return tuple((key, entry[key]) for key in (*SETTING, "protocol"))


def stands_in(entry: Entry, setting: Setting) -> bool:
    """Whether an entry belongs to a setting. A mean image belongs to every setting with the same images."""
    keys = MEAN_IMAGE if entry.control == "mean_image" else (*SETTING, "protocol")
    return all(entry[key] == value for key, value in setting if key in keys)


def varying_in(settings: Iterable[Mapping[str, Any]], keys: Iterable[str]) -> list[str]:
    """The keys in which settings differ; those that follow from others only where nothing else tells settings apart."""
    alike = list(settings)
    hidden = {*FOLLOWING} - telling(alike)
    return [key for key in keys if key not in hidden and len({setting[key] for setting in alike}) > 1]


def label(setting: Mapping[str, Any], varying: Iterable[str]) -> str:
    """A setting in words: the fields that are always named, and the `varying` ones that it has."""
    named = {"batch_size": "batch {}", "size": "{} px", "defense": "defense {}"}
    texts = [named.get(key, "{}").format(setting[key]) for key in ALWAYS_NAMED if key in setting]
    if setting.get("defense", "none") != "none" and "adapt" in varying:
        texts.append("adaptive attacker" if setting["adapt"] else "non-adaptive attacker")
    others = [
        key for key in varying if setting.get(key) is not None and key not in (*ALWAYS_NAMED, "adapt", "protocol")
    ]
    if setting["lr"] is None:  # FedSGD has no local training
        others = [key for key in others if key not in ("epochs", "clients", "local_optimizer")]
    stale = [f"{old} protocol"] if (old := age(setting["protocol"])) else []
    return ", ".join([*texts, *(f"{key.replace('_', ' ')} {setting[key]}" for key in others), *stale])


def plainly(entry: Entry) -> str:
    """The setting of one entry in words, without its defense: what is always named, and what is not the default."""
    setting = {key: value for key, value in entry.fields.items() if key not in ("defense", "adapt")}
    others = [key for key in SETTING if key not in FOLLOWING and setting.get(key) != OPTIONAL.get(key)]
    return label(setting, others)


def knowledge(entry: Entry) -> list[str]:
    """What the attacker has beside the update, in words; empty where nothing was attacked."""
    if entry["labels"] is None:
        return []
    how = f" by {entry['label_method']}" if entry["label_method"] else ""
    words = [f"labels {entry['labels']}{how}"]
    if entry["prior"] not in (None, "none"):
        words.append(f"prior {entry['prior']} (trained on {entry['prior_trained_on'] or 'nothing'})")
    if entry["refine"] not in (None, "none"):
        words.append(f"refined by {entry['refine']} (trained on {entry['refine_trained_on'] or 'nothing'})")
    if entry["bn"] != "none":
        words.append(f"batch-norm statistics: {entry['bn']}")
    if entry["defense"] != "none":
        by = f" (surrogate: {entry['surrogate']})" if entry["surrogate"] else ""
        words.append(f"knows the defense{by}" if entry["adapt"] else "does not know the defense")
    if entry["lr"] is not None:
        words.append(f"{'knows' if entry['know_lr'] else 'does not know'} the learning rate")
    return words
