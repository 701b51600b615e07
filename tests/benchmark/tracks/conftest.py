import pytest
import yaml

from benchmark import code_version

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


@pytest.fixture(autouse=True, scope="module")
def _committed():
    """Tests run in a checkout that is being changed, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(code_version, "changed_code", list)
        yield
