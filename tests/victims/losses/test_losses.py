"""Every loss against torch's own or a derivation, and what every loss in the folder must do."""

import pytest
import torch
from torch import nn
from torch.func import jacrev
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, one_hot
from torchvision.ops import sigmoid_focal_loss

from attacks.engine.gradients import victim_gradients
from attacks.engine.probe import Probe, find_layers
from benchmark.check.loss import CONTRACTS
from benchmark.registry import open_loss, registered
from tests.attacks.labels.conftest import SHAPE, N, Small
from victims.client import fed_sgd
from victims.errors import InputError
from victims.losses.base import Own, check_loss
from victims.modules import build
from victims.victim import Victim

K = 10
EXAMPLES = [example for loss in registered("loss").values() for example in loss.examples]
every_loss = pytest.mark.parametrize("text", EXAMPLES)


def case(classes=K):
    """Logits (6, K), and labels with repeats."""
    draws = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(6, classes, generator=draws, dtype=torch.float64)
    return logits, torch.randint(classes, (6,), generator=draws)


def soft(labels, classes=K):
    """Each label mixed with the next image's, as by Mixup."""
    hot = one_hot(labels, classes).double()
    return 0.7 * hot + 0.3 * hot.roll(1, 0)


def same(loss, oracle, logits, targets):
    """Value, first and second derivative."""
    for times in (lambda f: f, jacrev, lambda f: jacrev(jacrev(f))):
        found, expected = (times(lambda z, f=f: f(z, targets))(logits) for f in (loss, oracle))
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_cross_entropy_and_label_smoothing_are_torchs():
    logits, labels = case()
    for targets in (labels, soft(labels)):
        same(open_loss("cross_entropy"), cross_entropy, logits, targets)
        oracle = nn.CrossEntropyLoss(label_smoothing=0.1)
        same(open_loss("label_smoothing:0.1"), oracle, logits, targets)


def test_class_weights_are_torchs_and_of_probabilities_the_weighted_mean():
    logits, labels = case()
    weights = torch.tensor([1, 2, 0.5, 1, 3, 1, 1, 1, 1, 4], dtype=torch.float64)
    loss = open_loss("class_weights:1,2,0.5,1,3,1,1,1,1,4").double()
    same(loss, nn.CrossEntropyLoss(weight=weights), logits, labels)
    t = soft(labels)
    total = sum(t[i, c] * weights[c] * -logits[i].log_softmax(0)[c] for i in range(6) for c in range(K))
    torch.testing.assert_close(loss(logits, t), total / sum(t[i] @ weights for i in range(6)))


def test_bce_is_torchs_on_one_hot_targets():
    logits, labels = case()
    oracle = lambda z, t: binary_cross_entropy_with_logits(z, one_hot(t, K).double())  # noqa: E731
    same(open_loss("bce"), oracle, logits, labels)
    same(open_loss("bce"), binary_cross_entropy_with_logits, logits, soft(labels))


def test_focal_of_two_classes_is_torchvisions_on_their_difference():
    logits, labels = case(classes=2)

    def oracle(z, targets):
        return sigmoid_focal_loss(z[:, 1] - z[:, 0], targets.double(), alpha=-1, gamma=1.5, reduction="mean")

    same(open_loss("focal:1.5"), oracle, logits, labels)


def test_focal_of_several_classes_as_derived():
    """-(1 - p)^gamma log p of the label; the derivative in logit i is f'(p) p ([i is the label] - p_i)."""
    logits, labels = case()
    p = (logits.exp() / logits.exp().sum(1, keepdim=True)).gather(1, labels[:, None]).squeeze(1)
    torch.testing.assert_close(open_loss("focal:2")(logits, labels), (-((1 - p) ** 2) * p.log()).mean())
    slope = 2 * (1 - p) * p.log() - (1 - p) ** 2 / p
    expected = (slope * p)[:, None] * (one_hot(labels, K) - logits.softmax(1)) / 6
    found = jacrev(lambda z: open_loss("focal:2")(z, labels))(logits)
    torch.testing.assert_close(found, expected)
    same(open_loss("focal:0"), cross_entropy, logits, soft(labels))


@pytest.mark.parametrize("gamma", [0.5, 2])
def test_focal_has_slopes_where_the_label_is_certain(gamma):
    logits = torch.zeros(1, 3).index_fill(1, torch.tensor([1]), 200.0)
    of = lambda z: open_loss(f"focal:{gamma}")(z, torch.tensor([1]))  # noqa: E731
    assert jacrev(of)(logits).isfinite().all()
    assert jacrev(jacrev(of))(logits).isfinite().all()


def test_one_logit_tells_odd_classes_from_even_ones():
    """log(1 + exp(-y u)) for the label y = +-1; a loss that compares classes has nothing to compare."""
    logits, labels = case(classes=1)[0], case()[1]
    y = 2.0 * (labels % 2) - 1
    expected = (-y * logits.squeeze(1)).exp().log1p().mean()
    for text in EXAMPLES:
        loss = open_loss(text)
        if text in ("cross_entropy", "bce"):
            torch.testing.assert_close(loss(logits, labels), expected)
            torch.testing.assert_close(loss(logits, one_hot(labels, K).double()), expected)
        else:
            with pytest.raises(InputError, match=r"1 logit|each of the 1"):
                check_loss(loss, logits, labels)


@every_loss
@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.__name__)
def test_every_loss(contract, text):
    contract(open_loss(text))


class Pairs(nn.Module):
    """A loss that mixes the images of a batch: the mean is weighted by how unlikely each label is."""

    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.tensor([2.0]))

    def forward(self, logits, labels):
        return (cross_entropy(logits, labels, reduction="none").square() * self.scale).mean().sqrt()


WEIGHTED = "class_weights:1,2,0.5,1,3,1,1"
OWN = {"module": Pairs(), "torch": nn.CrossEntropyLoss(weight=torch.arange(1.0, N + 1)), "function": cross_entropy}
LOSSES = {text: open_loss(text) for text in EXAMPLES if "weights" not in text} | {WEIGHTED: open_loss(WEIGHTED)}
LOSSES |= {name: Own(function) for name, function in OWN.items()}


@pytest.mark.parametrize("name", LOSSES)
def test_every_gradient_path_follows_the_loss_of_the_victim(name):
    """Plain, vectorized and factored, against a training step written out."""
    model, loss = build(Small, seed=0).double(), LOSSES[name]
    victim = Victim(model, mean=(0.0,), std=(1.0,), loss=loss).to("cpu", torch.float64)
    images = torch.rand(3, 4, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.tensor([[0, 1, 2, 6], [3, 3, 4, 0], [5, 6, 1, 1]])
    paths = {
        "plain": victim_gradients(victim, images, labels, vectorized=False),
        "vectorized": victim_gradients(victim, images, labels),
        "factored": find_layers(Probe(victim, SHAPE, 4)).gradient(images, labels),
    }
    for r in range(3):
        model.zero_grad()
        victim.criterion(model(images[r]), labels[r]).backward()
        for path, found in paths.items():
            for parameter, p in model.named_parameters():
                torch.testing.assert_close(found[parameter][r], p.grad, msg=f"{path} {parameter}")


def test_the_clients_update_is_the_gradient_of_its_loss_by_torch():
    model, loss = build(Small, seed=0).double(), nn.CrossEntropyLoss(torch.arange(1.0, N + 1).double())
    images, labels = torch.rand(4, *SHAPE, dtype=torch.float64), torch.tensor([0, 1, 2, 2])
    update = fed_sgd(Victim(model, mean=(0.0,), std=(1.0,), loss=Own(loss)), images, labels)
    loss(model(images), labels).backward()
    for name, p in model.named_parameters():
        torch.testing.assert_close(update[name], p.grad)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("label_smoothing:1", "0 up to but not including 1"),
        ("label_smoothing", "write label_smoothing:EPS"),
        ("focal:-1", "0 or more"),
        ("focal:nan", "finite"),
        ("class_weights:1,x", "numbers above 0"),
        ("class_weights:1,0", "numbers above 0"),
        ("cross_entropi", "did you mean 'cross_entropy'"),
        ("nowhere.loss", "cannot import"),
        ("math.pi", "no function"),
        ("bce:3", "does not fit"),
    ],
)
def test_what_is_no_loss_is_refused_in_one_line(text, why):
    with pytest.raises(InputError, match=why) as refusal:
        open_loss(text)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("loss", "why"),
    [
        (open_loss("class_weights:1,2"), "one for each of the 10 logits"),
        (Own(nn.CrossEntropyLoss(reduction="none")), r"gives \(6,\), no differentiable mean"),
        (Own(lambda z, y: float(z.detach().sum())), "gives float"),
        (Own(lambda z, y: (0 * z).sum()), "its gradient is zero"),
        (Own(nn.CrossEntropyLoss(torch.ones(3))), "RuntimeError"),
    ],
)
def test_a_loss_that_does_not_fit_the_victim_is_refused_in_one_line(loss, why):
    with pytest.raises(InputError, match=why) as refusal:
        check_loss(loss, *case())
    assert "\n" not in str(refusal.value)


def test_a_loss_by_dotted_path_is_a_function_or_a_class_that_makes_one():
    logits, labels = case()
    for path in ("torch.nn.functional.cross_entropy", "torch.nn.CrossEntropyLoss"):
        assert torch.equal(open_loss(path)(logits, labels), cross_entropy(logits, labels))


def test_a_loss_is_tried_on_the_models_own_logits_which_may_be_all_that_it_takes():
    """Of a model that ends in a sigmoid."""
    loss = Own(lambda z, y: nn.functional.binary_cross_entropy(z[:, 0], y.float()))
    logits, labels = torch.rand(6, 1, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 2
    check_loss(loss, logits, labels)
    with pytest.raises(InputError, match="between 0 and 1"):
        check_loss(loss, logits + 1, labels)


def test_where_a_margin_is_kept_a_loss_is_tried_on_drawn_logits():
    _, labels = case()
    kept = 99 * one_hot(labels, K).double()
    check_loss(Own(lambda z, y: (1 + z - z.gather(1, y[:, None])).relu().square().mean()), kept, labels)
    with pytest.raises(InputError, match="its gradient is zero"):
        check_loss(Own(lambda z, y: (0 * z).sum()), kept, labels)
