"""The base of every attack: its options, what it must know, and what its `search` is written with.

A method is a `LightningModule` that says, in `search`, which variables are optimized and how they become images. One
run of it on a group of tasks is a `Session`, which takes the steps and keeps the best. Every tensor of a search has the
leading dimension R, its *instances*: tasks times restarts.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, TypedDict, cast

import torch
from pytorch_lightning import LightningModule
from torch import Tensor

from attacks.engine.author import SEARCH, Checked, check_declared, check_known, checked_plan, opened
from attacks.engine.compiled import Compiler
from attacks.engine.distances import cosine
from attacks.engine.gradients import GradientPaths
from attacks.engine.plug_and_play import refinement
from attacks.engine.preset import Preset
from attacks.engine.probe import find_paths
from attacks.engine.regularizers import statistics_distance
from attacks.engine.requirements import check_refinement, check_requirements, kind_of, warn_of_average, warn_of_rounding
from attacks.engine.session import Session
from attacks.engine.space import Space
from attacks.engine.stage import Reconstruction, Search, Variables, share_out
from attacks.labels import find, infer
from priors.base import Denoiser, Generator, Prior, check_decoded, shrink
from victims.choices import Compile, Match
from victims.contract import Broken, line_of
from victims.errors import InputError
from victims.observation import Observation
from victims.ranges import above_zero, at_least
from victims.seeds import seed_of
from victims.victim import Gradient, Victim

LabelSource = Literal["given", "inferred", "joint"]
"""Where the labels of the dummy batch come from: the observation, the update, or a search together with the images."""

Start = Literal["drawn", "gaussian"]
"""How a search of latents starts, see `Attack.latents`."""

INNER = 5  # steps of a session in a training step of Lightning, which adds up to 1/8 of a step's time on small nets


class Common(TypedDict, total=False):
    """Options that every attack takes."""

    prior: Prior | None
    refine: Denoiser | None
    restarts: int
    steps: int | None
    seed: int
    chunk: int | None
    label_method: str | None
    match: Match
    compile: Compile
    compile_s: float


class Attack(Checked, LightningModule):
    """Gradient matching, to be subclassed by methods.

    Class attributes:
        name: on the command line; a class that declares none has its dotted path.
        needs: what the attack must be given: any of `labels`, `prior`.
        takes: the kind of prior that it needs, if it needs one.
        default_prior: shipped weights of that kind, which a run takes if it names none; empty where there are none.
        uses: what it can use if it is given: `bn`, the batch-norm statistics.
        labels: see `LabelSource`.
        made_for: options of a run outside of which the method is not defined, such as `{"batch": 1}`.
        analytic: solved layer by layer and judged once: it has no steps to choose.
        space: constructor options that are tuned on a track, and within which bounds; starts are tuned too.
        presets: named sets of constructor options, such as `paper` and `code`; a `Preset` says where it stands.
    """

    name: ClassVar[str]
    needs: ClassVar[frozenset[str]] = frozenset()
    takes: ClassVar[type[Prior]] = Generator
    default_prior: ClassVar[str] = "dcgan-photos32"
    uses: ClassVar[frozenset[str]] = frozenset()
    labels: ClassVar[LabelSource] = "given"
    made_for: ClassVar[Mapping[str, Any]] = {}
    analytic: ClassVar[bool] = False
    space: ClassVar[Space] = {}
    presets: ClassVar[Mapping[str, Preset]] = {}

    prior: Generator  # None in attacks that need none, and never read there
    session: Session
    paths: GradientPaths | None = None  # kept from one session to the next, see `GradientPaths.are_for`
    tasks: int = 1  # of the whole run, whose sessions share what is compiled

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "name" not in vars(cls):
            cls.name = f"{cls.__module__}.{cls.__name__}"

    def __init__(
        self,
        plan: Mapping[str, int] | None = None,
        *,
        prior: Prior | None = None,
        refine: Denoiser | None = None,
        restarts: int = 2,
        steps: int | None = None,
        seed: int = 0,
        chunk: int | None = None,
        label_method: str | None = None,
        match: Match = "aga",
        compile: Compile = "auto",
        compile_s: float = 300.0,
    ) -> None:
        """
        Args:
            plan: the method's stages in order, with their steps; every method gives it.
            prior: for attacks that need one.
            refine: adds a last stage, `refine`, with a quarter as many steps as all others together, which takes the
                result to images that this denoiser finds more natural, see `attacks.engine.plug_and_play.refinement`.
            restarts: independent starts per task.
            steps: in total; the plan's stages keep their proportions.
            seed: of the starting points.
            chunk: how many dummy batches are evaluated at once, see `Objective`.
            label_method: of `attacks.labels`, which reads the labels from the update for an attack that needs them.
            match: how an update after local training is matched, see `victims.choices.Match`.
            compile: which stages are compiled, see `victims.choices.Compile`.
            compile_s: seconds after which compiling is given up.

        Raises:
            InputError: no plan, a count below 1, an option of another type, fewer steps than stages, steps for a closed
                form, no prior of its kind for an attack that needs one, an unknown label method, a label method
                for an attack that finds labels by itself, or a refinement by no denoiser or of a closed form.
        """
        super().__init__()
        self.automatic_optimization = False
        check_declared(self)
        plan = checked_plan(self, plan)
        at_least(1, restarts=restarts, steps=steps, chunk=chunk, **plan)
        if self.analytic and steps is not None:
            raise InputError(f"{self.name} has no steps to choose; leave --steps out.")
        if "prior" in self.needs and prior is None:
            raise InputError(f"{self.name} needs a {self.takes.kind}; give one with --prior.")
        if prior is not None and not isinstance(prior, self.takes):
            fix = f"leave --prior out, or choose another than this {kind_of(prior)}"
            raise InputError(f"{self.name} takes a prior of the kind {self.takes.kind}; {fix}.")
        if label_method is not None:
            find(label_method)  # refuses an unknown one
            if "labels" not in self.needs:
                raise InputError(f"{self.name} finds labels by itself; leave --labels given.")
        self.label_method, self.match, self.compiling = label_method, match, compile
        above_zero(compile_s=compile_s)
        self.compile_s = compile_s
        if refine is not None:
            check_refinement(self, refine)
        self.refine = refine
        self.plan = self.planned(plan, steps)
        self.prior, self.restarts, self.seed, self.chunk = cast(Generator, prior), restarts, seed, chunk

    def planned(self, plan: Mapping[str, int], steps: int | None) -> dict[str, int]:
        """The stages in order with their steps, with the refinement if there is one."""
        if self.refine is not None:
            plan = {**plan, "refine": max(1, sum(plan.values()) // 4)}
        return dict(plan) if steps is None else share_out(plan, steps)

    # What a method defines.

    def search(self) -> Search:
        """Yield the stages in order; each `yield` returns its stage's best variables and its `fixed`, (R, ...) each."""
        fix = "write a method search(self) that yields each Stage"
        raise Broken(SEARCH, f"{type(self).__name__} has no search; {fix}", line_of(type(self)))

    def stages(self) -> Search:
        """The stages of `search`, and then the refinement, if there is one."""
        yield from opened(self)
        if self.refine is not None:
            yield refinement(self.session, self.refine)

    def distance(self, dummy: Gradient, received: Gradient) -> Tensor:
        """The matching cost, (R,); by default one cosine over all tensors."""
        return cosine(dummy, received)

    def check(self, observation: Observation) -> None:
        """Refuse an observation that this attack cannot work on.

        Raises:
            InputError: see `check_requirements`.
        """
        check_requirements(self, observation)

    # What a `search` is written with.

    @property
    def observations(self) -> Sequence[Observation]:
        """One per task of the session."""
        return self.session.observations

    @property
    def victim(self) -> Victim:
        return self.observations[0].victim

    @property
    def batch_size(self) -> int:
        return self.observations[0].batch_size

    @property
    def instances(self) -> int:
        """R: tasks times the restarts that are still searched."""
        return self.session.instances

    @property
    def of_instances(self) -> list[Observation]:
        """The observation of every instance."""
        return [o for o in self.observations for _ in range(self.session.restarts)]

    def seeds(self, *salt: object) -> list[int]:
        """One per instance; it depends only on seed, task, restart and salt, not on device or grouping."""
        restarts = range(self.session.restarts)
        return [seed_of(self.seed, o.task, restart, *salt) for o in self.observations for restart in restarts]

    def draw(
        self, sample: Callable[[torch.Generator], Tensor], *salt: object, device: torch.device | str = "cpu"
    ) -> Tensor:
        """One draw per instance, (R, ...), from its seed; `device` is that of the generator."""
        draws = [sample(torch.Generator(device).manual_seed(seed)) for seed in self.seeds(*salt)]
        return torch.stack(draws).to(self.victim.mean)

    def per_instance(self, tensors: Sequence[Tensor]) -> Tensor:
        """One tensor per task, (...) each -> the tensor of its task for every instance, (R, ...).

        Raises:
            Broken: one is None, as labels are that the attacker is not given.
        """
        check_known(self, tensors)
        return torch.stack(list(tensors)).repeat_interleave(self.session.restarts, 0)

    def normal(self, shape: Sequence[int], *salt: object) -> Tensor:
        """Standard normal numbers, (R, *shape)."""
        return self.draw(lambda generator: torch.randn(*shape, generator=generator), *salt)

    def normal_of_step(self, shape: Sequence[int], *salt: object) -> Tensor:
        """Standard normal numbers that a step adds, (R, *shape).

        They are drawn on the victim's device, for a copy from the CPU would keep every step waiting: a GPU draws other
        numbers than a CPU from the same seed. Starting points are drawn on the CPU, and are the same everywhere.
        """
        device = self.victim.mean.device
        return self.draw(lambda g: torch.randn(*shape, generator=g, device=device), *salt, device=device)

    def noise(self) -> Tensor:
        """Standard normal images, (R, B, C, H, W)."""
        return self.normal((self.batch_size, *self.observations[0].image_shape))

    def latents(self, start: Start = "drawn") -> dict[str, Tensor]:
        """The prior's input, (R, B, ...) each, with the labels y if it takes them.

        Args:
            start: `drawn` from the prior's own distribution; `gaussian`, see `Prior.draw_gaussian`.
        """
        draw = self.prior.draw_gaussian if start == "gaussian" else self.prior.draw
        draws = [draw(self.batch_size, torch.Generator().manual_seed(seed)) for seed in self.seeds()]
        state = {name: torch.stack([draw[name] for draw in draws]).to(self.victim.mean) for name in draws[0]}
        if self.prior.classes:
            given = [o.knowledge.labels for o in self.observations]
            state["y"] = self.per_instance([labels for labels in given if labels is not None])
        return state

    def images(self, decoded: Tensor) -> Tensor:
        """A prior's images (R, B, C, H, W) in [0, 1] as the victim takes them: area-resized, normalized."""
        check_decoded(self.prior, decoded)
        return self.victim.normalize(shrink(decoded, self.observations[0].image_shape[-1]))

    def box(self, images: Tensor) -> None:
        """Clamp normalized images, in place, to the range of pixels in [0, 1]."""
        torch.clamp(images, self.victim.normalize(0), self.victim.normalize(1), out=images)

    def bn(self, v: Variables, x: Tensor, first: float = 1.0) -> Tensor:
        """Distance of the images' batch-norm statistics to the given ones, which are in v; (R,), zero if none are."""
        known = {name.removeprefix("bn "): s for name, s in v.items() if name.startswith("bn ")}
        return statistics_distance(self.session.paths.statistics(x), known, first) if known else x.new_zeros(len(x))

    # A run.

    def prepare(self, observation: Observation) -> Observation:
        """The observation as the attack uses it: checked, with the labels that its label method reads.

        Finds and tries the gradient paths, unless those of the observation before are for this one too.

        Raises:
            InputError: as `check`, the label method and `find_paths`.
        """
        if self.label_method is not None:
            observation = infer(observation, self.label_method)
        self.check(observation)
        local = observation.knowledge.local
        repeated, own_weights = local if self.match == "fa" else None, self.match == "sme" and local is not None
        if self.paths is None or not self.paths.are_for(observation.victim, repeated, own_weights):
            if self.match != "fa":
                warn_of_average(local, self.match)
            self.paths = find_paths(
                observation, repeated, Compiler(self.compiling, self.compile_s), own_weights, self.labels == "joint"
            )
            if not self.analytic:
                warn_of_rounding(self.distance, observation)
        return observation

    def begin(self, observations: Sequence[Observation]) -> None:
        """Set up a session on tasks of equal shape on one victim, ready for the first step.

        Raises:
            InputError: as `prepare`.
        """
        observations = [self.prepare(observation) for observation in observations]
        assert self.paths is not None, "prepare sets them"
        self.session = Session(self, observations, self.paths)
        self.session.start()

    def advance(self) -> None:
        """One step of the session."""
        self.session.advance()

    def result(self) -> Reconstruction:
        """What the session found."""
        return self.session.result()

    def cost(self, images: Tensor, labels: Tensor) -> Tensor:
        """The matching cost on the session's tasks, (R,); differentiable. With `match="sme"`, at the current weights.

        Args:
            images: (R, B, C, H, W), normalized.
            labels: classes (R, B) or probabilities (R, B, K).
        """
        return self.session.objective().cost(images, labels, self.session.alpha)

    def run(self, observations: Sequence[Observation]) -> Reconstruction:
        """The whole attack without a Trainer."""
        self.begin(observations)
        for _ in range(sum(self.plan.values())):
            self.advance()
        return self.result()

    def training_step(self, observations: Sequence[Observation], batch_idx: int) -> None:
        """Lightning's hook: `INNER` steps; the first call of an epoch begins the session."""
        if batch_idx == 0:
            self.begin(observations)
        for _ in range(min(INNER, sum(self.plan.values()) - batch_idx * INNER)):
            self.advance()

    def configure_optimizers(self) -> None:
        """Each stage makes its own: what is optimized is no parameter of this module."""
