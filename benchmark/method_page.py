"""The page of a method, from its class: paper, algorithm, what it must know, options, presets, and its record."""

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from inspect import Parameter
from textwrap import dedent, indent

from docstring_parser import Docstring, DocstringStyle, parse

from attacks.base import Attack
from attacks.engine.space import Between
from benchmark.method_options import options_of
from benchmark.names import first_sentence
from benchmark.preset_table import papers, presets
from benchmark.tracks.board import BEHIND, UNTRAINED, names, pictures, table
from benchmark.tracks.recorded import Recorded
from benchmark.tracks.track import DEFAULT, read
from benchmark.tracks.tuned import read_tuned
from leaderboard.sentences import BEST
from leaderboard.table import NOTHING

LABELS = {
    "given": "Given to it, or read from the update by a label method (`LABELS=`).",
    "inferred": "Found by the method itself.",
    "joint": "Searched together with the images.",
}
RECORD = ("PSNR ↑", BEHIND, "prior", "recognized", "LPIPS ↓", "n", "gradients", "s/task")


def page(name: str, method: type[Attack], tracks: Sequence[Recorded]) -> str:
    """Markdown, for a folder beside `board` and `leaderboard`."""
    told = docstring(method)
    search = dedent(inspect.getsource(method.search))
    parts = [
        f"# {name}",
        "\n\n".join(papers(method)),
        without_html(told.short_description or ""),
        f"```\nmake bench {' '.join([f'METHOD={name}', *setting(method)])}\n```",
        "## Algorithm",
        without_html(told.long_description or ""),
        folded("The search, as it is executed", f"```python\n{search}```"),
        "## What it must know",
        "\n".join(f"- **{what}**: {told}" for what, told in needs(method).items()),
        "## On the tracks",
        *record(name, tracks),
        "## Options",
        '`SET="NAME=value ..."` sets them; [those of a run](../options.md) are the same for every method.',
        options(method) or "None of its own.",
        tuned(name),
        "## Presets",
        presets(method) if method.presets else "None.",
    ]
    return "\n\n".join(filter(None, map(str.strip, parts))) + "\n"


def index(methods: Mapping[str, type[Attack]]) -> str:
    """Markdown: a line for every method."""
    lines = (
        (
            f"[`{name}`]({name}.md)",
            without_html(first_sentence(docstring(method).short_description or "")),
            prior(name, method),
            codes(setting(method)) or "any setting",
            "<br>".join(papers(method)),
        )
        for name, method in methods.items()
    )
    return grid(("`METHOD=`", "searches", "prior", "made for", "source"), lines)


def docstring(item: type) -> Docstring:
    return parse(item.__doc__ or "", DocstringStyle.GOOGLE)


def setting(method: type[Attack]) -> list[str]:
    """Options of a run outside of which it is not defined, as `make` takes them."""
    return [f"{name.upper()}={value}" for name, value in method.made_for.items()]


def prior(name: str, method: type[Attack]) -> str:
    return method.takes.kind if "prior" in method.needs else UNTRAINED.get(name, "none")


def needs(method: type[Attack]) -> dict[str, str]:
    default = f", `{method.default_prior}` by default" if method.default_prior else ""
    return {
        "labels": LABELS[method.labels],
        "prior": f"A {method.takes.kind}{default}." if "prior" in method.needs else "None.",
        "batch-norm statistics": "Used where they are known (`BN=`)." if "bn" in method.uses else "Not used.",
        "setting": f"Only {codes(setting(method))}." if method.made_for else "Any.",
        **({"refused": refused(method)} if method.check is not Attack.check else {}),
        "steps": "None to choose: it is judged once." if method.analytic else "`STEPS=`, `RESTARTS=`.",
    }


def refused(method: type[Attack]) -> str:
    """What the method's own check refuses, by its first sentence: `Refuse ...`."""
    said = first_sentence(inspect.getdoc(method.check) or "").removeprefix("Refuse ")
    return said[:1].upper() + said[1:]


def options(method: type[Attack]) -> str:
    """A line for each option of the method's own: default, bounds within which it is tuned, meaning."""
    meaning = meanings(method)
    lines = (
        (f"`{name}`", default(option), bounds(method.space.get(name, ())), without_html(meaning.get(name, NOTHING)))
        for name, option in options_of(method).items()
    )
    return grid(("option", "default", "tuned within", "meaning"), lines)


def tuned(name: str) -> str:
    """A line for each track on which the method was tuned: what that was worth, and the options."""
    found = {track: read_tuned(read(track), name) for track in names()}
    lines = (
        (
            track,
            f"{best.default:.2f} to {best.score:.2f} dB",
            codes(f"{key}={short(value)}" for key, value in best.options.items()),
        )
        for track, best in found.items()
        if best
    )
    table = grid(("track", "from the default options to the tuned ones", "tuned options"), lines)
    said = (
        f"`TRACK=` takes what was tuned there, and a run without `TRACK` and `PRESET` those of `{DEFAULT}`. "
        "The mean PSNR is on the images for tuning."
    )
    return f"### Tuned\n\n{said}\n\n{table}" if table else ""


def short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def meanings(method: type[Attack]) -> dict[str, str]:
    """Of options, from the docstrings of a class and its bases: the nearest one that explains an option counts."""
    told: dict[str, str] = {}
    for base in (each for each in method.__mro__ if issubclass(each, Attack)):
        for text in (base.__doc__, vars(base).get("__init__") and base.__init__.__doc__):
            for parameter in parse(text or "", DocstringStyle.GOOGLE).params:
                for name in parameter.arg_name.split(", "):  # several may have one explanation
                    told.setdefault(name, parameter.description or "")
    return told


def default(option: Parameter) -> str:
    return "" if option.default is option.empty or str(option.default) == "" else f"`{option.default}`"


def bounds(space: Between | tuple[float | str | bool, ...]) -> str:
    return f"{space.low:g} to {space.high:g}" if isinstance(space, Between) else ", ".join(map(str, space))


def record(name: str, tracks: Sequence[Recorded]) -> list[str]:
    """A line for each track on which the method is recorded, and its pictures."""
    lines, strips = [], []
    for found in tracks:
        columns = table(found).columns
        for place, (entry, _) in enumerate(found.board):
            if entry.attack == name:
                values = (columns[heading][place] if heading in columns else NOTHING for heading in RECORD)
                lines.append((f"[{found.name}](../board/README.md#{found.name})", *values))
        strips += [
            f"{found.name}\n\n![{name} on {found.name}]({path})"
            for method, path in pictures(found, "..")
            if method == name
        ]
    if not lines:
        return ["Not recorded on any track yet."]
    return [
        grid(("track", *RECORD), lines),
        without_html(BEST),
        *(["Truth above reconstruction:", *strips] if strips else []),
    ]


def codes(texts: Iterable[str]) -> str:
    return " ".join(f"`{text}`" for text in texts)


def without_html(text: str) -> str:
    """Markdown in which < and & are no HTML; in code they are none anyway."""
    return "".join(part if part.startswith("`") else escape(part, quote=False) for part in re.split("(`[^`]*`)", text))


def grid(headings: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    """A Markdown table of cells that are Markdown; empty without lines."""
    cells = [[" ".join(cell.replace("|", "\\|").split()) for cell in line] for line in lines]
    headings = list(headings)
    rows = [headings, ["---"] * len(headings), *cells]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) if cells else ""


def folded(title: str, text: str) -> str:
    """A box that a reader opens."""
    return f'??? abstract "{title}"\n\n{indent(text, "    ")}'
