"""The page of the record: what is committed is what `make board` writes from the record."""

import ast
from dataclasses import replace
from itertools import product

import pytest

from benchmark.method_options import options_of
from benchmark.names import ROOT, comment, known
from benchmark.registry import find
from benchmark.tracks import board
from benchmark.tracks.board import UNTRAINED, defended, files, kinds, short, table, with_board
from benchmark.tracks.entry import kinds as kinds_of
from benchmark.tracks.recorded import recorded
from benchmark.tracks.track import DEFAULT, Track, read
from benchmark.tracks.tuned import Tuned
from leaderboard import record
from leaderboard.options import Options, abouts
from leaderboard.orderings import claims
from leaderboard.rows import PROTOCOL
from leaderboard.statistics import EXCLUDED, MAYBE
from tests.leaderboard.conftest import PLAIN
from victims.errors import InputError
from victims.names import parsed

LARGEST = 12_000_000  # bytes of record and page together


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "RECORD", tmp_path / "record")
    monkeypatch.setattr(Track, "tuned", lambda track, method: tmp_path / track.name / f"{method}.yaml")
    return tmp_path


@pytest.fixture
def keep(elsewhere):
    """A function that records a method on a track."""

    def write(track, method, psnr, **changes):
        found = read(track)
        setting = {abouts()[name].rows[0]: value for name, value in found.options.items()}
        run = setting | {"attack": method, "track": track, **changes}
        places = product(range(found.tasks), range(found.options["batch"]))
        scored = ({"task": f"t{k}", "image": f"i{k}-{b}", "psnr": psnr * (1 + k % 6 / 50)} for k, b in places)
        rows = [PLAIN.flat() | run | each for each in scored]
        record.write(track, method, rows, b"picture")

    return write


def test_the_page_is_current():
    for path, text in files().items():
        assert path.read_text() == text, f"{path}: run make board"


def test_record_and_page_are_small():
    paths = [*record.RECORD.rglob("*"), *board.FOLDER.rglob("*")]
    assert sum(path.stat().st_size for path in paths if path.is_file()) <= LARGEST


def test_an_empty_record_has_a_page(elsewhere):
    page = files()[board.FOLDER / "README.md"]
    assert "Not recorded yet" in page
    assert DEFAULT in page
    assert "What the record says" not in page


def test_a_track_has_its_table_its_tuning_and_its_pictures(keep):
    keep("cifar10-b1", "ig", 20.0)
    keep("cifar10-b1", "gias", 30.0, prior="dcgan-cifar10")
    record.write_refused("cifar10-b1", {"rgap": "it has a bias", "spear": "it is no linear layer"})
    path = read("cifar10-b1").tuned("ig")
    path.parent.mkdir()
    tuned = Tuned(track="cifar10-b1", rule=read("cifar10-b1").rule, method="ig", options={}, score=22.0, default=11.5)
    path.write_text("\n".join(f"{name}: {value}" for name, value in vars(tuned).items()))
    columns = table(recorded(read("cifar10-b1"))).columns
    assert columns["attack"] == ["gias", "ig"]
    assert columns["prior"] == ["generator", "none"]
    assert columns["minus the best"][0] == "-"
    assert columns["minus the best"][1].startswith("-10.50 dB [")
    assert columns["minus the best"][1].endswith("] not the best")
    assert columns["tuned"] == ["-", "11.50 to 22.00 dB, 8 trials"]
    assert "stale" not in columns
    written = files()
    page = written[board.FOLDER / "README.md"]
    assert comment(read("cifar10-b1").path) in page
    assert "![gias](../../leaderboard/record/cifar10-b1/gias.webp)" in page
    assert "cifar10-b1: gias, 31.50 dB" in page
    assert "Generator: better on cifar10-b1 (+10.5 dB)." in page
    (line,) = (line for line in page.splitlines() if line.startswith("- Not recorded yet: "))
    left = line.removeprefix("- Not recorded yet: ").removesuffix(".").split(", ")
    assert sorted([*left, "gias", "ig", "rgap", "spear"]) == sorted(known("attack"))
    assert "| rgap | it has a bias | cifar10-b1 |" in page
    assert written == files()


def test_attacks_are_in_the_order_of_their_psnr_whatever_code_recorded_them_and_the_control_is_last(keep):
    keep("cifar10-b1", "ig", 20.0, defense_digest="a")
    keep("cifar10-b1", "gias", 30.0, defense_digest="b")
    keep("cifar10-b1", "gi", 25.0, defense_digest="a")
    keep("cifar10-b1", "mean_image", 22.0, attack="ig", control="mean_image")
    columns = table(recorded(read("cifar10-b1"))).columns
    assert columns["attack"] == ["gias", "gi", "ig", "mean image (control)"]
    assert [each.partition(" dB")[0] for each in columns["minus the mean image"]] == ["+8.40", "+3.15", "-2.10", "-"]
    assert columns["minus the mean image"][2].endswith("worse")
    assert columns["minus the best"][3] == columns["prior"][3] == columns["tuned"][3] == "-"
    assert "cifar10-b1: gias, 31.50 dB" in files()[board.FOLDER / "README.md"]


def test_what_is_stale_is_shown_and_answers_nothing(keep):
    keep("cifar10-b1", "ig", 20.0)
    keep("cifar10-b1", "gias", 30.0, protocol=3)
    found = recorded(read("cifar10-b1"))
    assert dict(zip(*(table(found).columns[name] for name in ("attack", "stale")), strict=True)) == {
        "gias*": "of protocol 3, now 4",
        "ig": "-",
    }
    assert [entry.attack for entry, _ in found.current()] == ["ig"]


def test_a_record_without_some_images_of_the_track_is_refused_in_one_line(keep, capsys):
    keep("cifar10-b1", "ig", 20.0)
    ((*_, rows, path),) = record.read()
    record.write("cifar10-b1", "ig", rows[1:], b"")
    assert board.main() == 2
    assert capsys.readouterr().err == (
        f"benchmark: {path} has 23 rows, but the track makes 24; get the file again, or run "
        f"make record TRACK={path.parent.name} METHOD={path.name.partition('.')[0]}.\n"
    )
    record.write("cifar10-b1", "ig", [row | {"track_version": 0} for row in rows[1:]], b"")
    assert recorded(read("cifar10-b1")).current() == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"victim": "resnet18"}, "has victim resnet18, and the track or its other records convnet"),
        ({"seed": 3}, "has seed 3, and the track or its other records 0"),
        ({"size": 64}, "has size 64"),
        ({"std": "1,1,1"}, "has std 1,1,1"),
        ({"gradient_evaluations": 10**6}, "took 1000000 victim gradients, and the track allows 400"),
        ({"image_digest": "another"}, "is of other images than ig.jsonl.gz"),
        ({"psnr": None}, "has an image without a PSNR"),
        ({"psnr": float("nan")}, "has a score that is no number"),
    ],
)
def test_rows_of_another_setting_are_refused_in_one_line(changes, message, keep, capsys):
    keep("cifar10-b1", "ig", 20.0)
    keep("cifar10-b1", "pnp", 21.0)
    (kept,) = record.read("cifar10-b1", "pnp")
    record.write("cifar10-b1", "pnp", [*kept.rows[1:], kept.rows[0] | changes], b"")
    assert board.main() == 2
    assert message in capsys.readouterr().err


def test_a_track_that_writes_its_numbers_otherwise_than_rows_is_of_its_setting(keep):
    keep("cifar10-b64", "ig", 20.0, mean="0.0", std="1.0")
    assert read("cifar10-b64").options["mean"] == "0"
    assert recorded(read("cifar10-b64")).attacks() == ["ig"]


def test_a_record_of_a_method_that_was_tuned_anew_is_stale(keep):
    keep("cifar10-b1", "ig", 20.0, options={"eta": 0.1}, restarts=2)
    track = read("cifar10-b1")
    for eta, restarts, stale in ((0.1, 2, ""), (0.2, 2, "tuned anew"), (0.1, 1, "tuned anew")):
        path = track.tuned("ig")
        path.parent.mkdir(exist_ok=True)
        options = {"eta": eta, "restarts": restarts}
        tuned = Tuned(track="cifar10-b1", rule=track.rule, method="ig", options=options, score=22.0, default=11.5)
        path.write_text("\n".join(f"{name}: {value}" for name, value in vars(tuned).items()))
        (why,) = recorded(track).stale()
        assert why.startswith(stale)
        assert bool(why) == bool(stale)


def test_a_track_of_label_methods_has_its_tables(elsewhere):
    name = "labels-unbalanced"
    scores = {"victim": "convnet", "batch_size": 4, "counts": 0.75, "existence": 1.0}
    row = scores | {"track": name, "track_version": 1, "protocol": PROTOCOL, "label_method": "alr"}
    rows = [row | {"task": f"t{k}", "cluster": str(k)} for k in range(20)]
    record.write_labels(name, "alr", rows)
    page = files()[board.FOLDER / "README.md"]
    assert "[labels-unbalanced](#labels-unbalanced)" in page
    assert "| alr | 0.7500 [" in page
    assert name not in page.partition("Not recorded yet")[2]
    record.write_labels(name, "alr", rows[1:])
    with pytest.raises(InputError, match=f"{name}/alr.jsonl.gz has 19 rows, but the track makes 20"):
        files()
    record.write_labels(name, "alr", rows)
    record.write_labels(name, "zlr", [row | {"label_method": "zlr", "track_version": 0} for row in rows])
    said = files()[board.FOLDER / "README.md"]
    lines = [line.rpartition("] | ")[2] for line in said.splitlines() if line.startswith(("| alr |", "| zlr |"))]
    assert lines == ["- |", "of version 0 of the track, now 1 |"] * 2
    assert name not in said.partition("Not recorded yet")[2]


def test_kinds_of_prior_are_those_of_the_track(keep):
    keep("cifar10-b1", "ig", 20.0)
    keep("cifar10-b1", "pnp", 20.0, prior="denoiser-photos")
    keep("cifar10-b1", "gias", 20.0, prior="dcgan-cifar10")
    assert kinds(recorded(read("cifar10-b1"))) == UNTRAINED | {"pnp": "denoiser", "gias": "generator"}


def test_a_defended_track_is_compared_with_that_which_differs_in_nothing_else():
    pairs = defended([recorded(read(name)) for name in known("track")])
    assert ("noise:0.01", "cifar10-defended-noise", "cifar10-b1") in pairs
    assert ("sparsification:0.9", "cifar10-b4-sparse90", "cifar10-b4") in pairs
    assert not [track for _, track, _ in pairs if track == DEFAULT]
    assert len({track for _, track, _ in pairs}) == len(pairs)
    plain = read("cifar10-b1")
    unsaid = replace(plain, options={name: value for name, value in plain.options.items() if name != "defense"})
    found = [recorded(plain), recorded(unsaid)]
    assert defended(found) == [(Options.defense, "cifar10-b1", "cifar10-b1")]  # as a run on it would have


def test_the_readme_has_the_board_of_the_default_track(keep):
    for place, method in enumerate(("ig", "gi", "gias", "dlg")):
        keep(DEFAULT, method, 30.0 - 10 * place / 2)
    said = short(recorded(read(DEFAULT)))
    assert [said.count(f"| {method} |") for method in ("ig", "gi", "gias", "dlg")] == [1, 1, 1, 1]
    found = [said.count(f" {words} |") for words in (EXCLUDED, MAYBE)]
    assert found == [3, 0]  # the scores differ in their means alone
    assert "one can exclude 0 although the attack may be the best" in said
    assert [f"{method}.webp" in said for method in ("ig", "gi", "gias", "dlg")] == [True, False, False, False]
    keep(DEFAULT, "ig", 30.0, track_version=0)
    assert "| ig" not in (current := short(recorded(read(DEFAULT))))
    assert "ig.webp" not in current
    text = f"before\n{board.BEGIN}\nold\n{board.END}\nafter\n"
    assert with_board(text, said) == f"before\n{board.BEGIN}\n\n{said}\n{board.END}\nafter\n"
    with pytest.raises(ValueError, match="needs the lines"):
        with_board("no marks", said)


def test_untrained_networks_are_those_of_attacks_that_take_no_prior_and_build_one():
    """A row of such an attack says no prior; who adds one has to name it there."""

    def imports_priors(module):
        nodes = ast.walk(parsed(ROOT / f"{module.replace('.', '/')}.py"))
        return any(isinstance(node, ast.ImportFrom) and str(node.module).startswith("priors") for node in nodes)

    found = {name for name, each in known("attack").items() if imports_priors(each.module) and not kinds_of(name)}
    assert found == UNTRAINED.keys()


def test_every_name_that_is_judged_is_one_of_the_project():
    named = {name for claim in claims() for name in (claim.stronger, claim.weaker)} | UNTRAINED.keys()
    of_options = {
        name: option.partition("=")[0] for name, _, option in (each.partition(" ") for each in named) if option
    }
    assert {each.partition(" ")[0] for each in named} <= known("attack").keys()
    assert all(option in options_of(find("attack", name)) for name, option in of_options.items())
    assert {name for pair in board.COMPARED.values() for name in pair} <= known("track").keys()
