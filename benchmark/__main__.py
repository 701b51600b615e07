"""`python -m benchmark run|submit|reproduce|audit|labels|utility ...`, `... prior list|quality|train|learn ...`."""

import re
import signal
import sys
import warnings
from typing import get_args, get_type_hints

from jsonargparse import ArgumentError, ArgumentParser, Namespace
from pytorch_lightning.utilities.exceptions import SIGTERMException

from benchmark.audit.audit import audit
from benchmark.config import Config
from benchmark.labels import labels
from benchmark.launch.matrix import expanded, run_matrix
from benchmark.launch.strategy import Unfinished
from benchmark.launch.submit import Cluster, parted, submit
from benchmark.priors import commands as prior
from benchmark.recipes.reproduce import reproduce
from benchmark.run import run
from benchmark.utility import utility
from leaderboard.options import Options, abouts, defaults
from victims.errors import InputError, Notice

TABLES = {"audit": audit, "labels": labels, "utility": utility}
MATRIX = (
    "Several attacks or defenses with commas between them on the command line, or --adapt=both, are run one after "
    "another, every attack under every defense, and end with their matrix."
)
SUBMIT = "Takes all options of run besides these, and every cell of a matrix is a job."


def build_parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="python -m benchmark",
        description="How much of a client's private images can be rebuilt from the update it shares.",
        exit_on_error=False,
    )
    commands = parser.add_subcommands()
    run_parser = ArgumentParser(exit_on_error=False, description=f"{run.__doc__.splitlines()[0]} {MATRIX}")
    run_parser.add_argument("--config", action="config", help="options as YAML, such as a result's config.yaml")
    add_options(run_parser)
    commands.add_subcommand("run", run_parser, help="attack a number of private batches and score the result")
    submit_parser = ArgumentParser(exit_on_error=False, description=f"{submit.__doc__.splitlines()[0]} {SUBMIT}")
    submit_parser.add_class_arguments(Cluster)
    commands.add_subcommand("submit", submit_parser, help="runs as jobs of a cluster")
    summary = reproduce.__doc__.splitlines()[0]
    reproduce_parser = ArgumentParser(exit_on_error=False, description=summary)
    reproduce_parser.add_function_arguments(reproduce, as_positional=True)
    commands.add_subcommand("reproduce", reproduce_parser, help=summary)
    for name, command in TABLES.items():
        summary = command.__doc__.splitlines()[0]
        command_parser = ArgumentParser(exit_on_error=False, description=summary)
        command_parser.add_function_arguments(command)
        commands.add_subcommand(name, command_parser, help=summary)
    prior_parser = ArgumentParser(exit_on_error=False, description="Generators.")
    commands.add_subcommand("prior", prior_parser, help="generators")
    prior_commands = prior_parser.add_subcommands()
    for name, command in prior.COMMANDS.items():
        summary = command.__doc__.splitlines()[0]
        command_parser = ArgumentParser(exit_on_error=False, description=summary)
        command_parser.add_function_arguments(command, as_positional=True)
        prior_commands.add_subcommand(name, command_parser, help=summary)
    return parser


def add_options(parser: ArgumentParser) -> None:
    """The options of a run."""
    hints = get_type_hints(Options)
    for name, default in defaults().items():
        help = abouts()[name].help.replace("%", "%%")
        parser.add_argument(f"--{name}", type=hints[name], default=default, help=help)


def underscored(argument: str) -> str:
    """`--weights-dir=x` as well as `--weights_dir=x`."""
    name, equals, value = argument.partition("=")
    return name[:2] + name[2:].replace("-", "_") + equals + value if name.startswith("--") else argument


def config_of(options: Namespace) -> Config:
    """Of a run."""
    chosen = options.as_dict()
    chosen.pop("config", None)
    return Config(**chosen)


def explain(error: ArgumentError) -> str:
    """The parser's warning as one line."""
    text = " ".join(str(error).split())
    wrong_value = re.match(r'Parser key "(\w+)":.*(?:Given|Got) value: (.*)', text)
    kind = get_type_hints(Config).get(wrong_value[1]) if wrong_value else None
    if kind is None:
        return f"{text.rstrip('.')}; see --help."
    kinds = [str(getattr(k, "__name__", k)) for k in get_args(kind) or (kind,) if k is not type(None)]
    return f"{wrong_value[1]} takes {' or '.join(kinds)}, not '{wrong_value[2]}'."


def main(arguments: list[str] | None = None) -> int:
    """The exit code: 0, or one line and 2 for what the user can fix, 1 for what processes that died left undone.

    Of several runs see `run_matrix`, `reproduce`.
    """
    warnings.simplefilter("ignore")  # what libraries say to each other
    warnings.simplefilter("always", Notice)
    warnings.showwarning = lambda message, *_: print(f"benchmark: {message}", file=sys.stderr)
    try:
        given = [underscored(a) for a in arguments or sys.argv[1:]]
        parser = build_parser()
        if given[:1] == ["run"] and len(cells := expanded(given)) > 1:
            return run_matrix([(cell, config_of(parser.parse_args(cell).run)) for cell in cells])
        if given[:1] == ["submit"]:
            own, others = parted(given[1:])
            where = Cluster(**parser.parse_args(["submit", *own]).submit.as_dict())
            return submit(
                [(cell, config_of(parser.parse_args(cell).run)) for cell in expanded(["run", *others])], where
            )
        chosen = parser.parse_args(given)
        if chosen.subcommand == "run":
            run(config_of(chosen.run))
        elif chosen.subcommand == "reproduce":
            return reproduce(**chosen.reproduce.as_dict())
        elif chosen.subcommand in TABLES:
            TABLES[chosen.subcommand](**chosen[chosen.subcommand].as_dict())
        else:
            name = chosen.prior.subcommand
            prior.COMMANDS[name](**chosen.prior[name].as_dict())
    except InputError as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 2
    except ArgumentError as error:
        print(f"benchmark: {explain(error)}", file=sys.stderr)
        return 2
    except Unfinished as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 1
    except SIGTERMException:  # Lightning's; by itself it would end with 0, as if all were done
        return 128 + signal.SIGTERM
    return 0


if __name__ == "__main__":
    sys.exit(main())
