import pytest
import yaml

TRACK = {
    "version": 1,
    "tasks": 2,
    "evaluations": 10,
    "tune": {"trials": 2, "tasks": 1},
    "priors": {"generator": "dcgan-photos32"},
    "options": {"batch": 1, "victim": "lenet", "defense": "none"},
}


@pytest.fixture
def sealed_track(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(TRACK))
    return str(file)
