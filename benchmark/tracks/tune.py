"""`python -m benchmark tune`: the options of an attack for a track, by the same rule for every attack."""

import contextlib
import io
import json
from collections.abc import Callable, Collection, Mapping
from operator import itemgetter
from pathlib import Path
from statistics import fmean
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.samplers import TPESampler
from optuna.trial import TrialState

from attacks.base import Attack
from attacks.engine.space import Between, Space, check_space
from benchmark.config import Config
from benchmark.contents import contents
from benchmark.device import reproducible
from benchmark.launch.lock import alone, writable
from benchmark.method_options import options_of
from benchmark.registry import find
from benchmark.run import run
from benchmark.run_options import with_options
from benchmark.sources import of_text
from benchmark.tracks.entry import Chosen, entry, first_observation, kinds, of_each, say_left_out, within_budget
from benchmark.tracks.missing import require
from benchmark.tracks.track import DEFAULT, METRIC, Track, Tuning, read
from benchmark.tracks.tuned import Tuned
from leaderboard.options import Options
from leaderboard.run_folder import TRIALS
from victims.errors import InputError
from victims.seeds import seed_of

RESTARTS = (1, 2, 4)
"""Independent starts that are tried; they share the budget."""


@with_options(also=("data_dir", "weights_dir", "compile"))
def tune(*, track: str = DEFAULT, attack: str, out: Path = Options.out, **options: Any) -> None:
    """Choose the options of an attack for a track, on images that are never scored.

    Every attack has as many trials, on as many batches and within the same budget. A search that was stopped goes on.

    Args:
        track: a name from `make list`, or a YAML file.
        attack: the method, or several with commas between them; `all` is every method that the track takes and that has
            options to tune.
        out: folder of results, where the trials are.
        options: of a run, see `Options`.

    Raises:
        InputError: images, weights or a GPU are missing, or a method that was named cannot be tuned on the track.
    """
    reproducible()
    wanted = read(track)
    require(wanted, kinds(attack), {**options, "split": "tune", "tasks": wanted.tune.tasks})

    def write(method: str) -> None:
        found = tuned(wanted, method, out / TRIALS, options)
        print(f"{method}: {METRIC} {found.score:.2f} on images for tuning, {found.default:.2f} by default")
        print(f"written  {found.write()}")

    say_left_out(of_each(attack, write)[1])


def tuned(track: Track, method: str, out: Path, options: Mapping[str, Any]) -> Tuned:
    """The best of a track's trials of an attack; of several that are alike, the first.

    Raises:
        InputError: the attack has nothing to tune, or cannot be run on the track.
    """
    attack: type[Attack] = find("attack", method)
    out /= track.path.stem
    if not attack.space:
        raise InputError(f"{method} has no options to tune; leave it out.")
    others = {"split": "tune", "tasks": track.tune.tasks, "out": out, "devices": 1, "group": "auto", "wandb": "off"}

    def chosen_run(chosen: Chosen) -> Config:
        return within_budget(entry(track, method, chosen, **options, **others), track, observation)

    def score(chosen: Chosen) -> float:
        config = chosen_run(chosen)
        with contextlib.redirect_stdout(io.StringIO()):
            rows = config.own_rows(run(config))
        return fmean(row[METRIC] for row in rows)

    plain = entry(track, method, {}, **options, **others)
    observation, own = first_observation(plain), plain.make_attack().restarts
    restarts = affordable(lambda count: chosen_run({"restarts": count}), {*RESTARTS, own})
    space = {**attack.space, "restarts": restarts}
    default = {n: o.default for n, o in options_of(attack).items() if n in space} | {"restarts": min(own, restarts[-1])}
    check_space(attack.space, default)
    made_of = ingredients(plain, track)
    with alone(writable(out), method):
        trials = search(out / f"{method}.db", made_of, space, default, score, track.tune)
    best, highest = max(trials, key=itemgetter(1))
    steps = chosen_run(best).steps
    return Tuned(
        track=track.name,
        rule=track.rule,
        method=method,
        options=best if steps is None else {**best, "steps": steps},
        score=highest,
        default=trials[0][1],
    )


def affordable(run: Callable[[int], object], restarts: Collection[int]) -> tuple[int, ...]:
    """Those numbers of restarts with which a run is possible within the budget, the fewest first.

    Raises:
        InputError: there is none; why the fewest restarts are refused.
    """
    possible: list[int] = []
    refusals: list[InputError] = []
    for count in sorted(restarts):
        try:
            run(count)
            possible.append(count)
        except InputError as error:
            refusals.append(error)
    if not possible:
        raise refusals[0]
    return tuple(possible)


def ingredients(config: Config, track: Track) -> str:
    """A digest of what decides scores beside the options that are tuned: the track, and all contents of the run."""
    data = config.make_data()
    batches = config.make_batches(data, config.tasks)
    found = contents(config, data, config.make_victim(data), config.make_attack(), batches)
    setting = {**config.identity(), "track": [track.version, track.evaluations]}  # however its file is named
    return of_text(json.dumps([setting, found], sort_keys=True))


def search(
    file: Path, made_of: str, space: Space, default: Chosen, score: Callable[[Chosen], float], tuning: Tuning
) -> list[tuple[Chosen, float]]:
    """All trials of a search for a high score: the options and their score, the default ones first.

    Args:
        file: of the trials; those of the same search are not repeated.
        made_of: what a score depends on beside the options.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=f"sqlite:///{file}",
        study_name=f"{seed_of(made_of, space, default, tuning):x}",
        direction="maximize",
        load_if_exists=True,
    )
    for left in study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
        study.tell(left.number, state=TrialState.FAIL)  # of a search that was stopped; samplers would count it
    if not complete(study) and not study.get_trials(deepcopy=False, states=[TrialState.WAITING]):
        study.enqueue_trial(dict(default))  # again, where the search was stopped in its first trial
    distributions = {name: distribution(values) for name, values in space.items()}
    while len(done := complete(study)) < tuning.trials:
        # A sampler for each trial: a search that goes on asks for what one that was never stopped would.
        study.sampler = TPESampler(seed=seed_of(tuning.seed, len(done)) % 2**32, n_startup_trials=tuning.trials // 3)
        trial = study.ask(distributions)
        value = score(trial.params)
        study.tell(trial, value)
        best = max([value, *(other for _, other in done)])
        print(f"trial {len(done) + 1} of {tuning.trials}: {value:.2f}, best {best:.2f}; {trial.params}", flush=True)
    return done


def complete(study: optuna.Study) -> list[tuple[Chosen, float]]:
    trials = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
    return [(trial.params, trial.values[0]) for trial in trials]


def distribution(values: Between | tuple[Any, ...]) -> BaseDistribution:
    if isinstance(values, Between):
        return FloatDistribution(values.low, values.high, log=True)
    return CategoricalDistribution(values)
