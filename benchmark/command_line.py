"""The words of a command line: parsers, other ways to write an option, and clear refusals.

Nothing here imports torch: help and most mistakes are answered at once.
"""

import itertools
import re
from collections.abc import Callable, Collection, Sequence
from functools import cache
from typing import Any, get_type_hints

from jsonargparse import ArgumentError, ArgumentParser

from benchmark.names import require
from benchmark.tracks.track import Track, read
from leaderboard.options import Options, abouts, defaults
from victims.errors import InputError
from victims.names import nearest, separated

ALIASES = {about.alias: name for name, about in abouts().items() if about.alias}
LISTS = [name for name, value in defaults().items() if isinstance(value, list)]
SEVERAL = ("--attack", "--defense", "--adapt")  # options that may name several runs


def run_parser(program: str, description: str) -> ArgumentParser:
    """A parser of all options of a run."""
    parser = ArgumentParser(prog=program, description=description, exit_on_error=False)
    parser.add_argument("--config", action="config", help="options as YAML, such as a result's config.yaml")
    hints = get_type_hints(Options)
    for name, default in defaults().items():
        about = abouts()[name]
        also = f" Also --{about.alias}." if about.alias else ""
        parser.add_argument(f"--{name}", type=hints[name], default=default, help=(about.help + also).replace("%", "%%"))
    return parser


def parser_of(function: Callable[..., Any], program: str, description: str) -> ArgumentParser:
    """A parser of a command's own options. What its docstring leaves out is an option of a run, and explained there."""
    parser = ArgumentParser(prog=program, description=description, exit_on_error=False)
    parser.add_function_arguments(function, as_positional=True)
    for action in parser._actions:
        if action.help is None and action.dest in abouts():
            action.help = abouts()[action.dest].help.replace("%", "%%")
    return parser


def options_of(parser: ArgumentParser, arguments: Sequence[str]) -> dict[str, Any]:
    """The options of a run by name.

    Raises:
        InputError: they are no options, or a name is mistyped.
    """
    options = parsed(parser, arguments)
    if options["track"]:
        track = read(options["track"])
        options_of_track(track)  # refused by the name of its file
        options = parsed(parser, [*track.arguments(), *arguments])
    options.pop("config", None)
    require_names(options)
    return options


def options_of_track(track: Track) -> dict[str, Any]:
    """What a track sets the options of a run to, by name.

    Raises:
        InputError: they have other values.
    """
    try:
        found = options_of_run(tuple(track.arguments()))
    except InputError as error:
        raise InputError(f"{track.path}: {error}") from None
    return {name: found[name] for name in ("tasks", *track.options)}


@cache
def options_of_run(arguments: tuple[str, ...]) -> dict[str, Any]:
    """As `parsed`, of a run: the options of a track are asked for by every trial of a search."""
    return parsed(run_parser("run", ""), arguments)


def parsed(parser: ArgumentParser, arguments: Sequence[str]) -> dict[str, Any]:
    """What the options of a command are set to, by name.

    Raises:
        InputError: they are no options of it, or have other values.
    """
    try:
        return parser.parse_args(list(arguments)).as_dict()
    except ArgumentError as error:
        known = {action.dest for action in parser._actions}
        known |= {alias for alias, name in ALIASES.items() if name in known}
        raise InputError(explain(error, known)) from None


def require_names(options: dict[str, Any]) -> None:
    """Refuse mistyped names before anything slow is imported; what else is wrong with an option its user finds out.

    Raises:
        InputError: lists the known names and the nearest one.
    """
    require("attack", options["attack"])
    require("data", options["data"].partition(":")[0])
    if ":" not in options["victim"]:
        require("victim", options["victim"])
    for part in options["defense"].split("+") if options["defense"] != "none" else ():
        require("defense", part.partition(":")[0])
    require("loss", options["loss"].partition(":")[0])
    require("local optimizer", options["local_optimizer"].partition(":")[0])
    for name in (options["prior"], options["refine"]):
        if ":" not in name and name not in ("default", "none"):
            require("prior", name)
    if options["labels"] not in ("given", "none"):
        require("label method", options["labels"])


def normalized(arguments: Sequence[str]) -> list[str]:
    """Every option under its own name: `--weights-dir=x`, `--weights=x` and `--set="a=1 b=2"` are understood too.

    Raises:
        InputError: the value of an option is `--`.
    """
    found: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if not argument.startswith("--"):
            found.append(argument)
            continue
        option, equals, value = argument.partition("=")
        if value == "--":  # argparse takes it out, and then stumbles over what is left
            raise InputError(f"{option} takes a value, not '--'.")
        add = "+" if option.endswith("+") else ""
        name = option[2:].removesuffix("+").replace("-", "_")
        name = ALIASES.get(name, name)
        if name in LISTS and not add:
            words = (value if equals else next(rest, "--")).split()
            if not equals and words[:1] and words[0].startswith("--"):
                raise InputError(f"--{name} takes KEY=VALUE, such as --{name}=tv=1e-3.")
            found += [f"--{name}+={word}" for word in words] or [f"--{name}=[]"]
        else:
            found.append(f"--{name}{add}{equals}{value}")
    return found


def expanded(arguments: Sequence[str]) -> list[list[str]]:
    """The arguments of every run: one for each attack and defense between commas, and two for `--adapt=both`.

    Other arguments stay where they are, and so do the values of lists: an option given later still wins.
    """
    choices = []
    rest = iter(arguments)
    for argument in rest:
        if argument in SEVERAL:
            argument += f"={next(rest, '')}"
        option, _, value = argument.partition("=")
        if option not in SEVERAL:
            choices.append([argument])
        elif option == "--adapt":
            choices.append([f"{option}={one}" for one in (("true", "false") if value == "both" else (value,))])
        else:
            choices.append([f"{option}={one}" for one in separated(value)])
    return [list(run) for run in itertools.product(*choices)]


def explain(error: ArgumentError, known: Collection[str]) -> str:
    """The parser's message as one line; the command knows these options."""
    text = " ".join(str(error).split())
    if unknown := re.match(r"[Uu]nrecognized arguments: --(\w+)", text):
        return f"unknown option --{unknown[1]}; {nearest(unknown[1], known)}see --help."
    wrong = re.match(r'Parser key "(\w+)": (.*)(?:Given|Got) value: ?(.*)', text)
    if wrong is None:
        return f"{text.rstrip('.')}; see --help."
    name, expected, value = wrong.groups()
    kinds = re.findall(r"Expected a (?:<class '(\w+)'>|typing\.Literal\[(.*?)\])", expected)
    words = [word for kind, values in kinds for word in ([kind] if kind else re.findall(r"'([\w.]+)'", values))]
    words = [word for word in words if word != "NoneType"]
    if words == ["bool"]:
        words = ["yes", "no", *(["both"] if f"--{name}" in SEVERAL else [])]
    return f"{name} takes {' or '.join(words)}, not '{value}'." if words else f"{text.rstrip('.')}; see --help."
