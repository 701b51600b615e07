"""Which code computes: the version and commit that rows and records say."""

import importlib.metadata
import shutil
import subprocess

from benchmark.names import ROOT
from victims.errors import InputError

CODE = ("attacks", "benchmark", "defenses", "leaderboard", "priors", "victims", "pyproject.toml")
COMPUTED = ("benchmark/tracks/tuned", "leaderboard/record")
"""What commands write between the code: a row says the tuned options themselves."""


def code_version() -> str:
    """The distribution's version, and the commit where this is a checkout; dirty where its code has changes."""
    version, commit = importlib.metadata.version("gibench"), git("describe", "--always", "--abbrev=10")
    return version + (f"+{commit}" if commit else "") + ("-dirty" if changed_code() else "")


def changed_code() -> list[str]:
    """Files of the code that are not as they were committed."""
    status = git(
        "status", "--porcelain", "--untracked-files=all", "--", *CODE, *(f":(exclude){path}" for path in COMPUTED)
    )
    return [line.split()[-1] for line in status.splitlines()]


def require_committed() -> None:
    """
    Raises:
        InputError: no commit names the code: it has changes, or there is no checkout that git can read.
    """
    if not git("rev-parse", "HEAD"):
        fix = f"install git, or let it read the folder: git config --global --add safe.directory {ROOT}"
        raise InputError(f"git names no commit of {ROOT}, and a record names that of its code; {fix}.")
    if changed := changed_code():
        more = f" and {len(changed) - 1} more" if changed[1:] else ""
        raise InputError(f"the checkout has changes ({changed[0]}{more}); commit them, for a record names its code.")


def git(*arguments: str) -> str:
    """What git says of the checkout; nothing where this is none, as installed: it would speak of any one around it."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        return ""
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
