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
from .running.pace import held, lengths, possible, steppable
from .running.paths import without_paths
from .running.reasons import raised, reason_of
from .running.room import left_bytes
from .running.young import young
from .squashing import record_squashing
from .training_flow import record_training_flow
from .weighing import record_weighing
from .work import record_lines, record_operations
from .work.foresee import Load, foreseen

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
        whole: Whether it finds by itself what there is time for: it is asked for the whole batch.
    """

    field: str
    title: str
    run: Callable[..., Any]
    experiment: bool = False
    follows: bool = False
    whole: bool = False


#: Cheapest first.
INSTRUMENTS: tuple[Instrument, ...] = (
    Instrument(field="lines", title="counting lines", run=record_lines, whole=True),
    Instrument(field="operations", title="counting operations", run=record_operations, whole=True),
    Instrument(field="histograms", title="counting values", run=record_histograms),
    Instrument(field="squashing", title="looking at what the loss takes", run=record_squashing),
    Instrument(field="weighing", title="looking for weighted means", run=record_weighing),
    Instrument(field="invariances", title="regrouping events", run=record_invariances),
    Instrument(field="training_flow", title="following events", run=record_training_flow),
    Instrument(field="loss_probe", title="probing the loss", run=record_loss),
    Instrument(field="features", title="looking at features", run=record_features),
    Instrument(field="bounds", title="proving bounds", run=record_bounds),
    Instrument(
        field="clock",
        title="timing training steps",
        run=partial(record_clock, budget_s=CLOCK_S),
        whole=True,
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
PACING = "finding out how large a batch there is time for"
#: Operations, bytes and floating point operations of a step that may be taken: a core needs ten or
#: twenty seconds for it. The default network's at 256 events is expected to take half of that at
#: most, that of the case eleven times as much.
MAY = (200_000, 2 * 10**11, 5 * 10**12)
#: Samples up to which nobody asks whether there is time for a step of them.
UNASKED = 64
#: Seconds for counting before anything is known of the pipeline: one that hangs is to be named by
#: the recorder, and soon.
EARLY_S = 60.0


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
    paced: bool = True,
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
        paced: Whether fewer samples go through the model where a step of all takes too long.
        progress: Told the title of each instrument before it runs.

    Raises:
        IcediagError: The data set is empty, or the pipeline names what does not exist.
        DataError: The files of a built-in data set are not what they must be.
    """
    if "projection" in needs:
        needs = {*needs, "operations"}
    forks = FORKS.count
    running = _Running(pipeline, timeout, progress, device=device, seed=seed)
    wanted = pipeline.batch_size if batch_size is None else batch_size
    most = running.pace(wanted) if paced else wanted
    follow = record_with_origins if "provenance" in needs else record
    progress(FOLLOWING)
    try:
        with contained(timeout):
            recording = follow(pipeline, batch_size=most, device=device, seed=seed)
    except (TimedOutError, ExitedError) as error:
        # Where the batch was read or prepared; later, the recorder itself says where.
        recording = Recording(
            pipeline=pipeline.name,
            batch_size=0,
            not_judged=(raised("dataset item", error, pipeline),),
        )
    if not recording.came_through:
        return _with_forks(recording, FORKS.count - forks)
    if most < wanted:
        recording = running.of_fewer(recording, most, wanted)
    for instrument in INSTRUMENTS:
        if instrument.field not in needs or (instrument.experiment and not experiments):
            continue
        size = wanted if instrument.whole else most
        recording = running.with_(instrument, recording, size)
    counted = recording.operations
    if "projection" in needs and counted is not None:
        projected = project(counted, load_device(DEVICE), recording.lines)
        recording = dataclasses.replace(recording, projection=projected)
        if projected is None:
            reason = next((item.reason for item in counted.not_judged), "no step was counted")
            recording = _without(recording, "projection", reason)
    return _with_forks(recording, FORKS.count - forks)


class _Running:
    """Runs instruments one by one; what fails is noted, and the others go on."""

    def __init__(
        self,
        pipeline: Pipeline,
        timeout: float | None,
        progress: Callable[[str], None],
        **where: Any,
    ) -> None:
        self._pipeline, self._timeout, self._progress = pipeline, timeout, progress
        self._where = where
        #: What was recorded before the flow: field -> record.
        self._early: dict[str, Any] = {}

    def pace(self, wanted: int) -> int:
        """How many of the samples that are wanted a step can be taken on in the time there is.

        By counts first: they foresee a late long sample, where times have to expect the worst.
        """
        if min(wanted, held(self._pipeline)) <= UNASKED:
            return wanted
        instrument = next(i for i in INSTRUMENTS if i.field == "operations")
        limit = EARLY_S if self._timeout is None else min(EARLY_S, self._timeout)
        counted = self._seen(instrument, wanted, {}, limit)
        if not isinstance(counted, str):
            self._early["operations"] = counted
            if foreseen(counted, Load(*MAY, left_bytes())):
                return wanted
        self._progress(PACING)
        return possible(steppable, self._pipeline, wanted, self._timeout, **self._where)

    def with_(self, instrument: Instrument, recording: Recording, size: int) -> Recording:
        """The recording with what an instrument saw, or with the reason why it saw nothing."""
        seen = self._early.pop(instrument.field, None)
        if seen is None:
            more = {"recording": recording} if instrument.follows else {}
            seen = self._seen(instrument, size, more, self._timeout)
        if isinstance(seen, str):
            return _without(recording, instrument.field, seen)
        return dataclasses.replace(recording, **{instrument.field: seen})

    def of_fewer(self, recording: Recording, most: int, wanted: int) -> Recording:
        """The recording of a part of the batch, with the size and the lengths of all of it."""
        pipeline, ragged = self._pipeline, recording.ragged
        whole = int(min(wanted, held(pipeline)))
        try:
            with contained(self._timeout):
                ragged = lengths(pipeline, whole, **self._where) or ragged
        except Exception:  # those of the part stand
            whole_lengths = "too"
        else:
            whole_lengths = "of all"
        recording = dataclasses.replace(recording, batch_size=whole, followed=most, ragged=ragged)
        reason = (
            f"a step of all {whole:,} samples takes too long here: shapes and values are of "
            f"{most:,}, lengths {whole_lengths}, counts are extended to all"
        )
        return _without(recording, "batch size", reason)

    def _seen(
        self, instrument: Instrument, size: int, more: dict[str, Any], timeout: float | None
    ) -> Any:
        """What an instrument saw; a text that says why where it saw nothing."""
        self._progress(instrument.title)
        try:
            with contained(timeout):
                return instrument.run(self._pipeline, batch_size=size, **self._where, **more)
        except IcediagError as error:
            return without_paths(str(error))
        except Exception as error:  # of the user's code, or ours: the other instruments go on
            return f"{instrument.title} failed: {reason_of(error, self._pipeline)}"


def _without(recording: Recording, name: str, reason: str) -> Recording:
    """The recording with a word on what is not in it."""
    missing = Unjudged(name=name, reason=reason)
    return dataclasses.replace(recording, not_judged=(*recording.not_judged, missing))


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
