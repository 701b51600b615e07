"""The last stage that refines an attack's result with a denoiser."""

import json
from pathlib import Path

import pytest
import torch

from attacks.dlg import DLG
from attacks.engine.schedules import multistep
from attacks.gias import GIAS
from attacks.gifd import GIFD
from attacks.ig import IG
from attacks.rgap import RGAP
from benchmark.config import Config
from benchmark.registry import registered
from benchmark.run import run
from leaderboard.board import entries
from leaderboard.options import defaults
from leaderboard.rows import read_rows
from leaderboard.settings import knowledge
from priors.base import Denoiser
from victims.errors import InputError


class Halfway(Denoiser):
    """Half the contrast, in tenths of sigma."""

    def forward(self, images, sigma):
        return images + sigma * (0.5 - images)


def test_a_quarter_of_the_steps_is_added_and_steps_stay_the_total(small_prior):
    assert GIAS(prior=small_prior, refine=Halfway()).plan == {"z": 300, "w": 300, "refine": 150}
    assert IG(refine=Halfway(), steps=7).plan == {"x": 5, "refine": 2}
    assert IG(steps=7).plan == {"x": 7}


@pytest.mark.parametrize("method", [m for m in registered("attack").values() if not m.analytic], ids=lambda m: m.name)
def test_every_attack_with_steps_can_be_refined(method, small_prior, small_denoiser):
    options = {"prior": small_denoiser if method.takes is Denoiser else small_prior} if "prior" in method.needs else {}
    plain, refined = method(**options), method(**options, refine=small_denoiser)
    assert refined.plan == {**plain.plan, "refine": sum(plain.plan.values()) // 4}


def test_it_goes_on_from_the_result_as_a_plain_loop_does(capture):
    observation = capture(dtype=torch.float64).observation
    victim, labels = observation.victim, observation.knowledge.labels[None]
    plain = IG(steps=5, restarts=1).run([observation])
    result = IG(refine=Halfway(), steps=7, restarts=1).run([observation])
    assert [stage for stage, _ in result.curve] == ["x"] * 5 + ["refine"] * 2

    x = plain.images.clone().requires_grad_()
    judge = IG(steps=1, restarts=1)
    judge.begin([observation])
    adam, costs = torch.optim.Adam([x], lr=0.03), []
    for step in range(2):
        last, cost = x.detach().clone(), judge.cost(x, labels)
        costs.append(cost.item())
        (x.grad,) = torch.autograd.grad(cost.sum(), x)
        adam.param_groups[0]["lr"] = 0.03 * multistep(step, 2)
        adam.step()
        with torch.no_grad():
            pixels = victim.denormalize(x).clamp(0, 1)
            sigma = 0.1 * 0.2 ** min(1, (step + 1) / (7 / 8 * 2))
            x.copy_(victim.normalize(pixels + 0.1 * sigma * (0.5 - pixels)))
    assert costs[0] == pytest.approx(plain.cost.item())
    assert [cost.item() for stage, cost in result.curve if stage == "refine"] == pytest.approx(costs)
    torch.testing.assert_close(result.images, last)  # the last judged, whatever it costs
    assert result.cost.item() == pytest.approx(costs[-1])


@pytest.mark.parametrize("method", [DLG, GIAS, GIFD])
def test_labels_and_decoded_images_of_any_attack_are_refined(method, capture, small_prior, small_denoiser):
    options = {"prior": small_prior} if "prior" in method.needs else {}
    observations = [capture().observation, capture((8, 30, 77), task="u").observation]
    refined = method(**options, steps=12, restarts=2, refine=small_denoiser)
    before = {stage: steps for stage, steps in refined.plan.items() if stage != "refine"}
    attack = method(**options, restarts=2)
    attack.plan = before
    plain, result = attack.run(observations), refined.run(observations)
    costs = [cost for stage, cost in result.curve if stage == "refine"]
    assert len(result.curve) == 12
    assert len(costs) == refined.plan["refine"]
    torch.testing.assert_close(costs[0], plain.cost, rtol=1e-4, atol=1e-6)
    assert torch.equal(result.labels, plain.labels) or method is DLG  # of another restart
    assert not torch.equal(result.images, plain.images)


def test_another_prior_and_a_closed_form_are_refused_in_one_line(small_prior, small_denoiser, capture):
    with pytest.raises(
        InputError, match="--refine takes a denoiser, not a generator; give another, such as denoiser-photos"
    ):
        IG(refine=small_prior)
    with pytest.raises(InputError, match="rgap has no steps to refine by; leave --refine out"):
        RGAP(refine=small_denoiser)
    small_denoiser.channels = 1
    with pytest.raises(InputError, match="denoiser takes images with 1 channels"):
        IG(refine=small_denoiser).begin([capture().observation])


@pytest.fixture
def weights(small_denoiser, tmp_path):
    path = tmp_path / "small.pth"
    torch.save(small_denoiser.state_dict(), path)
    return path


def rows_of(out: Path, **options):
    options = {"attack": "ig", "victim": "lenet", "batch": 1, "tasks": 1, "steps": 7, "restarts": 1, **options}
    folder = run(Config(**options, out=out, devices=1, wandb="off"))
    return folder, read_rows(folder.rows_file)[0]


def test_a_row_and_the_board_say_who_refined(tmp_path, weights):
    folder, rows = rows_of(tmp_path, refine=f"ffdnet:{weights}")
    assert rows[0]["refine"] == f"ffdnet:{weights}"
    assert rows[0]["refine_trained_on"] == "small"
    assert rows[0]["options"]["plan"] == {"x": 5, "refine": 2}
    (entry,) = entries(rows)
    assert f"refined by ffdnet:{weights} (trained on small)" in knowledge(entry)
    line = json.loads(folder.rows_file.read_text().splitlines()[0])
    del line["refine"], line["refine_trained_on"]
    (tmp_path / "old.jsonl").write_text(json.dumps(line))
    (old,), _ = read_rows(tmp_path / "old.jsonl")
    assert old["refine"] == defaults()["refine"] == "none"


def test_other_weights_of_the_same_name_make_another_run(tmp_path, weights):
    first, rows = rows_of(tmp_path, refine=f"ffdnet:{weights}")
    torch.save({name: 2 * tensor for name, tensor in torch.load(weights).items()}, weights)
    other, changed = rows_of(tmp_path, refine=f"ffdnet:{weights}")
    assert other.path.name == f"{first.path.name}-2"
    assert rows[0]["prior_digest"] != changed[0]["prior_digest"]


def test_an_unknown_denoiser_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(InputError, match="ffdnet"):
        rows_of(tmp_path, refine="ffdnett")
