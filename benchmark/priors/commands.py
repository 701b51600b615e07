"""`python -m benchmark prior`: list priors, measure the quality of generators, train a generator or a denoiser."""

import json
from pathlib import Path

from benchmark.device import best_device
from benchmark.launch.lock import alone, writable
from benchmark.priors.quality import LEAST, NET, Features, distance, features, photographs, samples
from benchmark.priors.recorded import command, folders
from benchmark.registry import open_data
from benchmark.scoring.lpips import Lpips
from benchmark.setting import not_too_large
from leaderboard.options import Options
from leaderboard.table import Table
from priors import names, weights
from priors.base import Generator
from priors.by_name import find
from priors.train import train as train_dcgan
from priors.train_denoiser import train as train_ffdnet
from victims.errors import InputError
from victims.ranges import at_least


def list_priors(*, weights_dir: Path = Path("weights")) -> None:
    """List the generators, denoisers and inverters that have names, and say where missing files are available."""
    kinds = {name: architecture.kind for name, architecture in names.architectures().items()}
    rows = []
    for name in names.shipped():
        path = names.SHIPPED / f"{name}.safetensors"
        prior, record = weights.load(path), json.loads(path.with_suffix(".json").read_text())
        size = getattr(prior, "image_shape", ("any",))[-1]
        rows.append((name, record["prior"], size, prior.trained_on, "this suite's", "shipped"))
    for name, entry in names.published().items():
        path = entry.path(weights_dir)
        where = str(path) if path.is_file() else f"missing: {path.name}, from {entry.source}"
        rows.append((name, entry.architecture, entry.size or "any", entry.trained_on, entry.license, where))
    headings = ("prior", "architecture", "px", "trained on", "license", "weights")
    columns = {heading: [str(row[i]) for row in rows] for i, heading in enumerate(headings)}
    columns = {"kind": [kinds[row[1]] for row in rows], **columns}
    below = (
        f"Put a missing file into {weights_dir / 'priors'}, a denoiser's into {weights_dir / 'denoisers'}. Without "
        f"weights: ARCHITECTURE or ARCHITECTURE:SIZE of {', '.join(names.architectures())}."
    )
    print(Table("", columns, below).text(), end="")


def quality(
    prior: str,
    *,
    data: str = Options.data,
    split: str = Options.split,
    data_dir: Path = Options.data_dir,
    weights_dir: Path = Options.weights_dir,
    count: int = 2_000,
    seed: int = Options.seed,
) -> None:
    """Measure how close a generator's images are to a held-out split of a data set: KID and FID.

    Args:
        prior: the generator, as in `run --prior`.
        split: the images that the generator's are compared with.
        count: images drawn from the generator.
        seed: of its latents, and of its weights where it is untrained.
    """
    not_too_large(seed=seed)
    if count < LEAST:
        raise InputError(f"count is {count}; draw {LEAST} or more.")
    lpips = Lpips.find(weights_dir)
    if not lpips.available:
        raise InputError(f"prior quality needs the LPIPS backbone: {lpips.reason}; to get its weights: {lpips.fix}")
    device = best_device()
    generator, net = find(prior, weights_dir, size=32, seed=seed).to(device), Features(lpips.features).to(device)
    if not isinstance(generator, Generator):
        raise InputError(f"{prior} is a {generator.kind}, which makes no images; give a generator.")
    other = "test" if split == "tune" else "tune"
    real, scale = (open_data(data, name, generator.image_shape[-1], data_dir) for name in (split, other))
    if min(len(real), len(scale)) < LEAST:
        raise InputError(f"{data} has {len(real)} {split} and {len(scale)} {other} images; {LEAST} are needed.")
    reference = features(net, photographs(real), len(real), f"{data} {split}")
    sets = {
        prior: features(net, samples(generator, count, seed), count, prior),
        f"{data} {other} (real)": features(net, photographs(scale), len(scale), f"{data} {other}"),
    }
    distances = [distance(reference, images) for images in sets.values()]
    columns = {
        "images": [*sets],
        "n": [str(len(images)) for images in sets.values()],
        "KID x 1000": [f"{1000 * d.kid:.2f} ± {1000 * d.kid_std:.2f}" for d in distances],
        "FID": [f"{d.fid:.2f}" for d in distances],
    }
    above = f"Distance to {len(real)} images of {data} {split}. Features: {NET}."
    below = "Lower is closer. Not comparable with numbers on Inception features; FID also falls as n grows."
    print(Table(above, columns, below).text(), end="")


def train(
    out: Path,
    *,
    data: str = Options.data,
    size: int = Options.size,
    data_dir: Path = Options.data_dir,
    conditional: bool = False,
    steps: int = 8_000,
    seed: int = Options.seed,
) -> None:
    """Train a DCGAN on a data set's train split; the same command resumes a training that was stopped.

    Args:
        out: the .safetensors file to write; a record (.json) and a grid of samples (.png) are written beside it.
        conditional: whether the generator is given the class.
        steps: rounds of generator against discriminator, on batches of 64.
        seed: of weights, latents and images.
    """
    weights.check_name(out, "prior train")
    at_least(1, steps=steps)
    not_too_large(seed=seed)
    images = open_data(data, "train", size, data_dir)
    words = {"data": data, "size": size, "steps": steps, "seed": seed} | (
        {"conditional": "true"} if conditional else {}
    )
    about = {"trained_on": f"{data} train, {size} px", "command": command("train", out, words) + folders(data_dir)}
    with alone(writable(out.parent), out.name):
        print(train_dcgan(images, out, conditional=conditional, steps=steps, seed=seed, **about))


def train_denoiser(
    out: Path,
    *,
    data: str = Options.data,
    size: int = Options.size,
    data_dir: Path = Options.data_dir,
    steps: int = 4_000,
    seed: int = Options.seed,
) -> None:
    """Train a small FFDNet on a data set's train split; the same command resumes a training that was stopped.

    Args:
        out: the .safetensors file to write; a record (.json) and a picture (.png) are written beside it.
        steps: of Adam, on batches of 16.
        seed: of weights, images and noise.
    """
    weights.check_name(out, "prior train-denoiser")
    at_least(1, steps=steps)
    not_too_large(seed=seed)
    images = open_data(data, "train", size, data_dir)
    words = {"data": data, "size": size, "steps": steps, "seed": seed}
    written = command("train-denoiser", out, words) + folders(data_dir)
    about = {"trained_on": f"{data} train, {size} px", "command": written}
    with alone(writable(out.parent), out.name):
        print(train_ffdnet(images, out, steps=steps, seed=seed, **about))
