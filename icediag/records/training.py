"""How events come to the training and to the validation, and what a step does in which order."""

from dataclasses import dataclass, field
from typing import Literal

from icediag.place import Location, Unjudged


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """Samples of the validation set that are in the training set, by content.

    Attributes:
        training: Samples of the training set.
        validation: Samples of the validation set.
        training_read: How many of the training set were read.
        validation_read: How many of the validation set were read.
        shared: How many of the latter are among the former, bit for bit.
        repeated: How many of the training samples read are there more than once.
        values: How many numbers of a sample were compared, the least of all.
        by_index: Whether both are parts of one data set, and were compared by index, all of them.
        examples: Pairs (index in the validation set, in the training set), flat, a few.
        whole: Whether all samples of both were compared.
    """

    training: int
    validation: int
    training_read: int
    validation_read: int
    shared: int
    repeated: int = 0
    values: int = 0
    by_index: bool = False
    examples: tuple[int, ...] = ()
    whole: bool = False


@dataclass(frozen=True, kw_only=True)
class Rereading:
    """Samples read twice, from other random numbers.

    Attributes:
        read: How many.
        differ: How many differ.
        path: A tensor that differs.
        size: Its largest difference, relative to its largest value.
    """

    read: int
    differ: int
    path: str = ""
    size: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Order:
    """In which order the loader takes samples, over some epochs.

    Attributes:
        kind: Whether indices were seen, or the content of batches.
        sampler: Class of what gives the order.
        samples: In the data set; of batches, how many were looked at.
        epochs: How many were looked at.
        batches: Of the first epoch.
        taken: Samples taken in the first epoch, repeated ones too.
        same: Whether all epochs have the same order.
        ascending: Whether that is the order of the data set.
        distinct: Different samples in the first epoch.
        never: Samples that came in none of the epochs.
        missed: Samples that did not come in the first.
        repeated: Samples that came more than once in the first epoch.
        same_repeated: How many of these came more than once in every epoch.
        replicas: Processes that share the data set, of a distributed sampler.
        workers: Processes that read, where the content of batches was seen.
        doubled: Batches that hold what another worker gave just before; 0 with fewer than two.
    """

    kind: Literal["indices", "content"]
    sampler: str
    samples: int
    epochs: int
    batches: int
    taken: int
    same: bool
    ascending: bool = False
    distinct: int = 0
    never: int = 0
    missed: int = 0
    repeated: int = 0
    same_repeated: int = 0
    replicas: int = 1
    workers: int = 0
    doubled: int = 0


@dataclass(frozen=True, kw_only=True)
class Workers:
    """The random numbers of a loader's workers, as torch starts them.

    Attributes:
        workers: How many.
        random: Samples that differ when read again by one worker.
        read: Samples that were read in each.
        alike: How many of the random ones are the same in every worker.
        again: How many of them are the same in the next epoch too.
        init: Place of `worker_init_fn`, None where there is none.
        init_name: Its name.
    """

    workers: int
    random: int
    read: int
    alike: int
    again: int
    init: Location | None = None
    init_name: str = ""


Event = Literal["zero", "backward", "step", "schedule"]


@dataclass(frozen=True, kw_only=True)
class Step:
    """What one call of `train_step` did, in order.

    Attributes:
        events: Gradients set to zero, backward passes, optimizer steps, steps of a schedule.
        no_gradient: Optimizer steps at which all gradients were zero or gone, though a backward
            pass had come before in the same call.
        changed_after: Parameters whose gradient was changed between the step and the end of the
            call, and not to zero.
        by: By how much, the largest ratio of gradient norms.
        eval_modules: Modules with dropout or batch statistics that were in training before the call
            and ran in evaluation.
    """

    events: tuple[Event, ...] = ()
    no_gradient: int = 0
    changed_after: int = 0
    by: float = 1.0
    eval_modules: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A schedule of the learning rate that `train_step` moves on.

    Attributes:
        name: Its class.
        per_call: Steps of it a call of `train_step`.
        calls: Calls that an epoch takes.
        first: The learning rate at first.
        highest: The highest on the way through the first half of an epoch.
        half: The learning rate after half an epoch.
    """

    name: str
    per_call: float
    calls: int
    first: float
    highest: float
    half: float


@dataclass(frozen=True, kw_only=True)
class Drift:
    """A column of the samples whose values differ between training and validation.

    Attributes:
        path: Tensor of a sample.
        column: Which column.
        training: Its mean over training samples.
        validation: Over validation samples.
        spread: Standard deviation over training samples.
        deviations: Their difference in standard errors.
        validation_spread: Standard deviation over validation samples.
        moved: Whether the means differ; otherwise the spreads alone do.
    """

    path: str
    column: int
    training: float
    validation: float
    spread: float
    deviations: float
    validation_spread: float = 0.0
    moved: bool = True


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A training that goes on from the pipeline's own checkpoint, beside one that just goes on.

    Attributes:
        before: Steps before the checkpoint.
        after: Steps after it.
        tensors: Parameters and buffers of the model.
        lost: How many of them are not after loading what they were when saved.
        lost_names: Some of them.
        trained: Euclidean distance that the steps before it moved the model.
        entries: Entries of the optimizer's state when saved, over all parameters.
        missing: How many of them are gone or others after loading.
        missing_names: What these are called.
        rate: Learning rate of the first step after the checkpoint at which it differs; None where
            none does.
        rate_resumed: That of the training that goes on from the checkpoint.
        moved: Distance that the steps after it move the model.
        apart: Distance of the two trainings after them.
        rounding: Distance where the steps are repeated without loading: what does not repeat.
        optimizer: Class of the optimizer.
    """

    before: int
    after: int
    tensors: int
    lost: int
    lost_names: tuple[str, ...] = ()
    trained: float = 0.0
    entries: int = 0
    missing: int = 0
    missing_names: tuple[str, ...] = ()
    rate: float | None = None
    rate_resumed: float | None = None
    moved: float = 0.0
    apart: float = 0.0
    rounding: float = 0.0
    optimizer: str = ""


@dataclass(frozen=True, kw_only=True)
class TrainingRecord:
    """How samples come to the training, and what a step does.

    Attributes:
        states_validation: Whether the pipeline states a validation set.
        states_loader: Whether it states a loader.
        states_step: Whether it states its own step.
        overlap: Of validation and training; None where that could not be seen.
        validation_again: The validation set, read twice.
        drift: Columns that differ between the two.
        order: The loader's order; None where that could not be seen.
        workers: Of the loader; None where it has fewer than two.
        steps: Calls of `train_step`, each after the other.
        left_eval: Modules that were in training before the first call and not after it.
        schedules: Schedules that it moves on.
        step_location: Where `train_step` is defined.
        states_checkpoint: Whether it states how checkpoints are saved and loaded.
        checkpoint: What became of one; None where that was not tried.
        load_location: Where `load` is defined.
        not_tried: What could not be tried, and why.
    """

    states_validation: bool = False
    states_loader: bool = False
    states_step: bool = False
    overlap: Overlap | None = None
    validation_again: Rereading | None = None
    drift: tuple[Drift, ...] = ()
    order: Order | None = None
    workers: Workers | None = None
    steps: tuple[Step, ...] = ()
    left_eval: tuple[str, ...] = ()
    schedules: tuple[Schedule, ...] = field(default=())
    step_location: Location | None = None
    states_checkpoint: bool = False
    checkpoint: Checkpoint | None = None
    load_location: Location | None = None
    not_tried: tuple[Unjudged, ...] = ()
