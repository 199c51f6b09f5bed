"""The audit of a data set: figures against a plain twin, and one corrupted copy a fault."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from icediag.checks import chosen, judge
from icediag.finding import Finding
from icediag.instruments.audit import audit, blocks, run, table
from icediag.instruments.audit.charges import Charges
from icediag.instruments.audit.histograms import FLOAT_ERROR, Counted, Floats
from icediag.instruments.audit.idset import IdSet
from icediag.model.simulate import default_events
from icediag.model.table import write_dataset
from icediag.recording import Recording
from icediag.records.data import DataRecord
from icediag.reports.data import render_data
from icediag.reports.data_page import draw_data

EVENTS = 240
PER_FILE = 80
SHARED = Path(__file__).parents[2] / "shared" / "data" / "oscnext5"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """240 events in three files."""
    root = tmp_path_factory.mktemp("clean") / "data"
    write_dataset(default_events(EVENTS)[0], root, events_per_file=PER_FILE)
    return root


@pytest.fixture
def data(source: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(source, tmp_path / "data"))


def findings(record: DataRecord) -> tuple[Finding, ...]:
    recording = Recording(pipeline="data", batch_size=0, data=record)
    again = Recording.from_json(recording.to_json())
    assert again == recording
    return judge(again, chosen(["D"])).findings


def names(record: DataRecord) -> set[str]:
    return {finding.name for finding in findings(record)}


def pulses(data: Path, batch: int, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    """Rewrite a file of pulses."""
    path = data / "train" / f"batch_{batch}.parquet"
    frame = change(pq.read_table(path).to_pandas(ignore_metadata=True))
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), path)


def meta(data: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    """Rewrite the table of events."""
    path = data / "train_meta.parquet"
    frame = change(pq.read_table(path).to_pandas(ignore_metadata=True))
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), path)


def put(column: str, row: int, value: object) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        values = frame[column].to_numpy().copy()
        values[row] = value
        return frame.assign(**{column: values})

    return change


@pytest.mark.parametrize("block", [50, 1000, 2**18])
def test_a_clean_data_set_gives_no_finding(
    source: Path, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BLOCK", block)
    monkeypatch.setattr(table, "BLOCK", 7)
    record = audit(source)
    assert findings(record) == ()
    assert record.faults == ()
    assert record.events == EVENTS
    assert len(record.files) == record.files_there == 3
    twin_of(source, record)


def twin_of(source: Path, record: DataRecord) -> None:
    """The figures from all rows at once."""
    frame = pd.concat(
        pq.read_table(path).to_pandas(ignore_metadata=True)
        for path in sorted((source / "train").iterdir())
    )
    assert record.pulses == len(frame)
    by_event = frame.groupby("event_id")
    for name, values in (
        ("pulses per event", by_event.size()),
        ("DOMs per event", by_event["sensor_id"].nunique()),
        ("time", frame["time"]),
        ("first pulse", by_event["time"].min()),
        ("last pulse", by_event["time"].max()),
    ):
        found = record.distribution(name)
        assert found is not None
        assert found.count == len(values)
        assert found.mean == pytest.approx(values.mean())
        assert found.std == pytest.approx(values.std(ddof=0))
        assert (found.minimum, found.maximum) == (values.min(), values.max())
        for text, value in found.quantiles.items():
            assert value == np.quantile(values, float(text), method="inverted_cdf")
        assert sum(found.counts) == found.count
    charge = record.distribution("charge")
    assert charge is not None
    assert charge.error == 0
    assert (charge.minimum, charge.maximum) == (frame["charge"].min(), frame["charge"].max())
    assert charge.mean == pytest.approx(frame["charge"].mean())
    assert charge.std == pytest.approx(frame["charge"].std(ddof=0))
    for text, value in charge.quantiles.items():
        assert value == np.quantile(frame["charge"], float(text), method="inverted_cdf")
    assert sum(charge.counts) == len(frame)
    per_dom = frame.groupby(["event_id", "sensor_id"]).size()
    assert record.pulses_per_dom["1"] == pytest.approx((per_dom == 1).mean())
    assert record.pulses_per_dom["more"] == pytest.approx((per_dom > 10).mean())
    assert record.auxiliary == pytest.approx(frame["auxiliary"].mean())


def test_without_event_ids_the_table_says_what_an_event_is(data: Path) -> None:
    for batch in (1, 2, 3):
        pulses(data, batch, lambda frame: frame.drop(columns="event_id"))
    record = audit(data)
    assert findings(record) == ()
    lengths = record.distribution("pulses per event")
    assert lengths is not None
    assert lengths.count == EVENTS
    meta(data, lambda frame: frame.assign(last_pulse_index=frame.last_pulse_index + 1))
    assert names(audit(data)) == {"rows-off"}


@pytest.mark.skipif(not SHARED.is_dir(), reason="the five real events are not here")
def test_five_real_events_give_no_finding() -> None:
    record = audit(SHARED)
    assert findings(record) == ()
    assert record.pulses == 56


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0, 0.0])
def test_impossible_charge(data: Path, value: float) -> None:
    pulses(data, 2, put("charge", 17, value))
    (finding,) = findings(audit(data))
    assert finding.name == "impossible-value"
    assert finding.severity == "error"
    assert finding.evidence["row"] == 17
    assert finding.evidence["count"] == 1
    assert "batch_2.parquet" in finding.message


def test_a_charge_that_is_missing_is_one_that_is_not_finite(data: Path) -> None:
    path = data / "train" / "batch_1.parquet"
    columns = pq.read_table(path)
    charge = columns["charge"].to_pylist()
    charge[3] = None
    at = columns.schema.get_field_index("charge")
    pq.write_table(columns.set_column(at, "charge", pa.array(charge)), path)
    assert names(audit(data)) == {"impossible-value"}


@pytest.mark.parametrize("sensor", [5160, -1])
def test_sensor_out_of_range(data: Path, sensor: int) -> None:
    pulses(data, 1, put("sensor_id", 5, sensor))
    (finding,) = findings(audit(data))
    assert finding.name == "sensor-out-of-range"
    assert finding.evidence["example"] == str(sensor)


def test_unsorted_times(data: Path) -> None:
    pulses(data, 3, lambda f: put("time", 4, int(f["time"][3]) - 1)(f))
    (finding,) = findings(audit(data))
    assert (finding.name, finding.severity) == ("unsorted-times", "note")
    assert finding.evidence["count"] == 1
    assert finding.evidence["row"] == 4


def test_repeated_event_in_the_table(data: Path) -> None:
    # Under another batch too: the copy of a file.
    meta(data, lambda frame: put("event_id", PER_FILE, 3)(frame))
    assert "repeated-event" in names(audit(data))


def test_repeated_file(data: Path) -> None:
    shutil.copy(data / "train" / "batch_1.parquet", data / "train" / "batch_4.parquet")
    copy = pq.read_table(data / "train_meta.parquet").to_pandas().query("batch_id == 1")
    meta(data, lambda frame: pd.concat([frame, copy.assign(batch_id=4)]))
    (finding,) = findings(audit(data))
    assert finding.name == "repeated-event"
    assert finding.evidence["count"] == PER_FILE


def test_repeated_event_in_a_file(data: Path) -> None:
    pulses(data, 1, lambda frame: frame.assign(event_id=frame["event_id"].replace(40, 2)))
    assert names(audit(data)) == {"repeated-event", "missing-event"}


def test_missing_event(data: Path) -> None:
    pulses(data, 3, lambda frame: frame[frame["event_id"] != EVENTS - 1])
    (finding,) = findings(audit(data))
    assert (finding.name, finding.severity) == ("missing-event", "error")
    assert finding.evidence["count"] == 1
    assert f"event {EVENTS - 1} " in finding.message


def test_pulses_of_no_event(data: Path) -> None:
    meta(data, lambda frame: frame[frame["event_id"] != 7])
    (finding,) = findings(audit(data))
    assert (finding.name, finding.severity) == ("missing-event", "warning")


def test_missing_file(data: Path) -> None:
    (data / "train" / "batch_2.parquet").unlink()
    (finding,) = findings(audit(data))
    assert (finding.name, finding.severity) == ("missing-event", "note")
    assert findings(audit(data, files=1)) == (), "a quick look at one file misses none"


def test_rows_counted_exclusively(data: Path) -> None:
    meta(data, lambda frame: frame.assign(last_pulse_index=frame.last_pulse_index + 1))
    (finding,) = findings(audit(data))
    assert finding.name == "rows-off"
    assert "exclusively" in finding.message
    assert finding.evidence["count"] == EVENTS


def test_rows_off_by_one(data: Path) -> None:
    meta(data, lambda frame: put("first_pulse_index", 100, frame.first_pulse_index[100] + 1)(frame))
    (finding,) = findings(audit(data))
    assert finding.name == "rows-off"
    assert finding.evidence["count"] == 1
    assert finding.evidence["row"] == 100


@pytest.mark.parametrize(("column", "value"), [("azimuth", 6.4), ("zenith", np.nan)])
def test_truth_out_of_its_domain(data: Path, column: str, value: float) -> None:
    meta(data, put(column, 9, value))
    (finding,) = findings(audit(data))
    assert finding.name == "impossible-truth"
    assert "outside" in finding.message
    assert finding.evidence["row"] == 9


def test_truth_in_degrees(data: Path) -> None:
    meta(
        data,
        lambda f: f.assign(azimuth=np.rad2deg(f["azimuth"]), zenith=np.rad2deg(f["zenith"])),
    )
    found = findings(audit(data))
    assert {finding.name for finding in found} == {"impossible-truth"}
    assert "degrees" in found[0].message


def test_mixed_schema(data: Path) -> None:
    pulses(data, 2, lambda frame: frame.assign(charge=frame["charge"].astype("float32")))
    (finding,) = findings(audit(data))
    assert finding.name == "mixed-schema"
    assert "charge float" in finding.message


def test_unreadable_file(data: Path) -> None:
    path = data / "train" / "batch_2.parquet"
    path.write_bytes(path.read_bytes()[:-1000])
    found = findings(audit(data))
    assert [finding.name for finding in found] == ["unreadable-file"]
    assert "batch_2.parquet" in found[0].message


def test_damaged_pages(data: Path) -> None:
    path = data / "train" / "batch_2.parquet"
    content = bytearray(path.read_bytes())
    content[100:-4000] = bytes(len(content) - 4100)
    path.write_bytes(bytes(content))
    assert "unreadable-file" in names(audit(data))


def test_drifting_file(data: Path) -> None:
    pulses(data, 3, lambda frame: frame.assign(charge=frame["charge"] * 3))
    (finding,) = findings(audit(data))
    assert finding.name == "drifting-file"
    assert finding.evidence["quantity"] == "mean charge (p.e.)"
    assert finding.evidence["median"] == pytest.approx(
        3 * finding.evidence["median_of_others"], rel=0.3
    )
    assert "batch_3.parquet" in finding.message


def test_shared_events(source: Path, data: Path) -> None:
    meta(data, lambda frame: frame[frame["batch_id"] == 3])
    (finding,) = findings(audit(source, validation=data))
    assert (finding.name, finding.severity) == ("shared-events", "error")
    assert finding.evidence["same_truth"] == PER_FILE
    assert findings(audit(source, files=2, validation=data)) == ()
    # The same ids for other events are no overlap; with equal lengths they are worth a look.
    meta(data, lambda frame: frame.assign(azimuth=frame["azimuth"] / 2))
    (finding,) = findings(audit(source, validation=data))
    assert finding.severity == "note"


def test_the_table_in_any_order(data: Path) -> None:
    meta(data, lambda frame: frame.sample(frac=1, random_state=1))
    record = audit(data)
    assert findings(record) == ()
    assert record.events == EVENTS


@pytest.mark.parametrize("cores", [1, 2, 3])
def test_nothing_hangs_on_the_number_of_threads(
    source: Path, data: Path, cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Off the grid the sum of charges has a last bit; a file in the middle is damaged."""
    usual = audit(source)
    pulses(data, 1, lambda frame: frame.assign(charge=frame.charge * 1.1))
    pulses(data, 3, put("charge", 3, -1.0))
    path = data / "train" / "batch_2.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    monkeypatch.setattr(run, "_cores", lambda: 2)
    expected = audit(data)
    monkeypatch.setattr(run, "_cores", lambda: cores)
    assert audit(source) == usual
    assert audit(data) == expected
    kinds = [fault.fault for fault in expected.faults]
    assert kinds == ["file-unreadable", "charge-not-positive"]


def test_samples_are_spread(source: Path) -> None:
    assert [f.file for f in audit(source, sample=2).files] == [
        "train/batch_1.parquet",
        "train/batch_3.parquet",
    ]
    assert [f.file for f in audit(source, files=2).files] == [
        "train/batch_1.parquet",
        "train/batch_2.parquet",
    ]


def test_normalization_is_settled(source: Path) -> None:
    time = audit(source).normalization[0]
    assert (time.shift, time.scale) == (1e4, 3e4)
    assert time.minimum < 0
    assert 0.05 < time.spread < 0.2
    assert time.narrow
    everything = pd.concat(
        pq.read_table(path, columns=["time"]).to_pandas(ignore_metadata=True)
        for path in (source / "train").iterdir()
    )["time"]
    fitted = (everything - time.fitted_shift) / time.fitted_scale
    assert fitted.median() == pytest.approx(0, abs=1e-3)
    low, high = fitted.quantile([0.1587, 0.8413])
    assert (high - low) / 2 == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    "kind",
    [pa.bool_(), pa.int8(), pa.int64(), pa.uint16(), pa.uint64(), pa.float32(), pa.float64()],
)
@pytest.mark.parametrize("missing", [False, True])
def test_columns_are_read_as_they_are(kind: pa.DataType, missing: bool) -> None:
    values = np.random.default_rng(0).integers(0, 2, 40).tolist()
    column: Any = pa.array(
        [None if missing and i == 20 else v for i, v in enumerate(values)], pa.int8()
    )
    column = column.cast(kind)
    for low, high in ((0, 40), (3, 29), (11, 24), (7, 7), (40, 40)):
        part = column.slice(low, high - low)
        found = blocks.values_of(part)
        np.testing.assert_array_equal(found, part.to_numpy(zero_copy_only=False).astype(float))
        if not part.null_count:
            assert found.dtype == column.slice(0, 1).to_numpy(zero_copy_only=False).dtype


@given(st.lists(st.floats(width=32), max_size=50))
def test_floats_are_counted_by_kind(values: list[float]) -> None:
    floats = Floats()
    array = np.array(values, np.float64)
    not_finite, not_positive = floats.add(array)
    assert not_finite == (~np.isfinite(array)).sum()
    # What is smaller than 1e-40 counts as 0.
    assert not_positive == (np.isfinite(array) & (array < 2.4e-41)).sum()


ON_GRID = st.integers(0, 70_000).map(lambda step: round((step + 0.5) / 20, 3))
ANY_CHARGE = st.one_of(ON_GRID, st.floats(1e-3, 1e7), st.sampled_from([np.nan, np.inf, -1.0, 0.0]))


@given(st.lists(st.lists(ANY_CHARGE, max_size=8), max_size=4))
def test_charges_on_the_grid_and_off_it_against_a_plain_twin(parts: list[list[float]]) -> None:
    charges = Charges()
    told = [charges.add(np.array(part)) for part in parts]
    everything = np.array([charge for part in parts for charge in part])
    finite = everything[np.isfinite(everything)]
    assert sum(bad for bad, _ in told) == len(everything) - len(finite)
    assert sum(bad for _, bad in told) == (finite <= 0).sum()
    found = charges.distribution("charge", "p.e.")
    assert found.count == len(finite)
    if not len(finite):
        return
    assert (found.minimum, found.maximum) == (finite.min(), finite.max())
    assert found.mean == pytest.approx(finite.mean())
    assert found.std == pytest.approx(finite.std(), rel=1e-6, abs=1e-6 * abs(finite).max())
    positive = np.maximum(finite, 0)
    for text, value in found.quantiles.items():
        exact = np.quantile(positive, float(text), method="inverted_cdf")
        # Bins hold float32.
        assert value == pytest.approx(exact, rel=FLOAT_ERROR + 1e-6, abs=1e-30)
        if found.error == 0:
            assert value == exact
    if (np.abs(finite * 20 % 1 - 0.5) < 1e-9).all() and finite.max() < 3000:
        assert found.error == 0


@given(
    st.lists(st.lists(st.integers(-300, 900), max_size=50), max_size=4),
    st.sampled_from([(-200, 500), (0, 800)]),
    st.sampled_from([np.int16, np.int64, np.float64]),
)
def test_whole_numbers_are_counted_one_by_one(
    parts: list[list[int]], ends: tuple[int, int], kind: type
) -> None:
    counted = Counted(low=ends[0], high=ends[1])
    for part in parts:
        counted.add(np.array(part, kind))
    everything = [value for part in parts for value in part]
    for at in range(ends[0], ends[1] + 1):
        assert counted.counts[at - ends[0]] == np.clip(everything, *ends).tolist().count(at)
    if everything:
        assert (counted.least, counted.most) == (min(everything), max(everything))


@given(st.sets(st.integers(-(2**40), 2**40), max_size=40), st.data())
def test_id_set_is_a_set(ids: set[int], draw: st.DataObject) -> None:
    seen, twin = IdSet(), set[int]()
    for _ in range(3):
        some = sorted(draw.draw(st.sets(st.sampled_from(sorted(ids) or [0]), max_size=20)))
        array = np.array(some, np.int64)
        assert seen.contains(array).tolist() == [i in twin for i in some]
        seen.add(array)
        twin |= set(some)


def test_the_report_and_the_page(source: Path) -> None:
    record = audit(source, competition=True)
    recording = Recording(pipeline="data", batch_size=0, data=record)
    text = render_data(record, judge(recording, chosen(["D"])), width=100)
    for words in ("nothing found", "values below 0 are no fault", "narrow, time", "published"):
        assert words in text
    assert b"<svg" in draw_data(record, "svg")


def test_figures_are_compared_with_published_ones(source: Path) -> None:
    rows = {row.quantity: row for row in audit(source, competition=True).comparison}
    middle = rows["pulses per event, P50"]
    assert (middle.published, middle.off) == (63, False)
    assert middle.ratio == pytest.approx(middle.here / 63)
