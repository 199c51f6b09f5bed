"""What everybody asks first, in a sentence each: is it slow, does it learn, is it right?"""

from dataclasses import dataclass

from icediag.finding import SEVERITIES, Diagnosis, Finding
from icediag.recording import Recording

from .learning import learning_of
from .numbers import counted, duration, number, percent
from .timing import losses_of, strips_of

#: Letters of the codes of checks on speed; all others are on what is computed and learnt.
SPEED = ("P",)
#: Those of checks on what training comes to.
LEARNING = ("L",)
#: A loss of the projected step is told in a sentence from this share of it on.
TOLD = 0.2
#: Stages that a sentence names.
MOST = 4


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An answer.

    Attributes:
        about: What was asked, in a word.
        text: The answer, without a full stop.
        severity: The worst of the findings that it speaks of, "" for none.
    """

    about: str
    text: str
    severity: str = ""


def answers(recording: Recording, diagnosis: Diagnosis) -> tuple[Answer, ...]:
    """As many as the recording can answer."""
    found = (
        _speed(recording, diagnosis),
        _learning(recording, diagnosis),
        _values(recording, diagnosis),
    )
    return tuple(one for one in found if one is not None)


def _speed(recording: Recording, diagnosis: Diagnosis) -> Answer | None:
    here = tuple(f for f in diagnosis.findings if f.code.startswith(SPEED))
    samples = {}
    if recording.clock is not None:
        samples["measured"] = recording.clock.batch_size
    if recording.projection is not None:
        samples["projected"] = recording.projection.batch_size
    parts = []
    for strip in strips_of(recording):
        words = strip.title[:1].lower() + strip.title[1:]
        biggest = max(strip.slices, key=lambda one: one.share, default=None)
        n = counted(samples[strip.kind], "sample")
        part = f"{duration(strip.total_s)} a step of {n} {words}"
        if biggest is not None:
            part += f", {percent(biggest.share)} of it in {biggest.name}"
        parts.append(part)
    # That a small step is spent on issuing operations is in the nature of small steps.
    told = [row for row in losses_of(recording) if row.avoidable and row.share >= TOLD]
    parts += [f"{percent(row.share)} of the projected step goes into {row.what}" for row in told]
    if not parts and not here:
        return None
    return Answer(about="speed", text="; ".join(parts) or _counts(here), severity=_worst(here))


def _learning(recording: Recording, diagnosis: Diagnosis) -> Answer | None:
    text = learning_of(recording, diagnosis)
    here = tuple(f for f in diagnosis.findings if f.code.startswith(LEARNING))
    return Answer(about="learning", text=text, severity=_worst(here)) if text else None


def _values(recording: Recording, diagnosis: Diagnosis) -> Answer | None:
    here = tuple(f for f in diagnosis.findings if not f.code.startswith(SPEED))
    serious = tuple(f for f in here if f.severity != "note")
    if not serious:
        if recording.loss is None:
            return None
        base = recording.baseline_loss
        text = f"loss {number(recording.loss)} before training"
        text += f", knowing nothing gives {number(base)}" if base is not None else ""
        return Answer(about="values", text=text, severity=_worst(here))
    return Answer(about="values", text=_counts(serious), severity=_worst(serious))


def _counts(found: tuple[Finding, ...]) -> str:
    """Such as "2 errors, at relative_encoder and head"."""
    counts = [
        counted(n, severity)
        for severity in SEVERITIES
        if (n := sum(f.severity == severity for f in found))
    ]
    stages = list(dict.fromkeys(f.stage for f in found))
    named = ", ".join(stages[:MOST]) + (f" and {len(stages) - MOST} more" if stages[MOST:] else "")
    return f"{' and '.join(counts)} at {named}"


def _worst(found: tuple[Finding, ...]) -> str:
    return min((f.severity for f in found), key=SEVERITIES.index, default="")
