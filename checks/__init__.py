"""The judgement: facts to findings. One rule, one file, named after the fault.

A check never measures and never prints. `CHECKS` is their order on display.
"""

from collections.abc import Callable, Iterable, Sequence
from types import ModuleType

from icediag.causes import SPEAKS_TO, with_effects
from icediag.errors import IcediagError
from icediag.finding import Diagnosis, Finding
from icediag.ranking import ranked
from icediag.recording import Recording, Unjudged

from . import (
    accumulating_gradients,
    augmented_validation,
    azimuth_seam,
    backward_copies,
    batch_leak,
    checkpoint_incomplete,
    clipping_always_on,
    collapsed_attention,
    confused_axes,
    constant_feature,
    constant_prediction,
    contiguous_copies,
    contract_broken,
    dead_units,
    decayed_norms,
    diverging_training,
    does_not_learn,
    double_normalization,
    drifting_file,
    epoch_misses_events,
    events_lost,
    exploding_gradient,
    heavy_tail,
    host_sync,
    id_as_magnitude,
    impossible_truth,
    impossible_value,
    integer_overflow,
    irreproducible_training,
    learning_rate,
    learnt_noise,
    loader_bound,
    loss_ignores_targets,
    loss_mixes_samples,
    loss_not_periodic,
    lost_resolution,
    many_transfers,
    memory_growth,
    metric_disagrees,
    missing_event,
    mixed_schema,
    never_shuffled,
    no_gradient,
    no_optimizer_step,
    non_finite_gradient,
    non_finite_value,
    normalized_relative,
    normalized_weights,
    normalizer_mismatch,
    not_deterministic,
    numerical_pole,
    off_centre_feature,
    optimizer_misses_parameters,
    over_scaled_feature,
    overconfident_start,
    padding_in_statistics,
    padding_leak,
    padding_waste,
    partial_order,
    per_item_access,
    python_loop,
    recomputation,
    repeated_event,
    rows_off,
    run_fails,
    saturated_output,
    saturated_units,
    schedule_ends_early,
    sensor_out_of_range,
    shared_events,
    single_event,
    singular_loss,
    slow_collate,
    slow_overfit,
    slower_than_baseline,
    small_event,
    squashed_logits,
    step_order,
    summed_loss,
    superlinear_growth,
    target_in_sight,
    targets_shuffled,
    turned_loss,
    unbounded_output,
    under_scaled_feature,
    uneven_scales,
    unnormalized_input,
    unreachable_range,
    unreadable_file,
    unregistered_tensor,
    unsorted_times,
    update_ratio,
    validation_drift,
    validation_overlap,
    vanishing_gradient,
    wide_dtype,
    workers_share_seed,
    wrong_mode,
    wrong_unit,
)

#: How the reason begins where a check itself fails.
FAILED = "the check failed"

#: Every check: a module with `CODE`, `NAME`, `NEEDS` (fields of the recording, none for the flow
#: itself) and `check(recording)`, which gives its findings (none: clean), or an `Unjudged` that
#: says why it cannot tell.
CHECKS: tuple[ModuleType, ...] = (
    run_fails,
    non_finite_value,
    integer_overflow,
    lost_resolution,
    unregistered_tensor,
    normalized_relative,
    normalized_weights,
    contract_broken,
    confused_axes,
    wrong_unit,
    double_normalization,
    normalizer_mismatch,
    padding_in_statistics,
    unnormalized_input,
    off_centre_feature,
    under_scaled_feature,
    over_scaled_feature,
    uneven_scales,
    constant_feature,
    heavy_tail,
    id_as_magnitude,
    unbounded_output,
    saturated_output,
    azimuth_seam,
    unreachable_range,
    numerical_pole,
    batch_leak,
    padding_leak,
    targets_shuffled,
    events_lost,
    not_deterministic,
    single_event,
    small_event,
    partial_order,
    irreproducible_training,
    python_loop,
    host_sync,
    padding_waste,
    backward_copies,
    superlinear_growth,
    recomputation,
    wide_dtype,
    contiguous_copies,
    many_transfers,
    loss_ignores_targets,
    singular_loss,
    loss_not_periodic,
    loss_mixes_samples,
    target_in_sight,
    summed_loss,
    squashed_logits,
    metric_disagrees,
    overconfident_start,
    loader_bound,
    slow_collate,
    per_item_access,
    memory_growth,
    turned_loss,
    slower_than_baseline,
    validation_overlap,
    augmented_validation,
    never_shuffled,
    epoch_misses_events,
    workers_share_seed,
    wrong_mode,
    step_order,
    schedule_ends_early,
    checkpoint_incomplete,
    validation_drift,
    does_not_learn,
    constant_prediction,
    diverging_training,
    slow_overfit,
    learnt_noise,
    no_gradient,
    optimizer_misses_parameters,
    vanishing_gradient,
    exploding_gradient,
    non_finite_gradient,
    dead_units,
    update_ratio,
    learning_rate,
    clipping_always_on,
    accumulating_gradients,
    no_optimizer_step,
    decayed_norms,
    saturated_units,
    collapsed_attention,
    impossible_value,
    unreadable_file,
    sensor_out_of_range,
    unsorted_times,
    repeated_event,
    missing_event,
    rows_off,
    impossible_truth,
    mixed_schema,
    drifting_file,
    shared_events,
)


def needs_of(checks: Iterable[ModuleType]) -> frozenset[str]:
    """Fields of the recording that these checks look at, beside the flow itself."""
    return frozenset(need for check in checks for need in getattr(check, "NEEDS", ()))


def wishes_of(checks: Iterable[ModuleType]) -> frozenset[str]:
    """Fields without which these checks can judge, but that say more of what they find."""
    told = frozenset().union(*SPEAKS_TO.values())
    return frozenset({"effects"}) if any(check.NAME in told for check in checks) else frozenset()


def chosen(select: Sequence[str] = (), ignore: Sequence[str] = ()) -> tuple[ModuleType, ...]:
    """The checks that options ask for, in display order.

    Args:
        select: Codes or names, or the first letters of codes; none for all.
        ignore: The same, to be left out.

    Raises:
        IcediagError: One that means no check.
    """

    def meant(word: str) -> set[str]:
        codes = {
            check.CODE
            for check in CHECKS
            if check.CODE.startswith(word.upper()) or word.lower() == check.NAME
        }
        if not word or not codes:
            known = ", ".join(f"{check.CODE} {check.NAME}" for check in CHECKS)
            raise IcediagError(f"checks: expected codes or names of checks, got {word!r}; {known}")
        return codes

    kept = set().union(*map(meant, select)) if select else {check.CODE for check in CHECKS}
    kept -= set().union(*map(meant, ignore))
    return tuple(check for check in CHECKS if check.CODE in kept)


def judge(recording: Recording, checks: Sequence[ModuleType] = CHECKS) -> Diagnosis:
    """Let checks look at a recording.

    A check whose facts (`NEEDS`, fields of the recording) were not asked for is passed over; one
    whose facts were asked for and could not be had, could not judge. What the instruments could not
    see is listed with what could not be judged.
    """
    findings: list[Finding] = []
    not_judged: list[Unjudged] = list(recording.not_judged)
    looked: list[str] = []
    failed = {item.name: item.reason for item in recording.not_judged}
    for module in checks:
        missing = [need for need in needs_of([module]) if getattr(recording, need) is None]
        if missing:
            why = [failed[need] for need in missing if need in failed]
            not_judged.extend(Unjudged(name=module.NAME, reason=reason) for reason in why[:1])
            continue
        check: Callable[[Recording], tuple[Finding, ...] | Unjudged] = module.check
        looked.append(module.NAME)
        try:
            answer = check(recording)
        except Exception as error:  # a fault of ours, or of the file: the other checks go on
            kind = type(error).__name__
            answer = Unjudged(name=module.NAME, reason=f"{FAILED}: {kind}: {error}")
        if isinstance(answer, Unjudged):
            not_judged.append(answer)
        else:
            findings.extend(answer)
    return Diagnosis(
        pipeline=recording.pipeline,
        findings=ranked(with_effects(findings, recording.effects)),
        not_judged=tuple(not_judged),
        checks=tuple(looked),
    )
