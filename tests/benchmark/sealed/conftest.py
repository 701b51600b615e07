import pytest
import yaml

from tests.benchmark.tracks.conftest import GOOD

TRACK = GOOD | {"tasks": 2, "options": {"batch": 1, "victim": "lenet", "defense": "none"}}


@pytest.fixture
def sealed_track(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(TRACK))
    return str(file)
