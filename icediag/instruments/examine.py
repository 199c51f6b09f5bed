"""All that the checks need to know of a pipeline, recorded once each, cheapest first."""

import dataclasses
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Any

from icediag.devices import load_device
from icediag.errors import IcediagError
from icediag.pipeline import Pipeline
from icediag.recording import Recording, Unjudged

from .bounds import record_bounds
from .clock import record_clock
from .effects.run import record_effects
from .features import record_features
from .gradient_flow.run import record_gradients
from .histograms import record_histograms
from .invariances import record_invariances
from .loss_probe import record_loss
from .overfit.run import record_overfit
from .profiling.projection import project
from .provenance.run import record_with_origins
from .recorder.record import record
from .running.containment import FORKS, ExitedError, TimedOutError, contained
from .running.paths import without_paths
from .running.reasons import raised, reason_of
from .running.young import young
from .squashing import record_squashing
from .training_flow import record_training_flow
from .weighing import record_weighing
from .work import record_lines, record_operations

#: Seconds for steps that are timed; `icediag profile` takes more.
CLOCK_S = 1.5
#: What counted steps are projected to, where nobody says.
DEVICE = "h100"


@dataclass(frozen=True, kw_only=True)
class Instrument:
    """An instrument beside the recorder of the flow.

    Attributes:
        field: The field of `Recording` that it fills.
        title: What it does, for a progress display.
        run: (pipeline, batch_size=, device=, seed=) -> the record.
        experiment: Whether it trains: left out where an answer is wanted at once.
        follows: Whether it builds on what the others saw: then it is given the recording too.
    """

    field: str
    title: str
    run: Callable[..., Any]
    experiment: bool = False
    follows: bool = False


#: Cheapest first.
INSTRUMENTS: tuple[Instrument, ...] = (
    Instrument(field="lines", title="counting lines", run=record_lines),
    Instrument(field="operations", title="counting operations", run=record_operations),
    Instrument(field="histograms", title="counting values", run=record_histograms),
    Instrument(field="squashing", title="looking at what the loss takes", run=record_squashing),
    Instrument(field="weighing", title="looking for weighted means", run=record_weighing),
    Instrument(field="invariances", title="regrouping events", run=record_invariances),
    Instrument(field="training_flow", title="following events", run=record_training_flow),
    Instrument(field="loss_probe", title="probing the loss", run=record_loss),
    Instrument(field="features", title="looking at features", run=record_features),
    Instrument(field="bounds", title="proving bounds", run=record_bounds),
    Instrument(
        field="clock", title="timing training steps", run=partial(record_clock, budget_s=CLOCK_S)
    ),
    Instrument(field="gradients", title="following gradients", run=record_gradients),
    Instrument(field="overfit", title="overfitting one batch", run=record_overfit, experiment=True),
    Instrument(
        field="effects",
        title="measuring what faults cost",
        run=record_effects,
        experiment=True,
        follows=True,
    ),
)


FOLLOWING = "following one batch"


def planned(needs: Collection[str], *, experiments: bool = True) -> tuple[str, ...]:
    """Titles of what `examine` runs for these needs, in its order, if all goes well."""
    wanted = {*needs, "operations"} if "projection" in needs else set(needs)
    chosen = [i for i in INSTRUMENTS if i.field in wanted and (experiments or not i.experiment)]
    return (FOLLOWING, *(instrument.title for instrument in chosen))


@young()
def examine(
    pipeline: Pipeline,
    *,
    needs: Collection[str],
    batch_size: int | None = None,
    device: str = "cpu",
    seed: int = 0,
    experiments: bool = True,
    timeout: float | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Recording:
    """Record the flow of one batch, then all that is needed beside it.

    An instrument that fails leaves its field empty and its reason in `not_judged`, under the name
    of the field; the others go on. Where the batch does not come through the pipeline, the recorder
    has said so and nothing else is run.

    Args:
        pipeline: What to look at.
        needs: Fields of `Recording` that are wanted.
        batch_size: Samples; without, that of the pipeline.
        device: Where the model is.
        seed: Of the random generators.
        experiments: Whether instruments that train are run.
        timeout: Seconds that each instrument may take; None for any time.
        progress: Told the title of each instrument before it runs.

    Raises:
        IcediagError: The data set is empty, or the pipeline names what does not exist.
        DataError: The files of a built-in data set are not what they must be.
    """
    if "projection" in needs:
        needs = {*needs, "operations"}
    progress(FOLLOWING)
    forks = FORKS.count
    follow = record_with_origins if "provenance" in needs else record
    try:
        with contained(timeout):
            recording = follow(pipeline, batch_size=batch_size, device=device, seed=seed)
    except (TimedOutError, ExitedError) as error:
        # Where the batch was read or prepared; later, the recorder itself says where.
        recording = Recording(
            pipeline=pipeline.name,
            batch_size=0,
            not_judged=(raised("dataset item", error, pipeline),),
        )
    if not recording.came_through:
        return _with_forks(recording, FORKS.count - forks)
    for instrument in INSTRUMENTS:
        if instrument.field not in needs or (instrument.experiment and not experiments):
            continue
        progress(instrument.title)
        try:
            with contained(timeout):
                more = {"recording": recording} if instrument.follows else {}
                seen = instrument.run(
                    pipeline, batch_size=batch_size, device=device, seed=seed, **more
                )
        except IcediagError as error:
            reason = without_paths(str(error))
        except Exception as error:  # of the user's code, or ours: the other instruments go on
            reason = f"{instrument.title} failed: {reason_of(error, pipeline)}"
        else:
            recording = dataclasses.replace(recording, **{instrument.field: seen})
            continue
        missing = Unjudged(name=instrument.field, reason=reason)
        recording = dataclasses.replace(recording, not_judged=(*recording.not_judged, missing))
    counted = recording.operations
    if "projection" in needs and counted is not None:
        projected = project(counted, load_device(DEVICE), recording.lines)
        recording = dataclasses.replace(recording, projection=projected)
        if projected is None:
            reason = next((item.reason for item in counted.not_judged), "no step was counted")
            missing = Unjudged(name="projection", reason=reason)
            recording = dataclasses.replace(recording, not_judged=(*recording.not_judged, missing))
    return _with_forks(recording, FORKS.count - forks)


def _with_forks(recording: Recording, forks: int) -> Recording:
    """The recording, with a word on copies of this process that the pipeline made."""
    if not forks:
        return recording
    reason = (
        f"the pipeline forks: {forks} cop{'y' if forks == 1 else 'ies'} of this process; one that "
        "came back to icediag was ended there"
    )
    missing = Unjudged(name="processes", reason=reason)
    return dataclasses.replace(recording, not_judged=(*recording.not_judged, missing))
