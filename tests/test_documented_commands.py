"""The commands that the pages show exist: targets of make with options that they take, and commands of the program."""

import re
from pathlib import Path

from benchmark.command_line import parser_of
from benchmark.commands import COMMANDS, imported
from leaderboard.options import abouts, variable

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
OF_RUNS = {variable(name) for name in abouts()} | {"NAME"}
"""What a run takes, and what stands for any of them."""


def commands():
    """Every command on a page, in a block or within a line, without comments."""
    for page in PAGES:
        text = page.read_text()
        blocks = [line for language, code in FENCE.findall(text) if not language for line in re.split("[;\n]", code)]
        inline = re.findall(r"`([^`]+)`", FENCE.sub("", text))
        for line in (*blocks, *inline):
            yield page.name, " ".join(line.split("# ")[0].split()).removeprefix("do ")


def test_targets_of_make_exist_and_runs_take_their_options():
    shown = [(page, line) for page, line in commands() if re.match(r"make [a-z]", line)]
    assert len(shown) > 50
    for page, line in shown:
        plain = re.sub(r'"[^"]*"|\'[^\']*\'', "", line)
        words = [word for word in plain.split()[1:] if "=" not in word and word != "..."]
        assert set(words) <= TARGETS, f"{page}: {line}"
        if "bench" in words:
            assert set(re.findall(r" ([A-Z_]+)=", plain)) <= OF_RUNS, f"{page}: {line}"


def test_commands_of_the_program_exist_and_take_their_options():
    known = "|".join(re.escape(command) for command in sorted(COMMANDS, reverse=True))
    shown = [(page, line) for page, line in commands() if re.search(r"(-m benchmark|^gibench) [a-z]", line)]
    assert len(shown) > 10
    for page, line in shown:
        found = re.search(rf"(?:-m benchmark|gibench) ({known})(?= |$)(.*)", line)
        assert found, f"{page}: {line}"
        if found[1] not in ("run", "submit"):  # they take the options of Options, as above
            told = parser_of(imported(found[1]), found[1], "").format_help()
            assert all(option in told for option in re.findall(r"--[a-z-]+", found[2])), f"{page}: {line}"
