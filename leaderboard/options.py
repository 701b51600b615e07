"""Every option of a run, once: its type, default, help and role.

The command line, the variables of `make`, the keys of a row, the settings and columns of the board, the command that
repeats a run and `docs/options.md` all derive from the fields of `Options`. To add an option, add a field here and use
it where the run needs it.
"""

from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple

from victims.choices import Amp, Compile, Group, Level, Match, Mode, Resize

Role = Literal["method", "setting", "knowledge", "execution"]
"""What an option decides: how the attack works, what it is run against, what the attacker knows, how it is computed."""

Control = Literal["none", "mean_image", "shuffled_update"]


class About(NamedTuple):
    """What else is known of an option.

    Attributes:
        role: see `Role`.
        help: a sentence or two; Markdown.
        rows: keys of a row that hold it, its own value first; none where a row does not say it.
        alias: another name on the command line, by which `make` knows it.
        of_images: it decides which images are attacked, and at what size.
        changes_rows: rows can depend on it; a run with another value is another run.
        repeated: the command that repeats a run says it, where it is not the default.
    """

    role: Role
    help: str
    rows: tuple[str, ...]
    alias: str | None
    of_images: bool
    changes_rows: bool
    repeated: bool


def option(
    default: Any,
    role: Role,
    help: str,
    *,
    rows: tuple[str, ...] | None = None,
    alias: str | None = None,
    of_images: bool = False,
    changes_rows: bool = True,
    repeated: bool = True,
) -> Any:
    """A field of `Options`; a row holds it under its own name unless `rows` says otherwise."""
    about = About(role, help, rows or (), alias, of_images, changes_rows, repeated)
    metadata = {"about": about, "own": rows is None}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of a run. Names may be dotted paths to classes of your own.

    Their order is that of the columns of the board.
    """

    attack: str = option(
        "gias",
        "method",
        "The method. Several, with commas between them, are run one after another.",
        rows=("attack", "attack_digest"),
        alias="method",
    )
    preset: str = option(
        "auto",
        "method",
        "The options of the method. `auto`: those that `make tune` found for it on the track (without a track, on "
        "`photos-default`), or where it was not tuned there, its own defaults; a row says which, `tuned` or `default`. "
        "`default`: its own, few steps, for two CPU cores. Or a preset of the method such as `paper` and `code`: the "
        "method's options as published, and as its authors ran it. A preset leaves the setting as it is.",
    )
    track: str = option(
        "",
        "method",
        "A track: a fixed setting on which methods are compared with the same budget. It fills in data, victim, "
        "defense, tasks and what the attacker knows; options that are given with it take precedence. A run without "
        "options has the setting of `photos-default`. Other presets than `tuned` take their own steps: rows over the "
        "budget, or in another setting, do not say the track.",
    )
    control: Control = option(
        "none",
        "method",
        "`mean_image` scores the mean training image as if it were a reconstruction. `shuffled_update` shows the "
        "attack an update of *other* images with the same labels: what prior and labels alone give.",
    )

    data: str = option(
        "photos",
        "setting",
        "The data set. `photos`: crops of the ten color photographs inside scikit-image and scikit-learn, class = "
        "photograph. From files: `cifar10`, `cifar100`, `tiny_imagenet`, `imagenet`, `ffhq` (class = decade of the "
        "age), `pacs` or `pacs:DOMAIN`, `pacs_imagenet:DOMAIN` (with labels of ImageNet), `folder:PATH` "
        "(`PATH/<class>/*` or `PATH/<split>/<class>/*`).",
        rows=("data", "data_digest"),
        of_images=True,
    )
    split: str = option(
        "test",
        "setting",
        "Whose images are attacked: `test` is scored, settings are chosen on `tune`, priors are trained on `train`. "
        "The splits share no pixel.",
        of_images=True,
    )
    size: int = option(32, "setting", "Side of the images in pixels.", of_images=True)
    resize: Resize = option(
        "shorter",
        "setting",
        "How images from files get this size: the shorter side is resampled to it (bicubic) and the center is cut "
        "out; or as in the code of a paper: `gias` (9/8 of it, then the center), `gifd`, `ggl`.",
        of_images=True,
    )
    channels: int | None = option(
        None,
        "setting",
        "`1`: images in shades of gray, for models with one input channel; `3`: gray images as color. Default: as the "
        "data set has them; those from files, and `photos`, are color. Generators must have as many.",
        of_images=True,
    )
    victim: str = option(
        "convnet",
        "setting",
        "The model: a name from `make list`, any classifier as `torchvision:NAME` (7x7 stem) or `timm:NAME`. "
        "The residual nets and `densenet121` have forms for small images (3x3 stem). R-GAP's `fcn3`, `cnn6`, `cnn6_d` "
        "and `cnn10` (and its code's `fcn3_leaky`) have one logit, which tells odd classes from even ones. "
        "`fcn:WIDTHS` is fully connected with ReLU, with hidden layers of these widths: `fcn:400x400`.",
        rows=("victim", "victim_digest"),
        of_images=True,  # a mean image stands on the board beside the attacks on a victim
    )
    victim_weights: str = option(
        "random",
        "setting",
        "`random`; `calibrated`: random, with batch-norm running statistics of training images; or a file of trained "
        "weights (.th, .pt, .pth, .safetensors), as a path or below `WEIGHTS`. A row has its name and the start of "
        "its SHA-256.",
    )
    epochs_trained: str = option(
        "0",
        "setting",
        "Training of the victim on the `train` split before it is attacked, from its `VICTIM_WEIGHTS`: epochs such as "
        "`3` or `0.5`, or steps such as `1000steps` (SGD with learning rate 0.01 and momentum 0.9, batches of 64, half "
        "of the images mirrored, the run's loss). It is done once, and the weights are kept in `OUT/victims/`.",
    )
    victim_mode: Mode = option(
        "eval",
        "setting",
        "Whether the client computes its update in eval or in train mode, or with every layer in the mode in which the "
        "model has it (`as_is`). In train mode, batch norm that the model's own `train()` leaves frozen stays frozen.",
        alias="mode",
    )
    loss: str = option(
        "cross_entropy",
        "setting",
        "The client's loss, which the attacker knows: `cross_entropy`, `label_smoothing:EPS`, "
        "`class_weights:W1,W2,...` (one for each class), `bce` (every class by itself), `focal:GAMMA`, or a dotted "
        "path to a function of logits and labels, or to a class that makes one (`torch.nn.CrossEntropyLoss`).",
    )
    mean: str | None = option(
        None,
        "setting",
        "What the client does to images in [0, 1] before the model: (image - mean) / std. One number, or one for each "
        "channel with commas. Default: the model's own, which are its attributes `input_mean` and `input_std`, or with "
        "trained weights what timm or torchvision say of theirs; else those of the data set. A model of inputs in "
        "0..255 has mean 0 and std 0.00392157; one that normalizes by itself has mean 0 and std 1.",
    )
    std: str | None = option(None, "setting", "Goes with the mean, see there.")
    amp: Amp = option(
        "none",
        "setting",
        "Mixed precision of the client: its forward pass under `torch.autocast` in `bf16`, or in `fp16` with a scaled "
        "loss. Weights stay in float32, and the attacker computes in full precision.",
    )
    lr: float | None = option(
        None,
        "setting",
        "Learning rate of local training (FedAvg). Without it a client shares the gradient of its batch (FedSGD).",
    )
    epochs: int = option(1, "setting", "Passes of local training over a client's images.")
    mini_batch: int | None = option(None, "setting", "Images in a local step. Default: all of a client's.")
    local_optimizer: str = option(
        "sgd",
        "setting",
        "Of the local steps, as torch has it: `sgd[:MOMENTUM[:DECAY]]`, `adam[:DECAY]`, `adamw[:DECAY]`, where DECAY "
        "is that of the weights; the attacker knows it. A server's own momentum comes after the updates that an "
        "attacker sees, and changes nothing.",
    )
    clients: int = option(
        1,
        "setting",
        "Clients that train locally, each on an equal share of the batch. The server sees the mean of their updates.",
    )
    rounds: int = option(
        1,
        "setting",
        "Rounds in which the client shares an update of the same images; their costs are added (GIAS, appendix D).",
    )
    between: int = option(
        0,
        "setting",
        "Steps of training by other clients from one round to the next. With 0 every round has new weights.",
    )
    batch: int = option(4, "setting", "Images in an update.", rows=("batch_size",), of_images=True)
    batches: str = option(
        "random",
        "setting",
        "Which images form a batch: `random`; `distinct`, no label twice; `unbalanced`, half of one class, a quarter "
        "of another, the rest of others; or a file with the ids of one task's images on each line. Tasks come from "
        "fixed lists in `benchmark/tasks/manifests/` where the data set has one, then in the order of hashed ids.",
        of_images=True,
    )
    defense: str = option(
        "sparsification:0.5",
        "setting",
        "What the client does against leakage: `none`, or one or several in their order with `+`: "
        "`noise:STD[:laplacian]`, `clipping:BOUND[:global]`, `sparsification:RATE`, `quantization:LEVELS` (QSGD), "
        "`sign`, `soteria:RATE[:LAYER[:EPS]]` (LAYER may be empty: the classifier), `dp_sgd:BOUND:NOISE`, "
        "`precode[:SIZE[:BETA]]`, `label_confusion:LABELS`, `mixup:ALPHA`. "
        "Several runs: commas between them.",
        rows=("defense", "defense_digest"),
    )
    adapt: bool = option(
        True,
        "setting",
        "Whether the attacker knows which defense is used and builds a surrogate of it from what it received, never "
        "from its parameters: `yes`, `no`, or `both`, one run each.",
    )
    precision: Literal["float32", "float64"] = option(
        "float32",
        "setting",
        "Of images, victim and attack. Closed forms solve in `float64` in any case; with `float64` the update that "
        "they solve for is computed in it too, and brings no rounding that grows from layer to layer.",
    )

    prior: str = option(
        "default",
        "knowledge",
        "What the attacker knows of images, where the method needs it: a generator, a denoiser or a trained inverter. "
        "`default`: the shipped one of the method. Or a name from `make priors` (shipped, or published weights that "
        "lie below `WEIGHTS`); `ARCHITECTURE:FILE` in the layout of its authors (`stylegan2:my.pt`); a `.safetensors` "
        "file written by `prior train`; or untrained: `ARCHITECTURE` or `ARCHITECTURE:SIZE` (`dcgan:64`).",
        rows=("prior", "prior_trained_on", "prior_digest"),
    )
    refine: str = option(
        "none",
        "knowledge",
        "A denoiser, as `PRIOR` names it (`denoiser-photos`, `ffdnet`), that refines the result of any attack with "
        "steps: a last stage on the pixels, with a quarter as many steps as all others together, lowers the matching "
        "cost and takes out noise in turn.",
        rows=("refine", "refine_trained_on"),
    )
    labels: str = option(
        "given",
        "knowledge",
        "`given`: the attacker has the labels of the batch. `none`: for methods that find them by themselves. Or the "
        "method that recovers them from the update: `alr`, `ilrg`, `llg` (LLG*, with the model), `zlr`, "
        "`row_sums`, `idlg`.",
        rows=("labels", "label_method"),
    )
    bn: Level = option(
        "none",
        "knowledge",
        "The batch-norm statistics that the attacker has: `none`; the `running` ones of the model; those of the batch, "
        "`recovered` from the running ones that a client shares; or the `exact` ones of the batch.",
    )
    surrogate: str = option(
        "",
        "knowledge",
        "How an adaptive attacker models the defense. Default: by all that was received, such as which entries are "
        "zero. `parameter`: by an estimate of the defense's parameter alone, as in the code of GGL and GIFD: the rate "
        "of `sparsification` is the share of zeros, the bound of `clipping` the norm of the update.",
    )
    know_lr: bool = option(True, "knowledge", "Whether the attacker knows the learning rate of local training.")
    match: Match = option(
        "aga",
        "knowledge",
        "How the attack matches local training: `aga`, as one gradient (IGIMS); `sme`, as one gradient at searched "
        "weights between those before and after it (Zhu et al.); `fa`, by repeating it (Geiping et al.).",
    )

    restarts: int | None = option(
        None, "method", "Independent starts for each task. Default: those of the preset, or 2."
    )
    steps: int | None = option(None, "method", "Steps in total for each task. Default: those of the preset.")
    set: list[str] = option(
        [],
        "method",
        "Single options of the method on top of the preset, as KEY=VALUE with spaces between them.",
        rows=("options",),
    )

    seed: int = option(0, "execution", "Of the victim's weights, an untrained prior and the starts of the attack.")
    group: Group = option(
        1,
        "execution",
        "Tasks that are attacked together, which is faster for small batches of small images; rows differ by rounding, "
        "those of `ci_net` by more of it. `auto`: so many that their restarts are 16 images on a CPU, 64 on a GPU, and "
        "1 for a victim of more than half a million parameters. A process takes whole groups: with few tasks for many "
        "processes, leave it at 1.",
        rows=(),
    )
    chunk: int | None = option(
        None,
        "execution",
        "Restarts of tasks that are evaluated at once; less takes less memory. Default: all on a GPU, few on a CPU.",
        rows=(),
    )
    compile: Compile = option(
        "auto",
        "execution",
        "Whether the steps of a stage become one compiled function: `on`, `off`, or `auto`: on a CPU where all tasks "
        "together have enough steps to repay it. Compiled once, it is kept for later runs in `~/.cache/gibench`; the "
        "row of a task that waits for it has this in its `seconds`.",
        rows=(),
    )
    compile_s: float = option(
        300.0,
        "execution",
        "Seconds after which compiling is given up; the steps then go on as with `COMPILE=off`, and the row's "
        "`gradient_path` says so.",
        rows=(),
    )
    lpips: str = option(
        "squeeze",
        "execution",
        "Backbones of LPIPS, with commas between them: `squeeze`, `alex`, `vgg`. Each is a column of its own: `lpips`, "
        "`lpips_alex`, `lpips_vgg`. The other scores do not depend on it.",
        rows=(),
    )
    tasks: int = option(
        6,
        "execution",
        "Private batches that are attacked. More of them extend the same run.",
        rows=(),
        changes_rows=False,
    )
    data_dir: Path = option(
        Path("data"),
        "execution",
        "Folder of data sets that come as files: `cifar10/{train,test}/<class>/*.png`, or torchvision's "
        "`cifar-10-batches-py/` and `cifar-100-python/`, `tiny-imagenet-200/` (`tiny-imagenet-32/`), "
        "`imagenet/{train,val}/<wnid>/*`, `ffhq/images256x256/*.png` with `ffhq/json/*.json`, "
        "`pacs/<domain>/<class>/*`.",
        rows=(),
        changes_rows=False,
    )
    weights_dir: Path = option(
        Path("weights"),
        "execution",
        "Folder of weights that are not shipped: generators in `priors/`, denoisers in `denoisers/`, backbones of "
        "LPIPS in `lpips/`, the face descriptor in `metrics/`.",
        rows=(),
        alias="weights",
        changes_rows=False,
    )
    out: Path = option(Path("results"), "execution", "Folder of results.", rows=(), changes_rows=False, repeated=False)
    devices: int | None = option(
        None,
        "execution",
        "Processes on each machine. Default: one for each GPU, else for each CPU core. Rows do not depend on it.",
        rows=(),
        changes_rows=False,
        repeated=False,
    )
    nodes: int = option(
        1,
        "execution",
        "Machines on which this command is started, each with its NODE_RANK; torchrun and srun set both by themselves.",
        rows=(),
        changes_rows=False,
        repeated=False,
    )
    wandb: Literal["online", "offline", "off"] = option(
        "offline",
        "execution",
        "Logging to Weights & Biases: `docs/wandb.md` says how to look at it.",
        rows=(),
        changes_rows=False,
        repeated=False,
    )


def about(each: Field) -> About:
    """What else is known of a field of `Options`."""
    found: About = each.metadata["about"]
    return found._replace(rows=(each.name,)) if each.metadata["own"] else found


def abouts(options: type[Options] = Options) -> dict[str, About]:
    """All options by name, in their order."""
    return {each.name: about(each) for each in fields(options)}


def defaults(options: type[Options] = Options) -> dict[str, Any]:
    """The default of every option."""
    made = options()
    return {each.name: getattr(made, each.name) for each in fields(options)}


def row_keys(*roles: Role) -> tuple[str, ...]:
    """Keys of a row that hold options of these roles (all where none is named), in the order of the options."""
    return tuple(key for each in abouts().values() if not roles or each.role in roles for key in each.rows)


def variable(name: str, options: type[Options] = Options) -> str:
    """The option as a variable of `make`."""
    return (abouts(options)[name].alias or name).upper()
