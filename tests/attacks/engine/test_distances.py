from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from attacks.engine import distances, inner_products
from attacks.engine.distances import (
    Target,
    chosen_tensors,
    compress,
    cosine,
    layer_l2,
    mean_squared_l2,
    squared_l2,
    tensor_choice,
)
from attacks.ig import IG
from victims.errors import InputError

SHAPES = {"conv": (4, 3, 2, 2), "bias": (4,), "one": (1,)}
DISTANCES = [cosine, squared_l2, layer_l2]


@pytest.fixture
def gradients():
    generator = torch.Generator().manual_seed(0)
    return [{name: torch.randn(3, *shape, generator=generator) for name, shape in SHAPES.items()} for _ in range(2)]


@pytest.fixture
def weights():
    generator = torch.Generator().manual_seed(1)
    return {name: torch.rand(3, generator=generator) for name in SHAPES}


def arrays(gradient, instance):
    return {name: g[instance].numpy().ravel().astype(np.float64) for name, g in gradient.items()}


def flat(gradient, instance):
    return np.concatenate(list(arrays(gradient, instance).values()))


def plain(distance, g, target, w):
    """One instance, in numpy, from the published formula."""
    names, norm = list(g), np.linalg.norm
    if distance is cosine:
        dot = sum(w[n] * (g[n] @ target[n]) for n in names)
        scale = sum(w[n] * norm(g[n]) ** 2 for n in names) * sum(w[n] * norm(target[n]) ** 2 for n in names)
        return 1 - dot / np.sqrt(scale)
    return sum(w[n] * norm(g[n] - target[n]) ** (2 if distance is squared_l2 else 1) for n in names)


@pytest.mark.parametrize("distance", DISTANCES)
def test_every_distance_is_its_formula_for_every_run(distance, gradients, weights):
    dummy, received = gradients
    ones = {name: torch.ones(3) for name in SHAPES}
    torch.testing.assert_close(distance(dummy, received), distance(dummy, received, ones))
    for given in (ones, weights):
        for instance, cost in enumerate(distance(dummy, received, given)):
            w = {name: given[name][instance].item() for name in SHAPES}
            expected = plain(distance, arrays(dummy, instance), arrays(received, instance), w)
            assert cost.item() == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_mean_squared_l2_is_the_mean_over_tensors(gradients):
    dummy, received = gradients
    for instance, cost in enumerate(mean_squared_l2(dummy, received)):
        g, target = arrays(dummy, instance), arrays(received, instance)
        assert cost.item() == pytest.approx(np.mean([np.sum((g[n] - target[n]) ** 2) for n in SHAPES]), rel=1e-5)


@pytest.mark.parametrize("distance", DISTANCES)
def test_every_distance_and_its_gradient_are_zero_at_the_truth(distance, gradients, weights):
    received = {name: g.double() for name, g in gradients[1].items()}
    dummy = {name: g.clone().requires_grad_() for name, g in received.items()}
    cost = distance(dummy, received, {name: w.double() for name, w in weights.items()})
    torch.testing.assert_close(cost, torch.zeros_like(cost), rtol=0, atol=1e-12)
    for gradient in torch.autograd.grad(cost.sum(), list(dummy.values())):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-12)


@pytest.mark.parametrize("distance", DISTANCES)
def test_a_tensor_of_weight_zero_is_ignored(distance, gradients):
    dummy, received = gradients
    weights = {name: torch.tensor(float(name != "bias")).expand(3) for name in SHAPES}
    without = [{name: g for name, g in gradient.items() if name != "bias"} for gradient in gradients]
    torch.testing.assert_close(distance(dummy, received, weights), distance(*without))


def test_cosine_is_one_cosine_over_all_tensors(gradients):
    dummy, received = gradients
    for instance, cost in enumerate(cosine(dummy, received)):
        a, b = flat(dummy, instance), flat(received, instance)
        assert cost.item() == pytest.approx(1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-6)


@pytest.mark.parametrize("small", [0, 2, 5, 100], ids=["none", "the smallest", "two", "all"])
@pytest.mark.parametrize("alike", [False, True], ids=["a target for each", "one target"])
def test_joining_tensors_changes_no_cosine(small, alike, gradients, monkeypatch):
    dummy, received = gradients
    if alike:
        received = {name: g[:1].expand_as(g) for name, g in received.items()}
    monkeypatch.setattr(inner_products, "SMALL", small)
    target = Target(received)
    for instance, cost in enumerate(cosine(dummy, target)):
        ones = dict.fromkeys(SHAPES, 1.0)
        expected = plain(cosine, arrays(dummy, instance), arrays(received, instance), ones)
        assert cost.item() == pytest.approx(expected, rel=1e-5, abs=1e-6)
    part = {name: g for name, g in dummy.items() if name != "conv"}  # as PRECODE's estimate leaves tensors out
    torch.testing.assert_close(cosine(part, target), cosine(part, {name: received[name] for name in part}))


@pytest.mark.parametrize("distance", DISTANCES)
def test_tensors_are_matched_by_name_in_whatever_order_they_come(distance, gradients):
    dummy, received = gradients
    turned = dict(reversed(dummy.items()))
    torch.testing.assert_close(distance(turned, received), distance(dummy, received))


def test_cosine_is_independent_of_scale(gradients):
    dummy, received = gradients
    scaled = {name: 7 * g for name, g in dummy.items()}
    torch.testing.assert_close(cosine(scaled, received), cosine(dummy, received))


def test_a_zero_dummy_has_no_direction_and_a_zero_target_is_nan(gradients):
    dummy, received = gradients
    nothing = {name: torch.zeros_like(g).requires_grad_() for name, g in dummy.items()}
    cost = cosine(nothing, received)
    assert cost.tolist() == [1] * 3
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(cost.sum(), list(nothing.values())))
    assert torch.isnan(cosine(dummy, nothing)).all()


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.5, 0.9, 0.999])
def test_compress_keeps_the_largest_of_every_tensor(rate, gradients):
    dummy, received = gradients
    mask = compress(received, rate)
    for gradient, masked in ((dummy, mask(dummy)), (received, mask(received))):
        for name, g in gradient.items():
            for instance in range(3):
                target = received[name][instance].numpy().ravel()
                keep = max(1, int(round(target.size * (1 - rate), 9)))
                kept = np.abs(target) >= np.sort(np.abs(target))[-keep]
                assert kept.sum() == keep
                np.testing.assert_array_equal(
                    masked[name][instance].numpy().ravel(), g[instance].numpy().ravel() * kept
                )


def test_masked_cosine_is_the_cosine_of_the_kept_entries(gradients):
    dummy, received = gradients
    mask = compress(received, 0.5)
    for instance, cost in enumerate(cosine(mask(dummy), mask(received))):
        a, b = [], []
        for name in SHAPES:
            g, target = dummy[name][instance].numpy().ravel(), received[name][instance].numpy().ravel()
            index = np.argsort(-np.abs(target))[: max(1, target.size // 2)]
            a, b = np.append(a, g[index]), np.append(b, target[index])
        assert cost.item() == pytest.approx(1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-6)


@pytest.mark.parametrize(("rate", "kept"), [(0.9, 10), (0.29, 71), (0.71, 29), (0.995, 1), (0.0, 100)])
def test_ties_are_cut_at_the_count(rate, kept):
    """In floating point 0.29 and 0.9 would be off by one."""
    level = {"w": torch.ones(2, 4, 25)}
    assert compress(level, rate)(level)["w"].sum((1, 2)).tolist() == [kept, kept]
    steps = {"w": torch.tensor([3.0, -2, 2, 2, 1] * 20).expand(2, 100)}
    masked = compress(steps, rate)(steps)["w"]
    expected = np.sort(np.abs(steps["w"][0].numpy()))[::-1][:kept].sum()
    assert masked.abs().sum(1).tolist() == [expected, expected]


@pytest.mark.parametrize("cost", ["cosine", "squared_l2"])
@pytest.mark.parametrize("scale", [1, 1e25])
def test_ig_chooses_entries_and_tensors_once_of_gradients_of_every_size(cost, scale, gradients, monkeypatch):
    dummy, received = ({name: scale * g for name, g in gradient.items()} for gradient in gradients)
    attack, target = IG(cost=cost, compress=0.5, tensors="top2"), Target(received)
    first = attack.distance(dummy, target)
    assert first.isfinite().all()
    monkeypatch.setattr(distances, "compress", None)
    monkeypatch.setattr(distances, "norms_of", None)
    step = make_fx(lambda g: attack.distance({**dummy, "conv": g}, target))(dummy["conv"])  # as it is compiled
    assert torch.equal(step(dummy["conv"]), first)


def test_tensors_are_chosen_for_every_instance():
    sizes = torch.tensor([[1.0, 5, 3, 4], [9, 2, 8, 7]])  # target norms of two instances
    received = {name: torch.stack([sizes[:, k], torch.zeros(2)], 1) for k, name in enumerate("abcd")}

    def chosen(tensors):
        return torch.stack(list(chosen_tensors(received, received, tensors).values()), 1).tolist()

    assert chosen("top2") == [[0, 1, 0, 1], [1, 0, 1, 0]]
    assert chosen("first3") == [[1, 1, 1, 0]] * 2
    assert chosen("last1") == [[0, 0, 0, 1]] * 2
    assert chosen_tensors(received, received, "all") is None  # a distance then has no weights
    for everything in ("first4", "first50", "last4", "last50", "top4", "top50"):
        assert chosen(everything) == [[1] * 4] * 2


def test_tensors_that_an_adaptive_attacker_leaves_out_are_neither_chosen_nor_counted(gradients):
    dummy, received = gradients
    one, *left, last = dummy
    assert left
    fewer = {name: dummy[name] for name in (last, one)}
    for tensors, name in (("first1", one), ("last1", last)):
        assert [n for n, w in chosen_tensors(fewer, received, tensors).items() if w.all()] == [name]
    assert all(w.all() for w in chosen_tensors(fewer, received, "top2").values())
    only = {name: received[name] for name in fewer}
    torch.testing.assert_close(mean_squared_l2(fewer, received), mean_squared_l2(fewer, only))


def test_a_choice_forms_no_factored_gradient(gradients):
    class Unformed(Mapping):
        def __getitem__(self, name):
            raise AssertionError(f"{name} is formed")

        def __iter__(self):
            return iter(received)

        def __len__(self):
            return len(received)

    received = gradients[1]
    assert chosen_tensors(Unformed(), received, "top1").keys() == received.keys()


def test_weights_have_the_precision_of_the_update():
    received = {name: torch.ones(2, 3, dtype=torch.float64) for name in "abc"}
    for tensors in ("top2", "first2"):
        assert {w.dtype for w in chosen_tensors(received, received, tensors).values()} == {torch.float64}


@pytest.mark.parametrize("text", ["", "none", "top", "top0", "top-1", "top1.5", "10", "all3", "first 4", "middle3"])
def test_an_invalid_choice_is_refused_in_one_line(text):
    with pytest.raises(InputError, match="firstK") as refusal:
        tensor_choice(text)
    assert "\n" not in str(refusal.value)
    with pytest.raises(InputError, match="firstK"):
        chosen_tensors({}, {"a": torch.ones(1, 1)}, text)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_tiny_and_huge_gradients_keep_a_finite_distance(distance, scale, gradients, weights):
    """The dummy is of ordinary size, as at a wrong guess of the scale, or as tiny or huge as the received one."""
    dummy, received = gradients
    extreme = Target({name: g * scale for name, g in received.items()})
    alike = {name: g * scale for name, g in dummy.items()}
    for given in (None, weights):
        for ours in (dummy, alike):
            leaf = {name: g.clone().requires_grad_() for name, g in ours.items()}
            cost = distance(leaf, extreme, given)
            grads = torch.autograd.grad(cost.sum(), list(leaf.values()))
            assert cost.isfinite().all()
            assert all(g.isfinite().all() for g in grads)
            if distance is cosine:
                torch.testing.assert_close(cost.detach(), distance(dummy, received, given))
                assert any(g.abs().max() > 0 for g in grads)


def test_a_power_of_two_changes_no_digit_of_a_cosine(gradients):
    dummy, received = gradients
    expected = cosine(dummy, received)
    for exponent in (-80, -20, 20, 80):
        assert torch.equal(cosine(dummy, {n: g * 2.0**exponent for n, g in received.items()}), expected)


def test_the_largest_tensors_are_chosen_at_every_scale(gradients):
    received = gradients[1]
    expected = chosen_tensors(received, received, "top1")
    for scale in (1e-30, 1e30):
        found = chosen_tensors(received, Target({name: g * scale for name, g in received.items()}), "top1")
        assert all(torch.equal(found[name], expected[name]) for name in expected)
