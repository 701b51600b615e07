"""GI-NAS against a plain loop, and its rules."""

import copy

import pytest
import torch
from torch.nn.functional import cosine_similarity, cross_entropy

from attacks.gi_nas import GINAS
from priors.skip_unets import draw_unet
from victims.errors import InputError
from victims.seeds import seed_of

WIDTH, STEPS = 16, 8


@pytest.mark.parametrize(("signed", "rounds"), [(True, 2), (True, 0), (False, 2)])
def test_is_a_search_without_training_and_then_adam(signed, rounds, capture):
    observation = capture(rate=None, dtype=torch.float64).observation
    victim, received = observation.victim, torch.cat([g.flatten() for g in observation.update.values()])
    model = copy.deepcopy(victim.model).requires_grad_(True)
    z = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(seed_of(0, "t", 0))).double()

    def judge(G):
        x = (G(z) - victim.mean) / victim.std
        loss = cross_entropy(model(x), observation.knowledge.labels)
        g = torch.cat([t.flatten() for t in torch.autograd.grad(loss, list(model.parameters()), create_graph=True)])
        return 1 - cosine_similarity(g, received, dim=0), x.detach().clone()

    seed = seed_of(0, "t", 0, "w")
    networks = [draw_unet(channels=3, width=WIDTH, seed=seed_of(seed, n)).double() for n in range(max(1, 3 * rounds))]
    costs = [judge(G)[0].item() for G in networks]
    G = networks[costs.index(min(costs))]
    adam, best, image = torch.optim.Adam(G.parameters(), lr=1e-3), torch.inf, None
    for _ in range(STEPS):
        cost, x = judge(G)
        if cost.item() < best:
            best, image = cost.item(), x
        adam.zero_grad()
        cost.backward(inputs=list(G.parameters()))
        if signed:
            for parameter in G.parameters():
                parameter.grad = parameter.grad.sign() if parameter.grad is not None else None
        adam.step()
    options = {"steps_g": rounds, "population": 3, "eta": 1e-3, "signed": signed, "width": WIDTH}
    result = GINAS(steps_w=STEPS, restarts=1, **options).run([observation])
    searched = [cost.item() for stage, cost in result.curve if stage == "g"]
    assert searched == pytest.approx([min(costs[3 * k : 3 * k + 3]) for k in range(rounds)], rel=1e-6)
    assert result.cost.item() == pytest.approx(best, rel=1e-5)
    torch.testing.assert_close(result.images[0], image, rtol=1e-4, atol=1e-4)
    assert result.gradient_evaluations == 3 * rounds + STEPS


def test_goes_on_from_the_network_of_least_cost_of_all_rounds(capture):
    observation = capture().observation
    attack = GINAS(steps_g=4, population=2, steps_w=1, restarts=2, width=WIDTH)
    result = attack.run([observation])
    *searched, (_, start) = result.curve
    torch.testing.assert_close(start, torch.stack([cost for _, cost in searched]).amin(0), rtol=1e-4, atol=1e-6)


def test_is_compiled_only_if_asked_for():
    """Every network would be compiled for one instance."""
    assert GINAS().compiling == GINAS(compile="auto").compiling == "off"
    assert GINAS(compile="on").compiling == "on"


@pytest.mark.parametrize(
    ("options", "said"),
    [({"width": 24}, "width is 24"), ({"population": 1}, "population is 1"), ({"steps_g": -1}, "steps_g is -1")],
)
def test_refuses_options_that_mean_nothing(options, said):
    with pytest.raises(InputError, match=said) as refusal:
        GINAS(**options)
    assert "\n" not in str(refusal.value)


def test_refuses_what_its_networks_cannot_make(capture):
    for observation, cure in ((capture(size=24).observation, "--size"), (capture((0,)).observation, "--batch 2")):
        with pytest.raises(InputError, match=cure) as refusal:
            GINAS(width=WIDTH).begin([observation])
        assert "\n" not in str(refusal.value)
