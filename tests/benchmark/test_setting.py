import pytest
import torch

from benchmark.registry import open_defense
from benchmark.setting import Setting
from defenses.base import Chain
from defenses.sparsification import Sparsification
from victims.errors import InputError


def test_defenses_by_name_and_parameter():
    assert open_defense("none") is None
    defense = Setting(defense="sparsification:0.25").make_defense()
    assert isinstance(defense, Sparsification)
    assert defense.rate == 0.25
    for wrong in ("sparsification", "sparsification:", "sparsification:much", "sparsification:0.5:0.5", "none:3"):
        with pytest.raises(InputError):
            open_defense(wrong)


def test_several_defenses_come_in_their_order():
    chain = open_defense("sparsification:0.25+sparsification:0.5")
    assert isinstance(chain, Chain)
    assert [part.rate for part in chain.parts] == [0.25, 0.5]
    with pytest.raises(InputError, match="no"):
        open_defense("sparsification:0.25+none")


def test_weights_of_the_victim_are_not_taken_for_the_folder_of_weights(tmp_path):
    (tmp_path / "net.pt").write_bytes(b"")
    with pytest.raises(InputError, match="--victim-weights"):
        Setting(weights_dir=tmp_path / "net.pt")


def test_the_victim_depends_on_the_seed_alone():
    data = Setting().make_data()
    first, again, other = (Setting(victim="lenet", seed=seed).make_victim(data) for seed in (0, 0, 1))
    torch.rand(3)
    for name, parameter in first.parameters.items():
        assert torch.equal(parameter, again.parameters[name])
        assert not torch.equal(parameter, other.parameters[name])
