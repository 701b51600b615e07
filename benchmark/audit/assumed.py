"""What an audit assumed of client and attacker, in words: a line for every option of the setting and the knowledge."""

from collections.abc import Callable, Mapping, Sequence

from leaderboard.options import Options, abouts
from leaderboard.sentences import count
from victims.choices import Amp, Level, Match, Mode, Resize
from victims.preprocessing import Preprocessing, text

Words = Callable[[Options], str]

RESIZED: dict[Resize, str] = {
    "shorter": "the shorter side of a picture is resampled to it, the center cut out",
    "gias": "the shorter side of a picture is resampled to 9/8 of it, the center cut out",
    "gifd": "the shorter side of a picture is resampled to it (bilinear), the center cut out",
    "ggl": "the shorter side of a picture is resampled to 8/7 of it, the center cut out",
}
SHADES = {None: "", 1: " in shades of gray", 3: " in color"}
MODES: dict[Mode, str] = {
    "eval": "eval: batch norm uses its running statistics, and there is no dropout",
    "train": "train: batch norm normalizes by the batch",
    "as_is": "every layer in the mode in which the model has it",
}
AMPS: dict[Amp, str] = {
    "none": "none",
    "bf16": "the client's forward pass is in bf16; the attacker computes in full precision",
    "fp16": "the client's forward pass is in fp16, its loss scaled; the attacker computes in full precision",
}
LEVELS: dict[Level, str] = {
    "none": "unknown to the attacker",
    "running": "the attacker has the model's running ones",
    "recovered": "the attacker recovers those of the batch from the running ones that the client shares",
    "exact": "the attacker has those of the batch, which favors it",
}

MATCHES: dict[Match, str] = {
    "aga": "matches it as one gradient",
    "fa": "repeats it",
    "sme": "matches it as one gradient at searched weights between those before and after",
}


def local_training(options: Options) -> str:
    if options.lr is None:
        return "none; the client shares the gradient of one batch (FedSGD)"
    batches = f"mini-batches of {options.mini_batch}" if options.mini_batch else "one batch"
    clients = f", the mean of {options.clients} clients" if options.clients > 1 else ""
    known = "knows" if options.know_lr else "does not know"
    how = MATCHES[options.match]
    return (
        f"{count(options.epochs, 'epoch')} in {batches} by {options.local_optimizer} at learning rate "
        f"{options.lr:g}{clients} (FedAvg); the attacker {known} the learning rate and {how}"
    )


def labels_known(options: Options) -> str:
    if options.labels == "given":
        return "known to the attacker, but not whose they are"
    by = "by no method that works here" if options.labels == "none" else f"by {options.labels}"
    return f"not known to the attacker, who reads them from the update {by}"


SAID: Mapping[str, tuple[str, Words]] = {
    "size": ("images", lambda o: f"{o.size} x {o.size} pixels{SHADES[o.channels]}; {RESIZED[o.resize]}"),
    "loss": ("loss", lambda o: f"{o.loss}; the attacker knows it"),
    "amp": ("mixed precision", lambda o: AMPS[o.amp]),
    "victim_mode": ("mode of the model", lambda o: MODES[o.victim_mode]),
    "lr": ("local training", local_training),
    "batch": ("images in an update", lambda o: str(o.batch)),
    "precision": ("numbers", lambda o: f"{o.precision}; closed forms in float64"),
    "prior": ("prior", lambda o: "the shipped one of each method" if o.prior == "default" else o.prior),
    "labels": ("labels of the batch", labels_known),
    "bn": ("batch-norm statistics", lambda o: LEVELS[o.bn]),
    "adapt": ("defense", lambda o: "where one is used the attacker knows which, but not its parameters"),
}
"""Name and words of an option; one that is missing here is said by its own name and value."""

SAID_THERE = {
    **dict.fromkeys(("epochs", "mini_batch", "clients", "local_optimizer", "know_lr", "match"), "lr"),
    **dict.fromkeys(("mean", "std"), "preprocessing"),
    **dict.fromkeys(("victim", "victim_weights"), "model"),
    **dict.fromkeys(("data", "split", "batches"), "images"),
    **dict.fromkeys(("channels", "resize"), "size"),
    "defense": "the tables",
    **dict.fromkeys(("epochs_trained", "rounds", "between", "surrogate"), "not in an audit"),
}
"""Options of which another line speaks."""


def assumed(options: Options, preprocessing: Preprocessing) -> dict[str, str]:
    """Of every option of the setting and of the knowledge what its value means, by what it is about."""
    mean, std = text(preprocessing.mean), text(preprocessing.std)
    numbers = f"mean {mean}, std {std}, {preprocessing.source}"
    found = {"preprocessing": f"(pixel - mean) / std, of pixels in [0, 1]: {numbers}"}
    for name, about in abouts(type(options)).items():
        if about.role in ("setting", "knowledge") and name not in SAID_THERE:
            title, words = SAID.get(name, (name.replace("_", " "), lambda o, name=name: str(getattr(o, name))))
            found[title] = words(options)
    return found


def assumed_under(defenses: Sequence[Options], preprocessing: Preprocessing) -> dict[str, str]:
    """The same of several defenses; where they differ, as in how labels are read, for each of them."""
    said = {options.defense: assumed(options, preprocessing) for options in defenses}
    found = {}
    for title in next(iter(said.values())):
        words = {defense: of_one[title] for defense, of_one in said.items()}
        same, *others = dict.fromkeys(words.values())
        found[title] = "; ".join(f"{defense}: {each}" for defense, each in words.items()) if others else same
    return found
