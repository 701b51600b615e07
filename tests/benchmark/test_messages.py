"""What a message tells its reader to type exists: commands, targets of make, options."""

import ast
import re

from benchmark.command_line import ALIASES, parser_of, run_parser
from benchmark.commands import COMMANDS, imported
from benchmark.launch.cluster import Cluster
from benchmark.names import ROOT

PACKAGES = ("attacks", "benchmark", "defenses", "gibench", "leaderboard", "priors", "victims")
SAID = {"InputError", "Unfinished", "warn", "print", "error"}
OTHERS = {
    *("ntasks-per-node", "node-rank", "gibench-offline"),  # of srun, and the environment
    "key",  # of KEY=VALUE
    *("against", "metric", "group", "from-wandb", "to-wandb"),  # of python -m leaderboard
}
WORDS = {"no"}  # after "make", in a sentence


def messages():
    """File and text of every literal that is an argument of what tells the user something, or is returned."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                called = getattr(node.func, "id", getattr(node.func, "attr", "")) if isinstance(node, ast.Call) else ""
                if called in SAID or isinstance(node, ast.Return):
                    for part in ast.walk(node):
                        if isinstance(part, ast.Constant) and isinstance(part.value, str):
                            yield path.relative_to(ROOT), part.value


def options():
    found = {action.dest for action in run_parser("run", "")._actions} | ALIASES.keys()
    for command in COMMANDS.keys() - {"run", "submit"}:
        found |= {action.dest for action in parser_of(imported(command), command, "")._actions}
    return found | {*Cluster.__dataclass_fields__}


def test_every_target_of_make_that_a_message_names_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {(path, word) for path, text in messages() for word in re.findall(r"\bmake ([a-z][a-z-]*)", text)}
    assert len(named) > 5
    assert {(path, word) for path, word in named if word not in targets | WORDS} == set()


def test_every_option_that_a_message_names_exists():
    known = {name.replace("_", "-") for name in options()} | OTHERS
    found = [
        (path, word.lower().replace("_", "-"))
        for path, text in messages()
        for words in (
            re.findall(r"(?<![\w-])--([a-z][a-z_-]+)", text),
            re.findall(r"(?<![\w$])([A-Z][A-Z_]{2,})=", text),
        )
        for word in words
    ]
    assert len(found) > 50
    assert {(path, word) for path, word in found if word not in known} == set()


def test_every_command_that_a_message_names_exists():
    named = {
        (path, " ".join(words))
        for path, text in messages()
        for words in re.findall(r"python -m benchmark ([a-z]+)(?: ([a-z-]+))?", text)
    }
    first = {command.split()[0] for command in COMMANDS}
    assert {(path, words) for path, words in named if words.split()[0] not in first} == set()
