"""What tests of attacks share."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def _compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture
def compiled_folder(_compiled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is compiled in tests is kept for the tests of this session alone."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(_compiled))
