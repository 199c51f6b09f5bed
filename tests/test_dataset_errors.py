from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from icediag.model.dataset import IceCubeDataset
from icediag.model.errors import DataError
from tests.data_files import LENGTHS, Columns, Written, assert_event, make, write, write_lengths


@pytest.fixture
def written(tmp_path: Path) -> Written:
    return write_lengths(tmp_path / "data", LENGTHS, row_group_size=4, meta_row_group_size=3)


Change = Callable[[dict[int, Columns], Columns], None]


def pulse(column: str, row: int, value: object, dtype: type | None = None) -> Change:
    """Changes one value of batch 7, of which row 0..7 are all in use."""

    def change(pulses: dict[int, Columns], meta: Columns) -> None:
        if dtype is not None:
            pulses[7][column] = pulses[7][column].astype(dtype)
        pulses[7][column][row] = value

    return change


def meta_value(column: str, row: int, value: object) -> Change:
    def change(pulses: dict[int, Columns], meta: Columns) -> None:
        meta[column][row] = value

    return change


def retyped(table: str, column: str, dtype: object) -> Change:
    def change(pulses: dict[int, Columns], meta: Columns) -> None:
        columns = meta if table == "meta" else pulses[7]
        columns[column] = columns[column].astype(dtype)  # type: ignore[call-overload]

    return change


def without(table: str, column: str) -> Change:
    def change(pulses: dict[int, Columns], meta: Columns) -> None:
        del (meta if table == "meta" else pulses[7])[column]

    return change


BATCH = "train/batch_7.parquet"
META = "train_meta.parquet"

BAD_CONTENT: list[tuple[Change, tuple[str, ...]]] = [
    (pulse("sensor_id", 5, 5160), (BATCH, "'sensor_id'", "row 5 ", "0..5159", "got 5160")),
    (pulse("sensor_id", 0, -1), (BATCH, "'sensor_id'", "row 0 ", "0..5159", "got -1")),
    (pulse("charge", 6, np.nan), (BATCH, "'charge'", "row 6 ", "finite", "got nan")),
    (pulse("charge", 6, np.inf), (BATCH, "'charge'", "row 6 ", "finite", "got inf")),
    (pulse("charge", 6, -0.5), (BATCH, "'charge'", "row 6 ", ">= 0", "got -0.5")),
    (pulse("charge", 6, 1e39), (BATCH, "'charge'", "row 6 ", "float32", "got 1e+39")),
    (pulse("charge", 6, np.nan, np.float16), (BATCH, "'charge'", "row 6 ", "got nan")),
    (pulse("time", 7, 2**24 + 1), (BATCH, "'time'", "row 7 ", "2**24", "got 16777217")),
    (pulse("time", 7, -(2**63)), (BATCH, "'time'", "row 7 ", "2**24", "got -9223")),
    (pulse("auxiliary", 2, 2, np.int8), (BATCH, "'auxiliary'", "row 2 ", "0 or 1", "got 2")),
    (pulse("event_id", 4, 5), (BATCH, "'event_id'", "row 4 ", META, "got 5")),
    (retyped("pulses", "time", str), (BATCH, "'time'", "integer type", "got string")),
    (retyped("pulses", "time", float), (BATCH, "'time'", "integer type", "got double")),
    (retyped("pulses", "charge", str), (BATCH, "'charge'", "floating-point", "got string")),
    (retyped("pulses", "sensor_id", float), (BATCH, "'sensor_id'", "integer", "got double")),
    (retyped("pulses", "auxiliary", float), (BATCH, "'auxiliary'", "bool", "got double")),
    (retyped("pulses", "event_id", str), (BATCH, "'event_id'", "integer type", "got string")),
    (without("pulses", "charge"), (BATCH, "'charge'", "got none", "columns: sensor_id, time")),
    (meta_value("last_pulse_index", 8, 8), (META, "'last_pulse_index'", "row 8 ", BATCH, "got 8")),
    (meta_value("first_pulse_index", 7, -1), (META, "'first_pulse_index'", "row 7 ", "got -1")),
    (meta_value("last_pulse_index", 7, -2), (META, "'last_pulse_index'", "row 7 ", "got -2")),
    (meta_value("last_pulse_index", 7, 2**40), (META, "'last_pulse_index'", "row 7 ", "2**31")),
    (meta_value("last_pulse_index", 7, 2**63 - 1), (META, "'last_pulse_index'", "row 7 ", "2**31")),
    (meta_value("azimuth", 9, 6.3), (META, "'azimuth'", "row 9 ", "[0, 2 pi]", "got 6.3")),
    (meta_value("azimuth", 9, -0.1), (META, "'azimuth'", "row 9 ", "[0, 2 pi]", "got -0.1")),
    (meta_value("zenith", 9, 3.2), (META, "'zenith'", "row 9 ", "[0, pi]", "got 3.2")),
    (meta_value("zenith", 9, np.nan), (META, "'zenith'", "row 9 ", "[0, pi]", "got nan")),
    (retyped("meta", "zenith", str), (META, "'zenith'", "floating-point", "got string")),
    (retyped("meta", "batch_id", float), (META, "'batch_id'", "integer type", "got double")),
    (without("meta", "event_id"), (META, "'event_id'", "got none", "columns: batch_id")),
]


def read_all(root: Path) -> None:
    dataset = IceCubeDataset(root)
    dataset.__getitems__(range(len(dataset)))


def assert_error(parts: tuple[str, ...], action: Callable[[], object]) -> str:
    with pytest.raises(DataError) as caught:
        action()
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    for part in parts:
        assert part in message
    return message


class TestBadContent:
    @pytest.mark.parametrize(
        ("change", "parts"), BAD_CONTENT, ids=[" ".join(b[1]) for b in BAD_CONTENT]
    )
    @pytest.mark.parametrize("row_group_size", [3, 1_000])
    def test_is_named(
        self, tmp_path: Path, change: Change, parts: tuple[str, ...], row_group_size: int
    ) -> None:
        pulses, meta = make(LENGTHS)
        write(tmp_path, pulses, meta, row_group_size=row_group_size)
        read_all(tmp_path)  # good before the change
        change(pulses, meta)
        write(
            tmp_path,
            pulses,
            meta,
            row_group_size=row_group_size,
            meta_row_group_size=row_group_size,
        )
        assert_error((str(tmp_path), *parts), lambda: read_all(tmp_path))

    def test_only_the_pulses_asked_for_are_judged(self, tmp_path: Path) -> None:
        pulses, meta = make(LENGTHS)
        pulse("charge", 7, -1.0)(pulses, meta)
        write(tmp_path, pulses, meta, row_group_size=4)
        dataset = IceCubeDataset(tmp_path)
        assert len(dataset[7].pulse_features) == 4
        assert_error((BATCH, "row 7 "), lambda: dataset[8])
        assert_error((BATCH, "row 7 "), lambda: dataset[8])  # and again: it is not cached as good

    def test_null_is_named(self, tmp_path: Path) -> None:
        write_lengths(tmp_path, LENGTHS)
        for path, row in ((tmp_path / BATCH, 3), (tmp_path / META, 9)):
            table = pq.read_table(path)
            for name in table.column_names:
                index = table.column_names.index(name)
                values = table.column(index).to_pylist()
                values[row] = None
                column = pa.array(values, table.schema.field(index).type)
                pq.write_table(table.set_column(index, name, column), path)
                assert_error(
                    (str(path), f"'{name}'", f"row {row} ", "got null"), lambda: read_all(tmp_path)
                )
            pq.write_table(table, path)
        read_all(tmp_path)

    def test_duplicate_event_ids_name_both_rows_also_across_files(self, tmp_path: Path) -> None:
        pulses, meta = make(LENGTHS)
        meta["event_id"][9] = meta["event_id"][4]
        write(tmp_path, pulses, meta, meta_row_group_size=2)
        twice = str(meta["event_id"][4])
        assert_error((META, "'event_id'", "rows 4 and 9 ", twice), lambda: IceCubeDataset(tmp_path))
        # Of rows that are not used nothing is asked.
        assert len(IceCubeDataset(tmp_path, files=[1, 7])) == 9

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_angles_at_their_ends_as_float32_rounds_them_are_good(
        self, tmp_path: Path, dtype: type
    ) -> None:
        pulses, meta = make({1: [1, 1]})
        meta["azimuth"] = np.array([0, 2 * np.pi], np.float32).astype(dtype)
        meta["zenith"] = np.array([0, np.pi], np.float32).astype(dtype)
        assert float(meta["azimuth"][1]) > 2 * np.pi  # rounded up
        write(tmp_path, pulses, meta)
        assert len(IceCubeDataset(tmp_path)) == 2

    def test_rows_that_belong_to_no_event_are_no_fault(self, tmp_path: Path) -> None:
        pulses, meta = make({1: [2, 3, 4]})
        meta = {name: values[[0, 2]] for name, values in meta.items()}
        written = write(tmp_path, pulses, meta, row_group_size=3)
        dataset = IceCubeDataset(tmp_path)
        for i in (0, 1):
            assert_event(dataset[i], written, i)


class TestBadFiles:
    def test_missing_things_are_named(self, written: Written) -> None:
        root = written.root
        assert_error(
            (str(root / "no"), "expected a directory", "nothing there"),
            lambda: IceCubeDataset(root / "no"),
        )
        assert_error(
            (str(root / META), "expected a directory", "a file"),
            lambda: IceCubeDataset(root / META),
        )
        assert_error(
            ("train/batch_8.parquet", "batch 8 is asked for"),
            lambda: IceCubeDataset(root, files=[8]),
        )
        (root / META).unlink()
        assert_error((str(root / META), "found none"), lambda: IceCubeDataset(root))
        for path in (root / "train").iterdir():
            path.unlink()
        assert_error((str(root / "train"), "batch_N", "none"), lambda: IceCubeDataset(root))
        (root / "train").rmdir()
        assert_error((str(root / "train"), "nothing there"), lambda: IceCubeDataset(root))

    def test_a_batch_without_meta_rows_is_an_error(self, tmp_path: Path) -> None:
        pulses, meta = make(LENGTHS)
        kept = meta["batch_id"] != 7
        write(tmp_path, pulses, {name: values[kept] for name, values in meta.items()})
        assert_error((META, "'batch_id'", BATCH, "got none"), lambda: IceCubeDataset(tmp_path))
        assert len(IceCubeDataset(tmp_path, files=[1, 30])) == 8

    def test_an_empty_meta_table_is_an_error(self, tmp_path: Path) -> None:
        pulses, meta = make({1: [2]})
        write(tmp_path, pulses, {name: values[:0] for name, values in meta.items()})
        assert_error((META, "'batch_id'", "got none"), lambda: IceCubeDataset(tmp_path))

    def test_a_file_gone_later_is_named(self, written: Written) -> None:
        dataset = IceCubeDataset(written.root)
        (written.root / BATCH).unlink()
        dataset[0]
        assert_error((BATCH, "found none"), lambda: dataset[7])

    @pytest.mark.parametrize("name", [BATCH, META])
    @pytest.mark.parametrize("kept", [0, 3, 100, -1, -200])
    def test_truncated_files_are_named(self, written: Written, name: str, kept: int) -> None:
        path = written.root / name
        path.write_bytes(path.read_bytes()[:kept])
        assert_error((str(path), "Parquet"), lambda: read_all(written.root))

    @pytest.mark.parametrize("name", [BATCH, META])
    def test_damaged_pages_are_named(self, tmp_path: Path, name: str) -> None:
        write_lengths(tmp_path, {7: [50] * 40})
        path = tmp_path / name
        data = bytearray(path.read_bytes())
        data[4:60] = b"\xff" * 56  # the first page; the footer stays good
        path.write_bytes(bytes(data))
        assert_error((str(path), "row group 0"), lambda: read_all(tmp_path))

    def test_a_file_that_is_no_parquet_is_named(self, written: Written) -> None:
        (written.root / BATCH).write_text("event_id,time\n" * 9)
        assert_error((BATCH, "Parquet"), lambda: read_all(written.root))

    def test_check_files_finds_it_before_it_is_read(self, written: Written) -> None:
        dataset = IceCubeDataset(written.root, max_open_files=1)
        dataset.check_files()
        assert not dataset._cache
        (written.root / BATCH).write_bytes(b"PAR1")
        dataset = IceCubeDataset(written.root)
        assert_error((BATCH, "Parquet"), dataset.check_files)

    def test_a_line_break_in_a_path_stays_out_of_the_message(self, tmp_path: Path) -> None:
        assert_error(
            ("two lines", "nothing there"), lambda: IceCubeDataset(tmp_path / "two\nlines")
        )

    def test_the_path_is_as_given(self, written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(written.root.parent)
        (written.root / BATCH).write_bytes(b"")
        message = assert_error((BATCH,), lambda: read_all(Path("data")))
        assert message.startswith(f"data/{BATCH}: ")


class TestArguments:
    @pytest.mark.parametrize("files", [0, -1, True, [], [1, 1]])
    def test_files(self, written: Written, files: list[int] | int) -> None:
        with pytest.raises(ValueError, match=r"^files: expected .* got"):
            IceCubeDataset(written.root, files=files)

    def test_sizes(self, written: Written) -> None:
        with pytest.raises(ValueError, match=r"^cache_bytes: expected .*>= 0, got -1"):
            IceCubeDataset(written.root, cache_bytes=-1)
        with pytest.raises(ValueError, match=r"^max_open_files: expected .*>= 1, got 0"):
            IceCubeDataset(written.root, max_open_files=0)


def geometry_csv(path: Path, rows: list[str], header: str = "sensor_id,x,y,z") -> None:
    path.write_text("\n".join([header, *rows]) + "\n")


class TestGeometry:
    @pytest.fixture
    def rows(self) -> list[str]:
        return [f"{s},{s * 0.5},{-s},{s - 1000.25}" for s in range(5160)]

    def test_rows_are_sensors_whatever_their_order_in_the_file(
        self, written: Written, rows: list[str]
    ) -> None:
        geometry_csv(written.root / "sensor_geometry.csv", rows[::-1])
        positions = IceCubeDataset(written.root).geometry()
        assert positions.shape == (5160, 3)
        assert positions.dtype == torch.float32
        assert positions[7].tolist() == [3.5, -7, -993.25]

    def test_bad_files_are_named(self, written: Written, rows: list[str]) -> None:
        path = written.root / "sensor_geometry.csv"
        dataset = IceCubeDataset(written.root)

        def fails(*parts: str) -> None:
            assert_error((str(path), *parts), dataset.geometry)

        fails("found none")
        geometry_csv(path, rows, header="sensor_id,x,y,depth")
        fails("'z'", "got sensor_id, x, y, depth")
        geometry_csv(path, rows[:-1])
        fails("'sensor_id'", "5159 0 times")
        geometry_csv(path, [*rows, rows[3]])
        fails("'sensor_id'", "3 2 times")
        geometry_csv(path, [*rows, "5160,1,1,1"])
        fails("'sensor_id'", "row 5160 ", "0..5159", "got 5160")
        geometry_csv(path, ["0,one,2,3", *rows[1:]])
        fails("#1", "one")
        geometry_csv(path, ["0,1,nan,3", *rows[1:]])
        fails("'y'", "row 0 ", "finite", "got n")
        geometry_csv(path, ["0,1,,3", *rows[1:]])
        fails("'y'", "row 0 ", "finite", "got null")
        geometry_csv(path, ["0,1,3", *rows[1:]])
        fails("CSV", "3")
        path.write_bytes(b"")
        fails("CSV")
