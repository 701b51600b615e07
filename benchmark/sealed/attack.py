"""Starts the process that attacks, or that computes costs, with nothing but its files."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmark.names import ROOT
from benchmark.sealed.confined import OBSERVATIONS, RECONSTRUCTIONS, RESULTS, Found
from benchmark.sealed.observations import line, load
from victims.errors import InputError

KEPT = ("PATH", "LANG", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
"""Of the environment."""

START = "import sys; sys.path.insert(0, sys.argv[1]); from benchmark.sealed.confined import start; start(*sys.argv[2:])"
"""Without the user's own folders: a `sitecustomize.py` there would run before the limits."""

DAY = 86400.0  # seconds


def confined(
    observations: Path,
    method: str,
    weights_dir: Path,
    reconstructions: Sequence[Found] | None = None,
    limit: float = DAY,
) -> dict[str, Any]:
    """What the process writes, with the `seconds` that it took, and the `limits` that held it.

    Args:
        reconstructions: whose costs are computed in place of an attack.
        limit: in seconds.

    Raises:
        InputError: it ended without a result; why.
    """
    with TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copyfile(observations, folder / OBSERVATIONS)
        if reconstructions is not None:
            torch.save({"tasks": list(reconstructions)}, folder / RECONSTRUCTIONS)
        own = map(os.path.abspath, sys.path)
        command = [sys.executable, "-I", "-c", START, str(ROOT), method, str(weights_dir.resolve()), *own]
        environment = {name: os.environ[name] for name in KEPT if name in os.environ}
        environment |= {"HOME": name, "TMPDIR": name, "GIBENCH_OFFLINE": "1"}
        started = time.perf_counter()
        pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "errors": "replace"}
        try:
            ended = subprocess.run(command, cwd=folder, env=environment, timeout=limit, check=False, **pipes)
        except subprocess.TimeoutExpired:
            raise InputError(f"the sealed attack by {method} took more than {limit:.0f} s and was ended.") from None
        seconds = time.perf_counter() - started
        if ended.returncode:
            said = ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"]
            raise InputError(f"the sealed attack by {method} ended without a result: {line(said[-1])}")
        content: Any = load(folder / RESULTS)
        tasks = content.get("tasks") if isinstance(content, dict) else None
        limits = ended.stdout.partition("\n")[0]  # the method cannot write the first line
        return {"tasks": tasks, "seconds": round(seconds, 1), "limits": limits}
