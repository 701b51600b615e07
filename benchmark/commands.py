"""The commands of `python -m benchmark`, and what each runs."""

import ast
import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from jsonargparse import ArgumentParser

from benchmark.command_line import expanded, normalized, options_of, parsed, parser_of, run_parser
from benchmark.names import ROOT, summary
from victims.errors import InputError
from victims.names import nearest

PROGRAM = "python -m benchmark"
COMMANDS: Mapping[str, str] = {
    "run": "benchmark.run:run",
    "submit": "benchmark.launch.submit:submit",
    "reproduce": "benchmark.recipes.reproduce:reproduce",
    "audit": "benchmark.audit.audit:audit",
    "check": "benchmark.check.command:check",
    "track": "benchmark.tracks.show:show",
    "tune": "benchmark.tracks.tune:tune",
    "record": "benchmark.tracks.record:record",
    "verify": "benchmark.tracks.verify:verify",
    "sealed run": "benchmark.sealed.sealed:run",
    "sealed draw": "benchmark.sealed.sealed:draw_files",
    "sealed attack": "benchmark.sealed.sealed:attack_files",
    "sealed judge": "benchmark.sealed.sealed:judge_files",
    "labels": "benchmark.labels:labels",
    "utility": "benchmark.utility:utility",
    "list": "benchmark.listing:list_names",
    "prior list": "benchmark.priors.commands:list_priors",
    "prior quality": "benchmark.priors.commands:quality",
    "prior train": "benchmark.priors.commands:train",
    "prior train-denoiser": "benchmark.priors.commands:train_denoiser",
    "prior train-inverter": "benchmark.priors.inverter:train_inverter",
    "prior learn": "benchmark.priors.learn:learn",
}
"""What a command runs: `module:function`. A module is imported when its command is given."""

MATRIX = (
    "Several attacks or defenses with commas between them on the command line, or --adapt=both, are run one after "
    "another, every attack under every defense, and end with their matrix."
)
SUBMIT = "Takes all options of `run` besides these. Each run of a matrix is a job."


def dispatch(arguments: Sequence[str]) -> int:
    """Run the command that the first words name.

    Raises:
        InputError: the arguments are none, or what the command refuses.
    """
    arguments = normalized(arguments)
    groups = {command.split()[0] for command in COMMANDS if " " in command}
    words = 2 if arguments and arguments[0] in groups else 1
    if arguments[words - 1 : words] in (["--help"], ["-h"]):
        print(overview())
        return 0
    command, rest = " ".join(arguments[:words]), list(arguments[words:])
    if command not in COMMANDS:
        wrong = f"unknown command '{command}'; {nearest(command, COMMANDS)}" if command else "give a command; "
        raise InputError(f"{wrong}known: {', '.join(COMMANDS)}.")
    if command == "run":
        return run(rest)
    if command == "submit":
        return submit(rest)
    function = imported(command)
    parser = parser_of(function, f"{PROGRAM} {command}", summary_of(command))
    return function(**parsed(parser, flags_set(function, rest))) or 0


def run(arguments: Sequence[str]) -> int:
    parser = run_parser(f"{PROGRAM} run", f"{summary_of('run')} {MATRIX}")
    runs = [(one, options_of(parser, one)) for one in expanded(arguments)]
    from benchmark.config import Config  # what follows needs torch

    if len(runs) > 1:
        from benchmark.launch.matrix import run_matrix

        return run_matrix([(["run", *one], Config(**options)) for one, options in runs])
    imported("run")(Config(**runs[0][1]))
    return 0


def submit(arguments: Sequence[str]) -> int:
    from benchmark.launch.cluster import Cluster, split_arguments

    own, others = split_arguments(arguments)
    parser = ArgumentParser(
        prog=f"{PROGRAM} submit", description=f"{summary_of('submit')} {SUBMIT}", exit_on_error=False
    )
    parser.add_class_arguments(Cluster)
    where = Cluster(**parsed(parser, own))
    options = run_parser(f"{PROGRAM} run", "")
    runs = [(one, options_of(options, one)) for one in expanded(others)]
    from benchmark.config import Config

    return imported("submit")([(["run", *one], Config(**chosen)) for one, chosen in runs], where)


def flags_set(function: Callable[..., object], arguments: Sequence[str]) -> list[str]:
    """Options that are true or false may stand alone: `--json` is `--json=true`."""
    flags = {f"--{p.name}" for p in inspect.signature(function).parameters.values() if p.annotation is bool}
    pairs = zip_longest(arguments, arguments[1:], fillvalue="--")
    return [f"{each}=true" if each in flags and after.startswith("--") else each for each, after in pairs]


def imported(command: str) -> Callable[..., Any]:
    """The function that a command runs."""
    module, _, name = COMMANDS[command].partition(":")
    return getattr(importlib.import_module(module), name)


def summary_of(command: str) -> str:
    """The first line of a command's docstring, without importing it."""
    module, _, name = COMMANDS[command].partition(":")
    tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text())
    return next(summary(node) for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name)


def overview() -> str:
    """All commands, a line each."""
    lines = [f"  {command:20} {summary_of(command)}" for command in COMMANDS]
    return "\n".join(
        [
            f"usage: {PROGRAM} COMMAND [options], or gibench COMMAND [options]",
            "",
            "How much of a client's private images can be rebuilt from the update it shares in federated learning.",
            "",
            *lines,
            "",
            f"{PROGRAM} COMMAND --help explains the options of a command.",
        ]
    )
