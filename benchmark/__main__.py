"""`python -m benchmark run ...` and `python -m benchmark prior train ...`."""

import re
import sys
import warnings
from pathlib import Path
from typing import get_args, get_type_hints

from jsonargparse import ArgumentError, ArgumentParser

from benchmark.config import Config, open_data
from benchmark.run import run
from priors.train import train
from victims.errors import InputError, Notice


def train_prior(
    out: Path,
    *,
    data: str = "photos",
    size: int = 32,
    data_dir: Path = Path("data"),
    steps: int = 8_000,
    seed: int = 0,
) -> None:
    """Train a DCGAN on a data set's train split; the same command goes on where it was stopped.

    Args:
        out: the .safetensors file to write; a record (.json) and a grid of samples (.png) go beside it.
        data: the data set.
        size: side of the images in pixels.
        data_dir: the folder that holds the data set's own, for data sets that come as files.
        steps: rounds of generator against discriminator, on batches of 64.
        seed: of weights, latents and images.
    """
    if out.suffix != ".safetensors":
        raise InputError(f"prior train writes a .safetensors file, not {out}.")
    images = open_data(data, "train", size, data_dir)
    command = f"python -m benchmark prior train {out.name} --data {data} --size {size} --steps {steps} --seed {seed}"
    print(train(images, out, steps=steps, seed=seed, trained_on=f"{data} train, {size} px", command=command))


def build_parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="python -m benchmark",
        description="How much of a client's private images can be rebuilt from the update it shares.",
        exit_on_error=False,
    )
    commands = parser.add_subcommands()
    run_parser = ArgumentParser(exit_on_error=False, description=run.__doc__.splitlines()[0])
    run_parser.add_argument("--config", action="config", help="options as YAML, such as a result's config.yaml")
    run_parser.add_class_arguments(Config)
    commands.add_subcommand("run", run_parser, help="attack a number of private batches and score the result")
    prior_parser = ArgumentParser(exit_on_error=False, description="Generators.")
    commands.add_subcommand("prior", prior_parser, help="generators")
    prior_commands = prior_parser.add_subcommands()
    train_parser = ArgumentParser(exit_on_error=False, description=train_prior.__doc__.splitlines()[0])
    train_parser.add_function_arguments(train_prior, as_positional=True)
    prior_commands.add_subcommand("train", train_parser, help="train a DCGAN on a data set's train split")
    return parser


def underscored(argument: str) -> str:
    """`--weights-dir=x` as well as `--weights_dir=x`."""
    name, equals, value = argument.partition("=")
    return name[:2] + name[2:].replace("-", "_") + equals + value if name.startswith("--") else argument


def explain(error: ArgumentError) -> str:
    """The parser's complaint as one line."""
    text = " ".join(str(error).split())
    wrong_value = re.match(r'Parser key "(\w+)":.*(?:Given|Got) value: (.*)', text)
    kind = get_type_hints(Config).get(wrong_value[1]) if wrong_value else None
    if kind is None:
        return f"{text.rstrip('.')}; see --help."
    kinds = [str(getattr(k, "__name__", k)) for k in get_args(kind) or (kind,) if k is not type(None)]
    return f"{wrong_value[1]} takes {' or '.join(kinds)}, not '{wrong_value[2]}'."


def main(arguments: list[str] | None = None) -> int:
    """0, or 2 with one line on what the user can mend."""
    warnings.simplefilter("ignore")  # what libraries say to each other
    warnings.simplefilter("always", Notice)
    warnings.showwarning = lambda message, *_: print(f"benchmark: {message}", file=sys.stderr)
    try:
        chosen = build_parser().parse_args([underscored(a) for a in arguments or sys.argv[1:]])
        if chosen.subcommand == "run":
            options = chosen.run.as_dict()
            options.pop("config", None)
            run(Config(**options))
        else:
            train_prior(**chosen.prior.train.as_dict())
    except InputError as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 2
    except ArgumentError as error:
        print(f"benchmark: {explain(error)}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
