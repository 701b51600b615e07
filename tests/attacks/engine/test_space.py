import pytest

from attacks.engine.space import Between, check_space
from victims.errors import InputError

DEFAULT = {"eta": 1.0, "signed": True}


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({"etta": Between(0.1, 1.0)}, "'etta', which is no option"),
        ({"eta": (0.1, 2.0)}, "eta, by default 1.0; give values with it among them"),
        ({"eta": ()}, "with it among them"),
        ({"eta": Between(0, 2.0)}, "above 0 and around it"),
        ({"eta": Between(2.0, 3.0)}, "above 0 and around it"),
        ({"signed": Between(2.0, 3.0)}, "above 0 and around it"),
    ],
)
def test_a_space_that_cannot_be_searched_is_refused_in_a_line(space, said):
    with pytest.raises(InputError, match=said):
        check_space(space, DEFAULT)
