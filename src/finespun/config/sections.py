"""The typed sections of a run's configuration: names, types, ranges. Values live in `conf/`.

A default stands here only for a setting that most files in `conf/` leave out.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

Strings = Annotated[tuple[str, ...], Field(strict=False)]  # YAML gives lists
Dotted = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*\.?$")]
Floats = Annotated[tuple[float, ...], Field(strict=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(min_length=1)]
Column = Annotated[str, BeforeValidator(lambda given: str(given) if type(given) is int else given)]  # of CoNLL, by position
SPLIT_OF_PATH = "(split)"  # a column that is added to rows whose file or hub split says it
KERAS = (".keras", ".h5")
GGUF = ".gguf"
Severity = Literal["error", "warn", "note", "drop"]
Finding = Literal["error", "warn", "note"]  # of what is no single row's fault
SplitBy = Literal["hash", "stratified", "group", "time", "given"]


class Section(BaseModel):
    """Frozen, refuses unknown keys, does not turn text into numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Filter(Section):
    """Rows whose `column` holds one of `drop` are left out, and counted."""

    column: str
    drop: Strings


class Split(Section):
    """How rows are split, and the shares of the three splits; `seed` is apart from the run's, so that runs with others compare.

    `hash`: of a row's normalised content. `stratified`: the same share of each label. `group`: rows of one `columns.group`
    stay together. `time`: the oldest rows train, the newest test, by `columns.time`. `given`: as `columns.split` or the names
    in `data.path` say. None: given or group where the columns or paths say so, else hash.
    """

    by: SplitBy | None = None
    train: Share = 0.8
    val: Share = 0.1
    test: Share = 0.1
    seed: NonNegativeInt = 42
    cover_labels: bool = False  # a label that no training row would have gets its first row there

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        total = self.train + self.val + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train + val + test is {total:g}; the three shares must add up to 1")
        return self


class Checks(Section):
    """What to do with rows that fail a check: stop (`error`), keep (`warn`, `note`) or leave out and count (`drop`)."""

    empty_text: Severity = "error"
    unknown_label: Severity = "error"
    bad_target: Severity = "error"  # not a number, tags that fit no word, spans outside their text
    bad_transition: Severity = "warn"  # tags that go on with an entity that has not begun
    bad_image: Literal["error", "drop"] = "error"  # what cannot be decoded cannot be kept
    animated_image: Severity = "warn"
    bad_audio: Literal["error", "drop"] = "error"
    bytes_as_text: Severity = "error"  # a text or label that is Python's way to write bytes: b'...'
    no_value: Severity = "warn"  # a text or label that is how programs write that there is no value: nan, NULL, #REF!
    rare_label: Severity = "error"  # that no training row has
    lookalike_label: Finding = "warn"  # labels that differ by case or blanks, or as 1 and 1.0 do
    joined_labels: Finding = "warn"  # labels that are several of the others with a sign between them
    blank_indicator: Finding = "warn"  # empty cells in columns of 0 and 1
    duplicate: Severity = "warn"
    conflicting_labels: Severity = "error"
    control_character: Severity = "note"  # in a text: control characters, and those that nobody sees
    leak: Severity = "error"  # a row that is in two ready splits; drop leaves out the one that is trained on
    near_duplicate: Finding = "warn"  # nearly the same text in two splits
    small_label: Finding = "error"  # of stratified splits: a label with fewer rows than splits
    imbalance: Finding = "warn"  # a label with a fiftieth of the rows of another, or less
    leakage: Finding = "warn"  # what predicts the label perfectly and will not be there when it is asked for
    cut_off: Finding = "warn"  # the share of tokens beyond the model's window
    unknown_tokens: Finding = "warn"  # the share of tokens that the tokenizer does not know


class Limit(Section):
    """Fewer training rows, for few-shot work: the first so many in an order that the split's seed gives."""

    rows: PositiveInt | None = None
    per_label: PositiveInt | None = None

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        if (self.rows is None) == (self.per_label is None):
            raise ValueError("say either rows or per_label")
        return self


Format = Literal["csv", "json", "jsonl", "parquet", "arrow", "conll", "images", "coco", "voc", "yolo", "csv_of_boxes"]


class ItemsConfig(Section):
    """A table of items, for tasks that rank them: what they are called and what is known of them."""

    path: Name
    columns: dict[str, Column | Strings]  # role -> column, or several, whose texts are joined
    format: Format | None = None
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    encoding: str | None = None


class EventsConfig(Section):
    """Columns of a table with a row an event, from which each user's history is made: `history`, `item` and the split."""

    user: Column
    item: Column
    time: Column | None = None  # None: events are in the order of the file
    weight: Column | None = None  # a rating, an amount
    at_least: float | None = None  # events of a smaller weight are left out
    split: Literal["last", "time"] = "last"  # each user's last event tests, the one before validates; or by data.split's shares

    @model_validator(mode="after")
    def _says_nothing_in_vain(self) -> Self:
        if self.split == "time" and self.time is None:
            raise ValueError("split: time needs time, the column that says when an event was")
        if self.at_least is not None and self.weight is None:
            raise ValueError("at_least is for weight, the column of ratings or amounts; name it, or leave at_least out")
        return self


class HistoriesConfig(Section):
    """A table of events that is joined to rows, a row a user, as a text in the column `history`, the latest event first."""

    path: Name
    user: Column  # of the events' table
    of: Column  # of the rows: the same user
    says: Strings  # columns of the events' table that say what an event was
    time: Column | None = None  # None: events are in the order of the file
    before: Column | None = None  # of the rows: events at this moment or later are left out
    latest: PositiveInt = 50  # events that are read
    column: Name = "history"
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    encoding: str | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.says:
            raise ValueError("says names no column, so all events would be alike; name those that say what an event was")
        if self.before is not None and self.time is None:
            raise ValueError("before needs time, the column that says when an event was")
        return self


EVENT_COLUMNS = {"history": "history", "item": "item", "user": "user", "split": SPLIT_OF_PATH}


class DataConfig(Section):
    """Where rows come from, what the columns mean, how rows are split and checked."""

    path: str | Strings | dict[str, str | Strings] = ""  # files, globs, addresses; by split, if given so; with sql a database
    format: Format | None = None  # None: by the ending
    sql: Name | None = None  # a query, whose rows are read from the database that path is the address of
    password: Name | None = None  # of the database: the name of an environment variable
    hub: Name | None = None  # a data set of the Hugging Face hub, or a folder in its layout
    hub_config: str | None = None
    hub_revision: str | None = None
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None  # None: found in the file
    encoding: str | None = None  # None: found in the file
    quoting: Literal["auto", "standard", "none"] = "auto"  # auto: a quote that swallows rows is reported; none: quotes are text
    header: bool = True  # of a CSV: whether its first line names the columns; without it they are called 1, 2, ...
    allow_outside: bool = False  # whether a table of images may name files that lie elsewhere than the data
    columns: dict[str, Column | Strings]  # role -> column, or several; `group`, `time` and `split` decide on splits
    labels: Strings | None = None  # None: those found, sorted
    filters: Annotated[tuple[Filter, ...], Field(strict=False)] = ()
    split: Split = Split()
    folds: Annotated[int, Field(ge=2)] = 5
    fold: NonNegativeInt | None = None  # cross-validation: the part, of `folds`, of all but the test split that validates
    limit: Limit | None = None
    events: EventsConfig | None = None  # rows are events of users, from which histories are made
    histories: HistoriesConfig | None = None  # events of users, joined to their rows
    items: ItemsConfig | None = None  # of tasks that rank: items beside those that rows name
    slices: Annotated[tuple[Name, ...], Field(strict=False)] = ()  # columns by whose values scores are reported, too
    checks: Checks = Checks()

    @field_validator("columns")
    @classmethod
    def _names_each_column_once(cls, columns: dict[str, str | tuple[str, ...]]) -> dict[str, str | tuple[str, ...]]:
        for role, given in columns.items():
            twice = sorted({column for column in given if given.count(column) > 1}) if isinstance(given, tuple) else []
            if twice:
                raise ValueError(f"{role} names {', '.join(twice)} twice; name each column once")
        return columns

    @property
    def name(self) -> str:
        """What the data are called in messages."""
        if self.hub:
            return self.hub
        given = [*self.path.values()] if isinstance(self.path, dict) else [self.path]
        paths = [path for each in given for path in ([each] if isinstance(each, str) else each)]
        return paths[0] if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"

    @model_validator(mode="before")
    @classmethod
    def _splits_of_paths_are_given(cls, values: Any) -> Any:
        """Gives rows of paths by split, and of the hub, the role `split`: a column that reading adds."""
        if isinstance(values, dict) and (isinstance(values.get("path"), dict) or values.get("hub")):
            columns = values.get("columns")
            if (
                isinstance(columns, dict)
                and "split" not in columns
                and (values.get("split") or {}).get("by") in (None, "given")
            ):
                return {**values, "columns": {**columns, "split": SPLIT_OF_PATH}}
        return values

    @model_validator(mode="before")
    @classmethod
    def _columns_of_events_are_made(cls, values: Any) -> Any:
        """Gives rows that are made of events their columns."""
        if isinstance(values, dict) and values.get("events"):
            if values.get("columns", EVENT_COLUMNS) not in (EVENT_COLUMNS, {}):
                raise ValueError("columns are made by events; name the table's own columns in events, and leave columns out")
            if values.get("filters") or isinstance(values.get("path"), dict) or values.get("hub"):
                raise ValueError("events are of one table, split by time; leave filters, hub and paths by split out")
            return {**values, "columns": EVENT_COLUMNS}
        return values

    @model_validator(mode="after")
    def _says_one_source(self) -> Self:
        if self.sql and ("://" not in self.name or self.hub):
            raise ValueError("sql needs path, the address of a database, such as sqlite:///data/raw/shop.db; and no hub")
        if not self.sql and self.password:
            raise ValueError("password is that of a database; leave it out, or say sql")
        if self.sql and re.match(r"[^/]*://[^/@]*:[^/@]+@", self.name):
            raise ValueError(
                "path holds a password, which would be recorded; leave it out there, and set password: the name of an"
                " environment variable that holds it"
            )
        if bool(self.hub) == bool(self.path):
            raise ValueError("say path, or hub; one of them")
        odd = {*self.path} - {"train", "val", "test"} if isinstance(self.path, dict) else set()
        if odd:
            raise ValueError(f"path: {', '.join(sorted(odd))} is no split; say train, val, test")
        return self

    @property
    def split_by(self) -> SplitBy:
        """How rows are split: as it is said, or as the columns say."""
        if self.split.by:
            return self.split.by
        return "given" if "split" in self.columns else "group" if "group" in self.columns else "hash"

    @model_validator(mode="after")
    def _splits_by_what_is_there(self) -> Self:
        needed = {"group": "group", "time": "time", "given": "split"}.get(self.split_by)
        if needed and needed not in self.columns:
            raise ValueError(f"split.by: {self.split_by} needs columns.{needed}, the column that says it")
        if self.split_by == "time" and ("group" in self.columns or self.fold is not None):
            what = (
                "columns.group would put one group on both sides" if "group" in self.columns else "fold needs rows in any order"
            )
            raise ValueError(f"split.by: time goes by time alone, and {what}; leave that out, or split by something else")
        if self.fold is not None and self.fold >= self.folds:
            raise ValueError(
                f"fold: {self.fold} is none of {self.folds} folds; say one of 0 to {self.folds - 1}, or raise folds"
            )
        return self

    @field_validator("labels")
    @classmethod
    def _names_each_once(cls, labels: tuple[str, ...] | None) -> tuple[str, ...] | None:
        given = labels or ()
        twice = sorted({label for label in given if given.count(label) > 1})
        if twice:
            raise ValueError(f"names {', '.join(twice)} twice; name each label once")
        return labels


class Target(BaseModel):
    """A class by its dotted name and what it is called with."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True, populate_by_name=True, allow_inf_nan=False)

    target: str = Field(alias="_target_")

    @property
    def options(self) -> dict[str, Any]:
        """What the class is called with, as the user set it."""
        return dict(self.model_extra or {})


FROM_SCRATCH = "random"  # instead of a file of weights


class ModelConfig(Section):
    """The pretrained model: a checkpoint, or weights from elsewhere and the architecture that they are for.

    `checkpoint` is a hub name, a local folder, `package://NAME/path` inside an installed package, or an MLflow address.
    `config` is a configuration of transformers with its `model_type`; `module` any `torch.nn.Module` by its dotted name.
    `docs/models.md` has an example of each.
    """

    checkpoint: Name | None = None
    revision: str | None = None
    config: dict[str, Any] | None = None
    module: Target | None = None
    weights: Name | None = None  # a file, by path or package:// address; `random`: of a config, from scratch
    mapping: Literal["exact", "by_order", "torchvision", "timm"] | dict[str, str] = (
        "exact"  # or {prefix in the file: prefix in the model}
    )
    cut: Name | None = None  # of a module or a Keras file: the layer that the new head stands for; None: the last linear one
    tokenizer: Name | None = None  # where the weights bring none: a folder, a hub name, a package:// address
    processor: dict[str, Any] | None = None  # the values of preprocessor_config.json
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    allow_partial: bool = False
    trust_remote_code: bool = False
    head_dropout: Annotated[float, Field(ge=0, lt=1)] | None = None  # None: the checkpoint's own

    @property
    def from_scratch(self) -> bool:
        """Whether all weights begin from random numbers, on purpose."""
        return self.weights == FROM_SCRATCH

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        given = [name for name in ("checkpoint", "config", "module") if getattr(self, name) is not None]
        whole = self.weights is not None and self.weights.endswith((*KERAS, GGUF))  # such files say their architecture
        if len(given) + whole != 1:
            said = " and ".join([*given, *([f"weights {self.weights}"] if whole else [])]) or "none of them"
            raise ValueError(
                f"say one of checkpoint, config or module, or weights that Keras saved or a GGUF file; it says {said}"
            )
        if self.checkpoint and self.weights:
            raise ValueError("checkpoint has its own weights; leave weights out, or say the architecture as config")
        if not (self.checkpoint or self.weights):
            raise ValueError(
                f"{given[0]} needs weights, or training would begin from random numbers; name their file, or say weights:"
                " random if that is meant (of a config)"
            )
        if self.from_scratch and not (self.config and (self.processor or self.tokenizer)):
            raise ValueError("weights: random is for a config, and needs its processor or tokenizer; say both")
        if self.config is not None and not isinstance(self.config.get("model_type"), str):
            raise ValueError("config needs model_type, the name of an architecture of transformers, such as bert")
        return self

    @model_validator(mode="after")
    def _says_nothing_in_vain(self) -> Self:
        if self.revision and not self.checkpoint:
            raise ValueError("revision is that of a checkpoint on the hub; leave it out")
        if self.mapping != "exact" and not (self.config or self.module):
            raise ValueError("mapping is for weights of a config or a module; leave it out")
        if self.mapping in ("torchvision", "timm") and not self.config:
            raise ValueError(
                f"mapping: {self.mapping} is for a config of transformers; leave it out, the names of a module are its own"
            )
        if self.cut and (self.checkpoint or self.config or str(self.weights).endswith(GGUF)):
            raise ValueError("cut is for a module or Keras weights; leave it out")
        if self.tokenizer and self.processor is not None:
            raise ValueError("say tokenizer for texts or processor for images, not both")
        return self


class OptimizerConfig(Target):
    """A torch optimizer. Common options are checked here, the names of all against the class's signature."""

    lr: PositiveFloat
    weight_decay: NonNegativeFloat | None = None
    betas: Floats | None = None
    eps: PositiveFloat | None = None
    momentum: Share | None = None
    nesterov: bool | None = None
    fused: bool | None = None

    @property
    def options(self) -> dict[str, Any]:
        """What the optimizer itself is called with; what is not set is the class's own affair."""
        return self.model_dump(exclude={"target"}, exclude_none=True, warnings=False)  # wrong types are reported elsewhere


class SchedulerConfig(Target):
    """A learning-rate schedule; numbers of steps, the highest rate and the metric's direction are filled in when known."""

    warmup_ratio: Share = 0.0
    warmup_steps: NonNegativeInt | None = None  # goes before the ratio

    def warmup(self, total_steps: int) -> int:
        """Returns the number of warm-up steps."""
        return self.warmup_steps if self.warmup_steps is not None else round(self.warmup_ratio * total_steps)


class TrainerConfig(Section):
    """How long and how carefully to train: everything here can change the result."""

    imbalance: Literal["ignore", "class_weights", "weighted_sampling"]
    max_epochs: PositiveInt
    batch_size: PositiveInt
    gradient_clip_norm: PositiveFloat | None
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None
    r_drop: PositiveFloat | None
    early_stopping_patience: NonNegativeInt | None
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"]
    compile: bool
    lightning: dict[str, Any]  # arguments of Lightning's Trainer, checked in `config/lightning.py`
    callbacks: Annotated[tuple[Target, ...], Field(strict=False)]


class GateConfig(Section):
    """When `finespun register` makes a candidate the champion: the interval of the difference lies above `margin`."""

    model: Annotated[str, Field(pattern=r"^[^/:'\"]+$")] | None  # its name in MLflow's registry; None: that of the data
    score: Name | None  # None: the task's first
    margin: NonNegativeFloat


class EvaluationConfig(Section):
    """How a fine-tuned model is measured."""

    bootstrap_resamples: Annotated[int, Field(ge=100)]
    confidence: Annotated[float, Field(gt=0, lt=1)]
    baselines: bool
    explain: NonNegativeInt  # of the worst mistakes, so many are explained in the report
    zero_shot: bool
    precision_goal: Annotated[float, Field(gt=0, le=1)] | None  # of each label: from which probability on it is reached
    gate: GateConfig


class ReportConfig(Section):
    """Words on plots."""

    confusion_title: str
    training_title: str


class SlurmConfig(Section):
    """What SLURM is asked for; None leaves it to the cluster."""

    minutes: PositiveInt
    partition: str | None = None
    account: str | None = None
    gpus_per_node: NonNegativeInt | None = None
    cpus_per_node: PositiveInt | None = None
    memory_gb: PositiveInt | None = None
    setup: Strings = ()  # lines of shell before the command, such as `module load cuda`
    sbatch: dict[str, str | int | bool] = {}  # other options of sbatch
    executor: Literal["slurm", "local"] = "slurm"  # local: submitit starts the job on this machine, to try it without SLURM


class RuntimeConfig(Section):
    """What cannot change a result: no stage declares this section, every stage is given it."""

    accelerator: Literal["auto", "cpu", "gpu"]
    devices: Literal["auto"] | PositiveInt
    nodes: PositiveInt | Annotated[str, Field(pattern=r"^[1-9]\d*:[1-9]\d*$")]
    rendezvous: Annotated[str, Field(pattern=r"^[^\s:/]+:\d{1,5}$")] | None
    slurm: SlurmConfig | None
    strategy: Literal["ddp", "fsdp"]
    device_batch_size: PositiveInt | None
    gradient_checkpointing: bool
    cpu_kernels: bool
    feature_cache_gb: NonNegativeFloat
    image_cache_gb: NonNegativeFloat
    num_workers: NonNegativeInt
    prepare_with: Literal["local", "ray"]
    progress_bar: bool
    checkpoint_seconds: NonNegativeFloat
    stall_minutes: PositiveFloat  # without progress on several devices
    tracking: bool
    tracking_uri: str | None
    mlflow_experiment: str
    system_metrics: bool
    lightning: dict[str, Any]
    allow_targets: Annotated[tuple[Dotted, ...], Field(strict=False)]  # what `_target_` may name too, or how it begins

    @model_validator(mode="after")
    def _nodes_can_meet(self) -> Self:
        least, _, most = str(self.nodes).rpartition(":")
        if least and int(least) > int(most):
            raise ValueError(f"nodes: {self.nodes} is from more to less; say {most}:{least}")
        if int(most) > 1 and self.rendezvous is None and self.slurm is None:
            raise ValueError(f"nodes: {self.nodes} need rendezvous, HOST:PORT of one of them that the others can reach")
        if self.slurm is not None and least:
            raise ValueError(f"nodes: {self.nodes}: SLURM is asked for a number; say {most}")
        return self


class SweepConfig(Section):
    """How `finespun run -m` searches: it belongs to the sweep, and to none of its trials."""

    name: Annotated[str, Field(pattern=r"^\w[\w.-]*$", max_length=100)] | None
    trials: PositiveInt | None  # all in all; None: as many as a grid has
    minutes: PositiveFloat | None  # no trial is begun later
    parallel: Literal["auto"] | PositiveInt
    gpus_a_trial: PositiveInt
    metrics: Strings | None  # what is optimised; None: task.monitor
    direction: Annotated[tuple[Literal["minimize", "maximize"], ...], Field(strict=False)] | None
    keep_models: NonNegativeInt
    finalists: NonNegativeInt
    seeds: PositiveInt  # of each finalist
    storage: str | None  # None: SQLite in .finespun/sweeps/
    space: Literal["given", "auto"]

    @field_validator("direction", mode="before")
    @classmethod
    def _takes_one_without_brackets(cls, direction: Any) -> Any:
        return [direction] if isinstance(direction, str) else direction

    @model_validator(mode="after")
    def _has_a_direction_each(self) -> Self:
        metrics, directions = self.metrics or (), self.direction or ()
        if metrics and len(metrics) != len(directions):
            raise ValueError(f"metrics names {len(metrics)}, direction {len(directions)}; say minimize or maximize for each")
        if not metrics and len(directions) > 1:
            raise ValueError("direction has several, but metrics is null, which is task.monitor alone; name the metrics")
        return self


class RunConfig(Section):
    """The whole configuration of a run. A stage is given an instance that holds only what it declared."""

    seed: Annotated[int, Field(ge=0, lt=2**32)]
    data: DataConfig
    task: Target
    model: ModelConfig
    strategy: Target
    optimizer: OptimizerConfig
    scheduler: SchedulerConfig
    trainer: TrainerConfig
    evaluation: EvaluationConfig
    report: ReportConfig
    runtime: RuntimeConfig
