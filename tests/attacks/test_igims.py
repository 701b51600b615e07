"""IGIMS and IGIMS* against sums and a plain loop written from the paper."""

import pytest
import torch
from test_methods import TV, Plain, agree, minimize
from torch.distributions import Normal, kl_divergence
from torch.func import functional_call

from attacks.igims import IGIMS, IGIMSAdam
from victims.seeds import seed_of


@pytest.fixture
def observation(capture):
    return capture(dtype=torch.float64).observation


def variation(x):
    return (x[..., 1:] - x[..., :-1]).abs().mean() + (x[..., 1:, :] - x[..., :-1, :]).abs().mean()


def divergence(z):
    """Of the normal distribution of each image's latents from the standard one, summed."""
    return sum(kl_divergence(Normal(own.mean(), own.std(correction=0)), Normal(0.0, 1.0)) for own in z)


def moved(copies, w_0):
    """How far the parameters of each image are from those of the generator, summed."""
    return sum(torch.cat([(w[n] - p).flatten() for n, p in w_0.items()]).norm() for w in copies)


def test_the_penalties_are_the_sums_of_their_terms(small_prior):
    attack = IGIMS(tv=0.2, alpha_kl=0.3, lambda_w=0.4, prior=small_prior.double())
    generator = torch.Generator().manual_seed(0)
    x, z = (torch.randn(2, 3, *shape, generator=generator).double() for shape in ((3, 8, 8), (5,)))
    expected = [0.2 * variation(images) + 0.3 * divergence(latents) for images, latents in zip(x, z, strict=True)]
    torch.testing.assert_close(attack.penalty_z({"z": z}, x), torch.stack(expected))
    w_0 = {"a": torch.zeros(4).double(), "b": torch.ones(2, 2).double()}
    w = {name: torch.randn(2, 3, *p.shape, generator=generator).double() for name, p in w_0.items()}
    copies = [[{name: v[r, b] for name, v in w.items()} for b in range(3)] for r in range(2)]
    expected = [0.2 * variation(images) + 0.4 * moved(own, w_0) for images, own in zip(x, copies, strict=True)]
    torch.testing.assert_close(attack.penalty_w(w_0, w, x), torch.stack(expected))


def test_igims_adam(observation, small_prior):
    """Two rounds, of which the second has half the learning rates."""
    eta_z, eta_w, alpha_kl, lambda_w, M, N = 0.2, 3e-3, 1e-2, 1e-2, 12, 10
    plain, G = Plain(observation), small_prior.double()
    w_0 = {name: p.detach().clone() for name, p in G.named_parameters()}
    z = G.draw(3, torch.Generator().manual_seed(seed_of(0, "t", 0)))["z"].double()
    copies = [dict(w_0) for _ in range(3)]

    def objective():
        images = [functional_call(G, w, ({"z": z[b : b + 1]},)) for b, w in enumerate(copies)]
        return plain.objective((torch.cat(images) - plain.mean) / plain.std)

    def best(variables, penalty, lr, steps):
        """The variables of the least cost of a stage; they are searched where they are."""
        found = [torch.inf, None]

        def tracked():
            value = objective() + penalty()
            if plain.last < found[0]:
                found[:] = plain.last, [v.detach().clone() for v in variables]
            return value

        minimize([v.requires_grad_() for v in variables], tracked, lr, steps)
        return found[1]

    for rate in (1, 0.5):
        (z,) = best([z], lambda z=z: alpha_kl * divergence(z), eta_z * rate, M)
        copies = [{name: p.clone() for name, p in w.items()} for w in copies]
        parameters = [p for w in copies for p in w.values()]
        flat = best(parameters, lambda own=copies: lambda_w * moved(own, w_0), eta_w * rate, N)
        copies = [dict(zip(w_0, flat[b * len(w_0) :], strict=False)) for b in range(3)]
    options = {"rounds": 2, "steps_z": M, "steps_w": N, "eta_z": eta_z, "eta_w": eta_w, "tv": TV}
    attack = IGIMSAdam(prior=G, restarts=1, alpha_kl=alpha_kl, lambda_w=lambda_w, **options)
    agree(attack, plain, observation)
