"""`python -m tests.gpu_check`: all that a fresh GPU machine can tell, in at most 8 minutes.

It runs the tests marked `gpu` (every attack, prior and kind of victim beside the CPU, repeats, processes, memory,
compiled steps), then one cell of a published table at its size, then the speed beside the loops of others. Each part is
a process with a time of its own; what has not ended by then is reported as far as it came. Packages that are not
installed are named, and what needs them is skipped. The exit code is 0 if all held, 1 if something did not, 3 if
something did not end in its time and all else held, and 2 if there is no GPU or a package that all needs.
`--device cpu --quick` tries this script itself, on any machine.
"""

import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.command import Parser
from tests.gpu_check.packages import WITHOUT, absent, told
from tests.gpu_check.report import Finding, read

if TYPE_CHECKING:
    from leaderboard.table import Table

ROOT = Path(__file__).parents[2]
WORDS = {True: "yes", False: "NO", None: "-"}
FEW = "on_the_cpu and (ig-factored or gias-plain) or bit and gifd or several or halved"


@dataclass(frozen=True)
class Part:
    """A process that writes findings, and is ended after so many seconds."""

    name: str
    arguments: Sequence[str]
    seconds: float
    file: Path


def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser(prog="gpu-check", description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_quick("a small version of every part, which shows nothing of a GPU")
    parser.add_argument("--data", type=Path, help="folder with cifar10/test; by default shared/data or ../shared/data")
    parser.add_argument(
        "--out", type=Path, default=Path("results/gpu-check"), help="folder of the JSON and of the logs"
    )
    given = parser.parse_args(arguments)
    lacking = absent()
    if needed := [package for package in lacking if package not in WITHOUT]:
        print(f"gpu-check: not installed and needed: {', '.join(needed)}; install them first.", file=sys.stderr)
        return 2
    import torch

    if given.device == "cuda" and not torch.cuda.is_available():
        print("gpu-check: torch finds no CUDA device; --device cpu --quick tries the script alone.", file=sys.stderr)
        return 2
    folders = [given.data] if given.data else [ROOT / "shared" / "data", ROOT.parent / "shared" / "data"]
    data = next((folder for folder in folders if folder.is_dir()), folders[-1])
    out = given.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    print(f"packages not installed: {told(lacking)}")
    tests, paper, speed = parts(out, data.resolve(), given.quick, "pytest-xdist" not in lacking)
    began = time.perf_counter()
    findings = [*about(given.device, lacking), *ended([tests, paper], given.device), *ended([speed], given.device)]
    seconds = time.perf_counter() - began
    (out / "gpu-check.json").write_text(json.dumps([asdict(finding) for finding in findings], indent=1))
    print("\n" + table(findings, seconds).text() + f"\njson     {out / 'gpu-check.json'}\nlogs     {out}")
    return exit_code(findings)


def parts(out: Path, data: Path, quick: bool, xdist: bool) -> list[Part]:
    """The tests and the published cell run at the same time; the speed is measured alone."""
    size = "quick" if quick else "whole"
    marked = sorted(
        str(p.relative_to(ROOT)) for p in (ROOT / "tests").rglob("test_*.py") if "mark.gpu" in p.read_text()
    )
    files = ["tests/gpu_check/test_on_gpu.py", "-k", FEW] if quick else marked
    parallel = ["-n", "4"] if xdist and not quick else []
    plugins = ["-p", "tests.gpu_check.missing", "-p", "no:hypothesispytest"]  # the latter fails without hypothesis
    pytest = ["pytest", "-q", *plugins, "-m", "gpu", *parallel, *files]
    file = {name: out / f"{name}.jsonl" for name in ("tests", "paper", "speed")}
    return [
        Part("tests", pytest, 210, file["tests"]),
        Part("paper", ["tests.gpu_check.paper", str(file["paper"]), size, str(data), "200"], 220, file["paper"]),
        Part("speed", ["tests.gpu_check.speed", str(file["speed"]), size, "200"], 210, file["speed"]),
    ]


def about(device: str, lacking: list[str]) -> list[Finding]:
    import torch

    name = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine()
    return [
        Finding(
            "machine", f"{name}, {os.cpu_count()} cores, Python {platform.python_version()}, torch {torch.__version__}"
        ),
        Finding("packages not installed", told(lacking)),
    ]


def ended(parts: Sequence[Part], device: str) -> list[Finding]:
    """What the parts, which run at the same time, have found when they or their times have ended."""
    began, running = time.perf_counter(), []
    for part in parts:
        part.file.unlink(missing_ok=True)
        code = "import sys; from runpy import run_module; from tests.gpu_check.missing import stand_in; stand_in(); "
        code += "sys.argv = sys.argv[1:]; run_module(sys.argv[0], run_name='__main__')"
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
        environment |= {"GPU_CHECK_LOG": str(part.file), "GPU_CHECK_DEVICE": device, "GIBENCH_OFFLINE": "1"}
        if device == "cpu":
            environment["CUDA_VISIBLE_DEVICES"] = ""
        log = part.file.with_suffix(".log").open("w")
        command = [sys.executable, "-c", code, *part.arguments]
        options = {"cwd": ROOT, "env": environment, "stdout": log, "stderr": log, "start_new_session": True}
        running.append((part, subprocess.Popen(command, **options)))
        print(f"{part.name}: at most {part.seconds:.0f} s, log {part.file.with_suffix('.log')}", flush=True)
    findings = []
    for part, process in running:
        try:
            code = process.wait(max(0, part.seconds - (time.perf_counter() - began)))
            how = [] if not code else [Finding(f"{part.name}: exit code", f"{code}; see its log", False)]
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            how = [Finding(f"{part.name}: time", f"did not end in {part.seconds:.0f} s", ended=False)]
        findings += [*(of_tests(part.file) if part.name == "tests" else read(part.file)), *how]
    return findings


def of_tests(file: Path) -> list[Finding]:
    """One finding for every test function, one for all that are skipped, and one for each that failed."""
    lines = file.read_text().split("\n")[:-1] if file.exists() else []
    tests = [json.loads(line) for line in lines]
    groups: dict[str, Counter[str]] = {}
    for test in tests:
        name = test["test"].rpartition("::")[2].partition("[")[0].removeprefix("test_").replace("_", " ")
        groups.setdefault(name, Counter())[test["outcome"]] += 1
    findings = [
        Finding(name, ", ".join(f"{n} {outcome}" for outcome, n in counts.items()), held(counts))
        for name, counts in groups.items()
    ]
    skipped = Counter(test["why"] for test in tests if test["outcome"] == "skipped")
    if skipped:
        findings.append(
            Finding("skipped", "; ".join(f"{n}: {why.removeprefix('Skipped: ')}" for why, n in skipped.items()))
        )
    failed = [test for test in tests if test["outcome"] == "failed"]
    return findings + [Finding(test["test"].rpartition("/")[2], test["why"][:160], False) for test in failed]


def held(counts: Mapping[str, int]) -> bool | None:
    return False if counts.get("failed") else True if counts.get("passed") else None


def exit_code(findings: Sequence[Finding]) -> int:
    if any(finding.held is False for finding in findings):
        return 1
    return 0 if all(finding.ended for finding in findings) else 3


def table(findings: Sequence[Finding], seconds: float) -> "Table":
    from leaderboard.table import Table

    columns = {
        "what": [finding.what for finding in findings],
        "held": [WORDS[finding.held] if finding.ended else "did not end" for finding in findings],
        "found": [finding.found for finding in findings],
    }
    failed = sum(finding.held is False for finding in findings)
    late = sum(not finding.ended for finding in findings)
    verdict = "All held." if not failed and not late else f"{failed} did not hold, {late} did not end."
    below = (
        "held: whether it is as it should be; - where nothing is expected. Times of steps are by the wall; 2x: takes "
        f"twice as long as ours. {verdict} {seconds:.0f} s."
    )
    return Table("What this machine says", columns, below)


if __name__ == "__main__":
    sys.exit(main())
