import numpy as np
import pytest
import torch

from attacks.engine import distances
from attacks.engine.distances import (
    Target,
    compress,
    cosine,
    layer_l2,
    layer_weights,
    local_cosine,
    squared_l2,
    tensor_choice,
)
from victims.errors import InputError

SHAPES = {"conv": (4, 3, 2, 2), "bias": (4,), "one": (1,)}
DISTANCES = [cosine, local_cosine, squared_l2, layer_l2]


@pytest.fixture
def gradients():
    generator = torch.Generator().manual_seed(0)
    return [{name: torch.randn(3, *shape, generator=generator) for name, shape in SHAPES.items()} for _ in range(2)]


@pytest.fixture
def weights():
    generator = torch.Generator().manual_seed(1)
    return {name: torch.rand(3, generator=generator) for name in SHAPES}


def arrays(gradient, run):
    return {name: g[run].numpy().ravel().astype(np.float64) for name, g in gradient.items()}


def flat(gradient, run):
    return np.concatenate(list(arrays(gradient, run).values()))


def plain(distance, g, target, w):
    """One run, in numpy, from the published formula."""
    names, norm = list(g), np.linalg.norm
    if distance is cosine:
        dot = sum(w[n] * (g[n] @ target[n]) for n in names)
        scale = sum(w[n] * norm(g[n]) ** 2 for n in names) * sum(w[n] * norm(target[n]) ** 2 for n in names)
        return 1 - dot / np.sqrt(scale)
    if distance is local_cosine:
        return sum(w[n] * (1 - (g[n] @ target[n]) / norm(g[n]) / norm(target[n])) for n in names)
    return sum(w[n] * norm(g[n] - target[n]) ** (2 if distance is squared_l2 else 1) for n in names)


@pytest.mark.parametrize("distance", DISTANCES)
def test_every_distance_is_its_formula_for_every_run(distance, gradients, weights):
    dummy, received = gradients
    ones = {name: torch.ones(3) for name in SHAPES}
    torch.testing.assert_close(distance(dummy, received), distance(dummy, received, ones))
    for given in (ones, weights):
        for run, cost in enumerate(distance(dummy, received, given)):
            w = {name: given[name][run].item() for name in SHAPES}
            expected = plain(distance, arrays(dummy, run), arrays(received, run), w)
            assert cost.item() == pytest.approx(expected, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("distance", DISTANCES)
def test_every_distance_is_zero_at_the_truth_and_without_slope(distance, gradients, weights):
    received = {name: g.double() for name, g in gradients[1].items()}
    dummy = {name: g.clone().requires_grad_() for name, g in received.items()}
    cost = distance(dummy, received, {name: w.double() for name, w in weights.items()})
    torch.testing.assert_close(cost, torch.zeros_like(cost), rtol=0, atol=1e-12)
    for gradient in torch.autograd.grad(cost.sum(), list(dummy.values())):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-12)


@pytest.mark.parametrize("distance", DISTANCES)
def test_a_tensor_without_weight_is_not_looked_at(distance, gradients):
    dummy, received = gradients
    weights = {name: torch.tensor(float(name != "bias")).expand(3) for name in SHAPES}
    without = [{name: g for name, g in gradient.items() if name != "bias"} for gradient in gradients]
    torch.testing.assert_close(distance(dummy, received, weights), distance(*without))


def test_cosine_is_one_cosine_over_all_tensors(gradients):
    dummy, received = gradients
    for run, cost in enumerate(cosine(dummy, received)):
        a, b = flat(dummy, run), flat(received, run)
        assert cost.item() == pytest.approx(1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-6)
    assert not np.allclose(cosine(dummy, received), local_cosine(dummy, received) / len(SHAPES), atol=1e-2)


@pytest.mark.parametrize("small", [0, 2, 5, 100], ids=["none", "the smallest", "two", "all"])
@pytest.mark.parametrize("alike", [False, True], ids=["a target for each", "one target"])
def test_tensors_that_are_joined_change_no_cosine(small, alike, gradients, monkeypatch):
    dummy, received = gradients
    if alike:
        received = {name: g[:1].expand_as(g) for name, g in received.items()}
    monkeypatch.setattr(distances, "SMALL", small)
    target = Target(received)
    for run, cost in enumerate(cosine(dummy, target)):
        ones = dict.fromkeys(SHAPES, 1.0)
        expected = plain(cosine, arrays(dummy, run), arrays(received, run), ones)
        assert cost.item() == pytest.approx(expected, rel=1e-5, abs=1e-6)
    part = {name: g for name, g in dummy.items() if name != "conv"}  # as PRECODE's estimate leaves tensors out
    torch.testing.assert_close(cosine(part, target), cosine(part, {name: received[name] for name in part}))


def test_cosine_does_not_see_scale(gradients):
    dummy, received = gradients
    scaled = {name: 7 * g for name, g in dummy.items()}
    torch.testing.assert_close(cosine(scaled, received), cosine(dummy, received))


def test_local_cosine_does_not_see_the_scale_of_any_tensor(gradients, weights):
    dummy, received = gradients
    scaled = {name: (2 + k) * g for k, (name, g) in enumerate(dummy.items())}
    torch.testing.assert_close(local_cosine(scaled, received, weights), local_cosine(dummy, received, weights))
    assert not torch.allclose(cosine(scaled, received), cosine(dummy, received), atol=1e-3)


def test_local_cosine_has_the_slope_of_inverting_gradients_code(gradients, weights):
    """Which sums 1 - w cos."""
    dummy = {name: g.clone().requires_grad_() for name, g in gradients[0].items()}
    theirs = sum(
        1 - weights[n] * torch.cosine_similarity(dummy[n].flatten(1), gradients[1][n].flatten(1), 1, 1e-10)
        for n in SHAPES
    )
    ours = local_cosine(dummy, gradients[1], weights)
    gradients = [torch.autograd.grad(cost.sum(), list(dummy.values())) for cost in (ours, theirs)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("distance", [cosine, local_cosine])
def test_a_zero_dummy_costs_most_of_no_direction_and_a_zero_target_is_nan(distance, gradients):
    dummy, received = gradients
    nothing = {name: torch.zeros_like(g).requires_grad_() for name, g in dummy.items()}
    cost = distance(nothing, received)
    assert cost.tolist() == [1 if distance is cosine else len(SHAPES)] * 3
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(cost.sum(), list(nothing.values())))
    assert torch.isnan(distance(dummy, nothing)).all()


def test_local_cosine_passes_over_a_tensor_that_arrived_as_zero(gradients, weights):
    dummy, received = gradients
    moving = {name: g.clone().requires_grad_() for name, g in dummy.items()}
    silent = {**received, "bias": received["bias"].clone()}
    silent["bias"][1] = 0
    cost, full = local_cosine(moving, silent, weights), local_cosine(dummy, received, weights)
    heard = {name: (dummy[name][1:2], received[name][1:2], weights[name][1:2]) for name in ("conv", "one")}
    rest = local_cosine(*({name: three[k] for name, three in heard.items()} for k in range(3)))
    torch.testing.assert_close(cost[1:2], rest)
    torch.testing.assert_close(cost[[0, 2]], full[[0, 2]])
    gradient = torch.autograd.grad(cost.sum(), moving["bias"])[0]
    assert (gradient[1] == 0).all()
    assert (gradient[[0, 2]] != 0).all()


def test_local_cosine_is_nan_where_all_that_counts_arrived_as_zero(gradients):
    dummy, received = gradients
    silent = {**received, "bias": torch.zeros_like(received["bias"])}
    only_bias = {name: torch.tensor(float(name == "bias")).expand(3) for name in SHAPES}
    assert torch.isnan(local_cosine(dummy, silent, only_bias)).all()
    broken = {**received, "bias": received["bias"] * torch.nan}
    assert torch.isnan(local_cosine(dummy, broken)).all()


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.5, 0.9, 0.999])
def test_compress_keeps_the_largest_of_every_tensor(rate, gradients):
    dummy, received = gradients
    mask = compress(received, rate)
    for gradient, masked in ((dummy, mask(dummy)), (received, mask(received))):
        for name, g in gradient.items():
            for run in range(3):
                target = received[name][run].numpy().ravel()
                keep = max(1, int(round(target.size * (1 - rate), 9)))
                kept = np.abs(target) >= np.sort(np.abs(target))[-keep]
                assert kept.sum() == keep
                np.testing.assert_array_equal(masked[name][run].numpy().ravel(), g[run].numpy().ravel() * kept)


def test_masked_cosine_is_the_cosine_of_what_is_kept(gradients):
    dummy, received = gradients
    mask = compress(received, 0.5)
    for run, cost in enumerate(cosine(mask(dummy), mask(received))):
        a, b = [], []
        for name in SHAPES:
            g, target = dummy[name][run].numpy().ravel(), received[name][run].numpy().ravel()
            index = np.argsort(-np.abs(target))[: max(1, target.size // 2)]
            a, b = np.append(a, g[index]), np.append(b, target[index])
        assert cost.item() == pytest.approx(1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-6)


@pytest.mark.parametrize(("rate", "kept"), [(0.9, 10), (0.29, 71), (0.71, 29), (0.995, 1), (0.0, 100)])
def test_ties_are_cut_at_the_count(rate, kept):
    """0.29 and 0.9 would be off by one in floating point."""
    level = {"w": torch.ones(2, 4, 25)}
    assert compress(level, rate)(level)["w"].sum((1, 2)).tolist() == [kept, kept]
    steps = {"w": torch.tensor([3.0, -2, 2, 2, 1] * 20).expand(2, 100)}
    masked = compress(steps, rate)(steps)["w"]
    expected = np.sort(np.abs(steps["w"][0].numpy()))[::-1][:kept].sum()
    assert masked.abs().sum(1).tolist() == [expected, expected]


@pytest.mark.parametrize(
    ("weighting", "expected"),
    [
        ("equal", [1, 1, 1, 1]),
        ("linear", [1, 0.75, 0.5, 0.25]),
        ("exp", [1, 0.36787944, 0.13533528, 0.04978707]),
    ],
)
def test_weights_fall_with_depth_as_in_inverting_gradients_code(weighting, expected):
    received = {name: torch.ones(2, 3) for name in "abcd"}
    for run in range(2):
        got = [w[run].item() for w in layer_weights(received, "all", weighting).values()]
        assert got == pytest.approx(expected)
    order = torch.arange(4, 0, -1).float()  # the code's own words
    theirs = {"equal": torch.ones(4), "linear": order / 4, "exp": order.softmax(0) / order.softmax(0)[0]}
    assert got == pytest.approx(theirs[weighting].tolist())


def test_tensors_are_chosen_for_every_run_and_keep_the_weight_of_their_place():
    sizes = torch.tensor([[1.0, 5, 3, 4], [9, 2, 8, 7]])  # target norms of two runs
    received = {name: torch.stack([sizes[:, k], torch.zeros(2)], 1) for k, name in enumerate("abcd")}

    def chosen(tensors, weighting="equal"):
        return torch.stack(list(layer_weights(received, tensors, weighting).values()), 1).tolist()

    assert chosen("top2") == [[0, 1, 0, 1], [1, 0, 1, 0]]
    assert chosen("top2", "linear") == [[0, 0.75, 0, 0.25], [1, 0, 0.5, 0]]
    assert chosen("first3", "linear") == [[1, 0.75, 0.5, 0]] * 2
    assert chosen("last1", "linear") == [[0, 0, 0, 0.25]] * 2
    for everything in ("all", "first4", "first50", "last4", "last50", "top4", "top50"):
        assert chosen(everything) == [[1] * 4] * 2


def test_weights_have_the_precision_of_what_arrived():
    received = {name: torch.ones(2, 3, dtype=torch.float64) for name in "abc"}
    weights = layer_weights(received, "top2", "exp")
    assert {w.dtype for w in weights.values()} == {torch.float64}
    assert layer_weights(received, "all", "exp")["b"][0].item() == pytest.approx(np.exp(-1), abs=1e-15)


@pytest.mark.parametrize("text", ["", "none", "top", "top0", "top-1", "top1.5", "10", "all3", "first 4", "middle3"])
def test_a_choice_that_is_none_is_refused_in_one_line(text):
    with pytest.raises(InputError, match="firstK") as refusal:
        tensor_choice(text)
    assert "\n" not in str(refusal.value)
    with pytest.raises(InputError, match="firstK"):
        layer_weights({"a": torch.ones(1, 1)}, text, "equal")


def test_a_weighting_that_is_none_is_refused_in_one_line():
    with pytest.raises(InputError, match="equal, linear, exp, not 'steep'"):
        layer_weights({"a": torch.ones(1, 1)}, "all", "steep")
