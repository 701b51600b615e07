import pytest
import yaml

GOOD = {
    "version": 1,
    "tasks": 1,
    "evaluations": 10,
    "tune": {"trials": 2, "tasks": 1},
    "priors": {"generator": "dcgan-photos32"},
    "options": {"batch": 1},
}


@pytest.fixture
def track(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(GOOD | {"options": {"batch": 1, "victim": "lenet"}}))
    return str(file)
