"""A record of the clock that sets every field."""

from icediag.place import Location
from icediag.records.clock import (
    AccessRecord,
    ClockRecord,
    CollateClock,
    GrowingPlace,
    LoaderClock,
    MemoryRecord,
    StageClock,
    StageMemory,
)
from icediag.records.projection import LineProjection, ProjectionRecord, StageProjection

PLACE = Location(file="a/b.py", line=7)


def sample_clock() -> ClockRecord:
    return ClockRecord(
        device="cpu",
        machine="a laptop",
        timer="host clock",
        batch_size=4,
        wanted=8,
        stages=(
            StageClock(
                name="head",
                kind="module",
                depth=1,
                calls=2,
                total_s=(0.5, 0.25),
                self_s=(0.25, 0.125),
                location=PLACE,
            ),
        ),
        step_s=(1.0, 1.5),
        processor_s=(0.5, 0.75),
        marked_s=(1.25, 1.75),
        yardstick_s=(0.125, 0.25),
        yardstick_processor_s=(0.0625, 0.125),
        rounds=(1, 1),
        other_s=(0.5, 0.25),
        optimizer="AdamW",
        own_step=True,
        collate=CollateClock(
            samples=4,
            rows=9,
            bytes_in=36,
            bytes_out=72,
            collate_s=(0.5, 0.25),
            joined_s=(0.125, 0.0625),
            location=PLACE,
        ),
        loader=(LoaderClock(workers=1, own=True, wait_s=(0.5,), step_s=(1.5,)),),
        access=AccessRecord(
            samples=3,
            opens=3,
            files=1,
            most_opened="events.parquet",
            most_opens=3,
            read_calls=6,
            read_bytes=600,
            sample_bytes=60,
            decodes={"pandas.io.parquet:read_parquet": 3},
            tables={"pandas.DataFrame": 3},
            item_s=(0.5, 0.25, 0.25),
            copied_s=(0.125, 0.125, 0.125),
            batched=True,
            batched_opens=3,
            batched_tables={"pandas.DataFrame": 3},
            location=PLACE,
        ),
        memory=MemoryRecord(
            batch_size=4,
            peak_bytes=900,
            stages=(StageMemory(name="head", depth=1, peak_bytes=800, kept_bytes=-100),),
            left_bytes=(40, 80),
            left_tensors=(1, 2),
            left_graphs=(1, 2),
            growing=(GrowingPlace(stage="head", attribute="history", per_step=1, location=PLACE),),
        ),
        missing={"own loader": "no such disk"},
    )


def sample_projection() -> ProjectionRecord:
    return ProjectionRecord(
        device="h100",
        title="H100 SXM",
        source="a datasheet",
        constants={"bandwidth": 3e12, "kernel_s": 4e-6, "launch_s": 6e-6, "sync_s": 15e-6},
        rates={"float32": 67e12},
        batch_size=256,
        counted_at=(4, 8),
        extrapolated=True,
        stages=(
            StageProjection(
                phase="backward",
                stage="head",
                time_s=0.5,
                host_s=0.25,
                device_s=0.5,
                bound="bandwidth",
                operations=10.0,
                syncs=1.0,
                loop_s=0.125,
                launches=8.0,
                bytes=4096.0,
                padding_bytes=1024.0,
            ),
        ),
        lines=(
            LineProjection(
                location=PLACE,
                stage="head",
                axis="doms",
                order=1,
                operations=9.0,
                syncs=1.0,
                forward_s=0.25,
                backward_s=0.5,
            ),
        ),
        step_s=1.0,
        device_busy_s=0.5,
        lost_launches_s=0.25,
        lost_syncs_s=0.125,
        lost_python_s=0.125,
        lost_padding_s=0.0625,
        loops_s=0.75,
        unfitted=0.25,
    )
