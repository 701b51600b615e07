"""Recipes: every cell means something, nothing missing goes unsaid, and a small one runs to its table."""

import subprocess
import sys
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmark.__main__ import main
from benchmark.config import Config
from benchmark.launch import matrix
from benchmark.recipes import reproduce
from benchmark.recipes.recipe import RECIPES, SIZES, Cell, combinations, expand, learned, read
from benchmark.registry import find, registered
from benchmark.row_maker import row_maker
from leaderboard.board import BESIDE, IDENTITY, Entry
from leaderboard.options import row_keys
from leaderboard.reported import reported
from leaderboard.rows import PROTOCOL
from leaderboard.table import NOTHING
from priors import names
from priors.dcgan import DCGAN
from victims import by_name as victims
from victims.data.base import ImageData
from victims.preprocessing import given

NAMES = sorted(path.stem for path in RECIPES.glob("*.yaml"))
TINY = """
tables: [gifd-table1]
by: [batch]
defaults: {victim: lenet, defense: none, labels: given, batch: [1, 2]}
cells:
  - {method: IG, attack: ig, set: {tv: 1e-3}}
  - {method: GIFD, attack: gifd, batch: 1, set: {layers: 1}}
paper: {data: ffhq, size: 64, prior: stylegan2-ffhq-256, tasks: 2}
small: {data: cifar10, size: 32, prior: dcgan-cifar10, tasks: 2, restarts: 1, steps: 2}
"""


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    """The command on a machine without data or weights; cells run in this process, `run.cells` has their lines."""

    def cell(command, check):
        assert command[:3] == [sys.executable, "-m", "benchmark"]
        run.cells.append(command[3:])
        return subprocess.CompletedProcess(command, main(command[3:]))

    def run(recipe, *options, code=0):
        run.cells = []
        nowhere = [f"--data-dir={tmp_path / 'data'}", f"--weights-dir={tmp_path / 'weights'}"]
        common = ["--devices=1", "--wandb=off", f"--out={tmp_path / 'out'}"]
        assert main(["reproduce", str(recipe), *nowhere, *common, *options]) == code
        return capsys.readouterr()

    monkeypatch.setattr(matrix, "subprocess", SimpleNamespace(run=cell))
    return run


@pytest.fixture
def tiny(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


def cells_of(name, size, tmp_path):
    return expand(read(name), size, {"data_dir": tmp_path, "weights_dir": tmp_path}, tmp_path)


# What is shipped.


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", NAMES)
def test_every_cell_means_something(name, size, tmp_path):
    plan = read(name)
    known_priors = {*names.shipped(), *names.published()}
    for cell in cells_of(name, size, tmp_path):
        config = cell.config
        config.make_defense()
        config.local_training()
        assert config.data in registered("data")
        victims.find(config.victim, lambda own: find("victim", own))
        if not cell.method or plan["command"] == "labels":
            continue
        method = find("attack", config.attack)
        config.method_options(method)
        if "prior" in method.needs:
            architecture, _, detail = config.prior.partition(":")
            learned = str(tmp_path / "priors") in config.prior
            assert learned or config.prior in known_priors or architecture in names.architectures(), config.prior
            assert not detail or architecture in names.architectures()


@pytest.mark.parametrize("name", NAMES)
def test_both_sizes_have_the_same_methods_and_no_cell_is_lost(name):
    plan = read(name)
    methods = {}
    for size in SIZES:
        named = [
            (method, *(options.get(option) for option in plan["by"])) for method, options in combinations(plan, size)
        ]
        assert len(named) == len(set(named)) or plan["command"] == "labels"
        methods[size] = {method for method, *_ in named}
    assert methods["paper"] == methods["small"]


def test_every_table_has_a_recipe():
    assert set(chain.from_iterable(read(name)["tables"] for name in NAMES)) == {entry.table for entry in reported()}


@pytest.mark.parametrize("name", [name for name in NAMES if read(name)["command"] == "run"])
def test_the_rows_of_every_cell_of_a_paper_meet_its_number(name, tmp_path):
    """The board shows a published number beside an entry that it is of, by the fields of the rows."""
    plan = read(name)
    numbers = [entry for entry in reported() if entry.table in plan["tables"]]
    cells = [cell for cell in cells_of(name, "paper", tmp_path) if cell.method]
    rows = {cell.name: row_of(cell) for cell in cells}
    for number in numbers:
        assert any(cell.method == number.method and number.matches(rows[cell.name]) for cell in cells), number
    for cell in cells:
        met = [number for number in numbers if number.method == cell.method and number.matches(rows[cell.name])]
        assert len(met) == any(number.method == cell.method for number in numbers), cell.name
        assert reproduce.paper(cell, plan["by"], numbers) == (met[0].values if met else {})


def row_of(cell):
    """A row of a cell that cannot run here: a small generator stands in for the published one."""
    config, method = cell.config, find("attack", cell.config.attack)
    options = config.method_options(method) | ({} if config.labels == "given" else {"label_method": config.labels})
    if "prior" in method.needs:
        options["prior"] = DCGAN()
        published = names.published().get(config.prior)
        options["prior"].trained_on = published.trained_on if published else trained_on(config.prior)
    contents = {key: "" for key in row_keys() if key.endswith("_digest")}
    make = row_maker(config, method(**options), given("0.5", "0.5"), "squeeze", contents)
    nothing = {"task": "t", "image": "i", "label": 0, "status": "ok", "cost": 0.0, "scores": {}, "higher_is_better": {}}
    return make(**nothing, gradient_evaluations=1, seconds=1.0, memory=1).flat()


def trained_on(prior):
    """What a generator with no name was trained on, as `Prior.load_public` has it: the name of its file."""
    return Path(prior).stem if Path(prior).suffix else "untrained"


def test_the_cells_of_label_recovery_are_of_the_papers_settings(tmp_path):
    plan = read("igims-table2")
    cells = {cell.config.data: cell.config for cell in cells_of("igims-table2", "paper", tmp_path)}
    numbers = [number for number in reported() if number.table in plan["tables"]]
    assert {number.setting["data"] for number in numbers} == cells.keys()
    for number in numbers:
        stated = {key: value for key, value in number.setting.items() if key not in ("batch_size", "label_method")}
        assert {key: getattr(cells[number.setting["data"]], key) for key in stated} == stated


# What is missing.


def test_what_is_missing_is_said_in_one_line_and_the_cells_that_need_it_are_named(run, tmp_path):
    printed = run("gifd-table3a", "--size=paper", code=2)
    assert run.cells == []
    said = [line for line in printed.err.splitlines() if "imagenet" in line]
    assert said == [
        f"benchmark: imagenet has no test images in {tmp_path / 'data/imagenet/val'}; put them there, such as "
        "n01440764/1.JPEG, or fix --data-dir. (GIFD-z; GIFD-f; GIFD-e; GIFD)"
    ]
    assert "no result from 4 of 4 cells" in printed.err.splitlines()[-1]


def test_weights_that_are_missing_leave_out_only_what_needs_them(tmp_path, tiny):
    tiny.write_text(TINY.replace("data: ffhq, size: 64", "data: photos, size: 32"))
    cells = cells_of(str(tiny), "paper", tmp_path)
    lines, left_out = reproduce.check(cells, "run")
    assert left_out == {"GIFD, batch 1"}
    ((line, names),) = lines.items()
    assert "stylegan2-ffhq-256 needs 550000.pt" in line
    assert names == ["GIFD, batch 1"]


def test_a_generator_of_other_images_is_learned_into_another_file(tmp_path, monkeypatch):
    def file():
        (cell,) = [cell for cell in cells_of("giml-figure4", "small", tmp_path) if not cell.method]
        return learned(cell)

    before = file()
    assert file() == before
    monkeypatch.setattr(ImageData, "digest", lambda data: "others")
    assert file() != before


def test_a_generator_that_cannot_be_learned_takes_its_cells_along(tmp_path):
    cells = cells_of("giml-figure4", "paper", tmp_path)
    lines, left_out = reproduce.check([c for c in cells if not c.method or "learned" in c.method], "run")
    assert left_out == {"prior giml", "GI-z, learned", "GI-z/w, learned"}
    assert any("ffhq has no train images" in line for line in lines)


# What runs.


def test_a_small_recipe_runs_on_embedded_data_and_ends_beside_the_paper(run, tiny, tmp_path):
    printed = run(tiny)
    assert len(run.cells) == 3
    assert all("--data=photos" in c for c in run.cells)
    document = (tmp_path / "out/reproduce-tiny-small.md").read_text()
    lines = [line.split(" | ") for line in document.splitlines() if line.startswith(("| IG", "| GIFD"))]
    assert [(line[0], line[1], line[2], line[3]) for line in lines] == [
        ("| IG", "1", "2", "19.076"),
        ("| IG", "2", "4", "16.277"),
        ("| GIFD", "1", "2", "21.133"),
    ]
    assert "supplement, section A, table 1; data ffhq, size 64, victim resnet18. " in document
    again = run(tiny)
    assert again.out.splitlines()[-1] == printed.out.splitlines()[-1]
    assert (tmp_path / "out/reproduce-tiny-small.md").read_text() == document


def test_images_on_which_a_method_diverged_are_counted():
    fields = {**dict.fromkeys([*IDENTITY, "lpips_backbone"]), "protocol": PROTOCOL}
    counts = {"n": 4, "tasks": 2, "degenerate": 0, "seconds": 1.0, "gradient_evaluations": 5.0}
    empty = {key: {} for key in ("axis", "scores", "higher_is_better", "ranges")}
    scores = empty | dict.fromkeys(BESIDE)
    cells = [Cell(method=name, name=name, arguments=[], config=Config()) for name in ("ig", "gias")]
    for diverged, column in ((0, None), (3, ["3", NOTHING])):
        done = {"ig": Entry(fields=fields, diverged=diverged, **counts, **scores)}
        table = reproduce.beside("a table", ["data"], cells, done, reported()[:1])
        assert table.columns.get("diverged") == column


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("tv: 1e-3", "tb: 1e-3"), "ig has no option 'tb'"),
        (("attack: ig", "attack: gi_g"), "unknown attack 'gi_g'"),
        (("steps: 2", "steps: many"), "IG, batch 1: "),
        (("steps: 2", "paces: 2"), "IG, batch 1: "),
        (("by: [batch]", "per: [batch]"), "is no recipe"),
        (("method: IG, ", ""), "has a cell without a method"),
        (("cells:", "cells: {"), "is no YAML that can be read"),
        (("prior: dcgan-cifar10", "prior: 'learned:x'"), "learns no generator 'x'"),
        (("by: [batch]", "by: [defense]"), "two different cells are called 'IG, defense none'"),
        ((TINY[TINY.index("cells:") : TINY.index("paper:")], "cells:\n"), "by and cells are lists"),
        (("by: [batch]", "by: [batch]\ntables:"), "tables, by and cells are lists"),
        (("by: [batch]", "by:"), "tables, by and cells are lists"),
        (("by: [batch]", "by: [batch_size]"), "by has 'batch_size', which is no option of a run; did you mean"),
        (("by: [batch]", "by: [[batch]]"), "which is no option of a run"),
        (("set: {tv: 1e-3}", "set: [tv=1e-3]"), "set, with, learn, paper, small in them, are mappings"),
        (("attack: ig", "attack: ig, small: "), "set, with, learn, paper, small in them, are mappings"),
    ],
)
def test_a_bad_recipe_is_told_in_one_line(change, expected, run, tiny):
    text = TINY.replace(*change)
    assert text != TINY
    tiny.write_text(text)
    printed = run(tiny, code=2) if "attack" not in expected and "has no option" not in expected else None
    if printed is None:
        lines, left_out = reproduce.check(cells_of(str(tiny), "small", tiny.parent), "run")
        assert any(expected in line for line in lines)
        assert left_out == {"IG, batch 1", "IG, batch 2"}
    else:
        assert expected in printed.err
        assert printed.err.count("\n") == 1
        assert run.cells == []


def test_an_unknown_name_lists_the_recipes(run):
    assert "did you mean 'gifd-table3a'" in run("gifd-tabel3a", code=2).err


def test_make_hands_the_recipe_on():
    made = subprocess.run(
        ["make", "-n", "-o", ".venv/.ready", "reproduce", "RECIPE=gifd-table4", "SIZE=paper", "OUT=there"],
        cwd=Path(__file__).resolve().parents[3], capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert all(part in made for part in ("reproduce 'gifd-table4'", "--size='paper'", "--out='there'"))
