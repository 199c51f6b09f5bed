"""The simulator: every event triggers, light is never early, seeds, grid, calibration."""

import dataclasses
import hashlib
import importlib
import os
import platform
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from icediag.model import cache, population, reach
from icediag.model import simulate as module
from icediag.model.array import icecube86
from icediag.model.errors import DataError
from icediag.model.light import C_LIGHT, MAX_EARLY, N_GROUP
from icediag.model.population import KINDS
from icediag.model.readout import (
    charges,
    event_of,
    event_time_order,
    keys,
    launches,
    noise,
    sensor_of,
    time_of,
    with_event,
)
from icediag.model.simulate import (
    Truth,
    default_dataset,
    default_events,
    simulate,
    simulate_with_truth,
)
from icediag.model.table import EventTable, write_dataset
from icediag.model.truth import FILE, read_truth, truth_table

N_EVENTS = 2000


@pytest.fixture(scope="module")
def simulated() -> tuple[EventTable, Truth]:
    return simulate_with_truth(N_EVENTS, seed=11)


def events_of(table: EventTable) -> np.ndarray:
    return np.repeat(np.arange(table.n_events), table.lengths)


def launch_twin(sensor: list[int], time: list[int]) -> tuple[list[bool], list[bool], list[bool]]:
    """By their definitions, pulse by pulse: which launch, are coincident, and are digitised."""
    last: dict[int, int] = {}
    starts = []
    for s, t in zip(sensor, time, strict=True):  # sorted by time
        starts.append(s not in last or t - last[s] > 2450)
        if starts[-1]:
            last[s] = t
    pulses = range(len(sensor))

    def partner(i: int, j: int) -> bool:
        same_string = sensor[i] // 60 == sensor[j] // 60
        near = 1 <= abs(sensor[i] % 60 - sensor[j] % 60) <= 2
        return starts[j] and same_string and near and abs(time[i] - time[j]) <= 1000

    hlc = [starts[i] and any(partner(i, j) for j in pulses) for i in pulses]
    digitised = [
        any(hlc[j] and sensor[j] == sensor[i] and 0 <= time[i] - time[j] <= 6400 for j in pulses)
        for i in pulses
    ]
    return starts, hlc, digitised


def test_flags_and_trigger_against_a_plain_twin(simulated: tuple[EventTable, Truth]) -> None:
    table, _ = simulated
    tried = 0
    for i in range(60):
        rows = slice(table.first[i], table.first[i + 1])
        sensor, time = table.sensor_id[rows].tolist(), table.time[rows].tolist()
        if len(sensor) > 300:
            continue
        tried += 1
        starts, hlc, digitised = launch_twin(sensor, time)
        assert [not flag for flag in digitised] == table.auxiliary[rows].tolist()
        # A launch that is not digitised left one pulse.
        assert all(start or flag for start, flag in zip(starts, digitised, strict=True))
        hits = [(t, s) for t, s, flag in zip(time, sensor, hlc, strict=True) if flag]
        assert any(len({s for t, s in hits if 0 <= t - t0 <= 5000}) >= 8 for t0, _ in hits)
    assert tried > 40


@given(st.lists(st.tuples(st.integers(55, 65), st.integers(0, 9000)), max_size=40))
def test_launches_against_a_plain_twin(hits: list[tuple[int, int]]) -> None:
    hits.sort(key=lambda hit: hit[1])
    sensor, time = np.array([h[0] for h in hits], int), np.array([h[1] for h in hits], int)
    starts, hlc, digitised = launch_twin(sensor.tolist(), time.tolist())
    key = keys(np.zeros(len(hits), int), sensor, time)
    order = np.argsort(key, kind="stable")
    lead, coincident, seen = launches(key[order])
    # Of two pulses of a DOM at one time, either may be the one that launches.
    assert sorted(zip(sensor[order][lead], time[order][lead], coincident, strict=True)) == sorted(
        (s, t, flag) for s, t, flag, start in zip(sensor, time, hlc, starts, strict=True) if start
    )
    assert seen.tolist() == np.array(digitised, bool)[order].tolist()


@given(
    st.lists(
        st.tuples(st.integers(0, 3000), st.integers(0, 5159), st.integers(-(2**20), 2**20)),
        max_size=40,
    )
)
def test_keys_carry_event_sensor_and_time(pulses: list[tuple[int, int, int]]) -> None:
    event, sensor, time = np.array(pulses, int).reshape(-1, 3).T
    key = keys(event, sensor, time)
    parts = [event_of(key), sensor_of(key), time_of(key)]
    assert list(zip(*(p.tolist() for p in parts), strict=True)) == pulses
    by_key = np.argsort(key, kind="stable")
    assert by_key.tolist() == np.lexsort((time, sensor, event)).tolist()
    assert event_time_order(key).tolist() == np.lexsort((sensor, time, event)).tolist()
    other = np.arange(3001)[::-1].copy()
    moved = with_event(key, other)
    assert moved.tolist() == keys(other[event], sensor, time).tolist()


def test_no_lit_dom_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """The DOMs of the stretches that are looked at, against all DOMs of the strings."""
    rng = np.random.default_rng(4)
    kind = rng.integers(0, len(KINDS), 300)
    towards = rng.standard_normal((300, 3))
    towards[:40, :2] *= 1e-4  # as good as vertical
    towards[40:80, 2] *= 1e-4
    towards /= np.linalg.norm(towards, axis=1, keepdims=True)
    sources, _ = population.candidates(kind, towards, icecube86(), rng)
    few = reach.reach().lit(sources)

    def whole(_: reach.Reach, *arguments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        string = arguments[4]
        return np.zeros(len(string), int), np.full(len(string), 60)

    tried = [0, 0]

    def counted(self: reach.Reach, *arguments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        first, n = usual(self, *arguments)
        tried[0] += int(n.sum())
        tried[1] += 60 * len(n)
        return first, n

    usual: Any = reach.Reach._window
    monkeypatch.setattr(reach.Reach, "_window", counted)
    assert np.array_equal(reach.reach().lit(sources)[1], few[1])
    assert tried[0] < 0.6 * tried[1]
    monkeypatch.setattr(reach.Reach, "_window", whole)
    assert len(few[0]) > 10_000
    for mine, theirs in zip(few, reach.reach().lit(sources), strict=True):
        assert np.asarray(mine).tobytes() == np.asarray(theirs).tobytes()


def test_every_event_triggers_near_ten_microseconds(simulated: tuple[EventTable, Truth]) -> None:
    table, _ = simulated
    hlc = ~table.auxiliary
    per_event = np.bincount(events_of(table)[hlc], minlength=N_EVENTS)
    assert per_event.min() >= 8
    first, last = table.first[:-1], table.first[1:] - 1
    # The readout begins 4,000 ns before the trigger, which falls within 9,712..10,000 ns.
    assert table.time[first].min() >= 5712
    assert np.median(table.time[first]) < 6300
    assert table.time[last].min() > 10_000
    assert table.time[last].max() < 100_000


def test_no_light_before_it_can_arrive(simulated: tuple[EventTable, Truth]) -> None:
    table, truth = simulated
    event = events_of(table)
    rows = np.flatnonzero(~truth.noise)
    rows = rows[np.linspace(0, len(rows) - 1, 4000).astype(int)]
    towards = np.stack(
        [
            np.cos(table.azimuth) * np.sin(table.zenith),
            np.sin(table.azimuth) * np.sin(table.zenith),
            np.cos(table.zenith),
        ],
        axis=1,
    )
    e = event[rows]
    w = icecube86()[table.sensor_id[rows]] - truth.vertex[e]
    # Independent of the Cherenkov formula: over all points of the track, the particle's way at c
    # and the light's straight way at the group velocity.
    s = np.linspace(0, 1, 1501)[None, :] * truth.length[e, None]
    along = -(w * towards[e]).sum(axis=1)[:, None]
    off = np.maximum((w**2).sum(axis=1)[:, None] - along**2, 0)
    arrival = (s + N_GROUP * np.sqrt(off + (along - s) ** 2)) / C_LIGHT
    delay = table.time[rows] - truth.vertex_time[e] - arrival.min(axis=1)
    # 2 ns: the grid of points, rounding to integers, and the nearest 0.5 m to a track.
    assert delay.min() >= -MAX_EARLY - 2.0
    prompt = ~truth.afterpulse[rows]
    assert (delay[prompt] < 100).mean() > 0.1, "some light should come straight"
    assert delay[~prompt].min() > 200


def test_charges_are_on_the_grid(simulated: tuple[EventTable, Truth]) -> None:
    table, _ = simulated
    steps = (table.charge - 0.025) / 0.05
    assert np.abs(steps - np.rint(steps)).max() < 1e-6
    assert table.charge.min() >= 0.025
    small = np.repeat(table.lengths < 100, table.lengths)
    assert table.charge[small].mean() == pytest.approx(1.0, rel=0.15)
    assert table.charge.max() <= 2762.5


def test_charges_add_up_where_pulses_are_merged() -> None:
    rng = np.random.default_rng(0)
    one = charges(np.zeros(20_000, dtype=bool), np.ones(20_000), rng)
    many = charges(np.zeros(20_000, dtype=bool), np.full(20_000, 50.0), rng)
    assert many.mean() / one.mean() == pytest.approx(50.0, rel=0.03)
    assert charges(np.ones(20_000, dtype=bool), np.ones(20_000), rng).min() >= 0.225
    assert charges(np.ones(9, dtype=bool), np.full(9, 1e6), rng).max() == 2762.475


def test_noise_has_its_rate() -> None:
    begin = np.full(2000, -300)
    event, sensor, time = noise(begin, begin + 11_100, np.random.default_rng(0))
    expected = 690e-9 * 5160 * 11_100
    assert len(event) / 2000 == pytest.approx(expected, rel=0.02)
    assert expected == pytest.approx(40, abs=1)
    assert time.min() >= -300
    assert time.max() < 10_800
    # Even over the window, and over the sensors.
    counts, _ = np.histogram(time, bins=10)
    assert np.ptp(counts) < 0.1 * counts.mean()
    assert sensor.min() < 10
    assert sensor.max() > 5150
    # Correlated: more DOMs with several pulses than chance gives.
    _, per_dom = np.unique(event * 5160 + sensor, return_counts=True)
    assert (per_dom > 1).mean() > 0.05


def test_pulses_are_sorted_and_in_range(simulated: tuple[EventTable, Truth]) -> None:
    table, truth = simulated
    assert len(table.time) == len(truth.noise)
    inside = np.ones(len(table.time) - 1, dtype=bool)
    inside[table.first[1:-1] - 1] = False
    assert (np.diff(table.time)[inside] >= 0).all()
    assert table.sensor_id.min() >= 0
    assert table.sensor_id.max() <= 5159
    assert len(np.unique(table.sensor_id)) > 5000


def columns(table: EventTable) -> dict[str, bytes]:
    return {f.name: getattr(table, f.name).tobytes() for f in dataclasses.fields(table)}


def head(table: EventTable, n: int) -> EventTable:
    p = int(table.first[n])
    return EventTable(
        event_id=table.event_id[:n],
        first=table.first[: n + 1],
        sensor_id=table.sensor_id[:p],
        time=table.time[:p],
        charge=table.charge[:p],
        auxiliary=table.auxiliary[:p],
        azimuth=table.azimuth[:n],
        zenith=table.zenith[:n],
    )


def test_seeds(simulated: tuple[EventTable, Truth]) -> None:
    table, _ = simulated
    for n in (0, 1, 30, 600):  # within a chunk and across two
        assert columns(simulate(n, seed=11)) == columns(head(table, n))
    other = simulate(30, seed=12)
    assert not np.array_equal(other.azimuth, table.azimuth[:30])
    named = simulate(30, seed=11, first_event_id=2**40)
    assert named.event_id.tolist() == list(range(2**40, 2**40 + 30))
    assert np.array_equal(named.time, head(table, 30).time)


#: The bytes of 600 events of seed 0, and where they were made: numpy, machine, C library, and the
#: vector instructions that numpy finds.
DIGEST = "2cf4b702357f775840c584f62344dbf0"
MADE_WITH = ("2.4", "x86_64", "glibc2.36", "X86_V3")

#: What does not hang on the last bit of a function, of the first events: kinds, and directions.
FIRST_KINDS = [0, 3, 0, 0, 0, 2, 0, 1, 3, 2, 0, 1]
FIRST_ANGLES = [
    3.3591171785806346, 2.2384064947608153, 1.9076280837348303, 2.1510299477908212,
    2.8609785555008287, 1.0790315041933827,
]  # fmt: skip


def made_with() -> tuple[str, ...]:
    found: dict[str, bool] = importlib.import_module(
        "numpy._core._multiarray_umath"
    ).__cpu_features__
    vectors = max((v for v in ("X86_V2", "X86_V3", "X86_V4", "ASIMD") if found.get(v)), default="")
    numbers = ".".join(np.__version__.split(".")[:2])
    return numbers, platform.machine(), "".join(platform.libc_ver()), vectors


def test_a_seed_gives_the_same_bytes_as_ever() -> None:
    """No change of the code may change an event, or what was calibrated and trained is void.

    Random numbers are PCG64 with Generator's random, integers, choice, normal, poisson, geometric,
    exponential and standard_gamma: from numpy 2.0 on the same everywhere, but not promised. Sines,
    logarithms, powers, tanh and exp come from the C library or numpy's vector code, and may differ
    in the last bit; then a pulse more or less is drawn, and all after it is other. So the bytes are
    compared where all that is as it was, and elsewhere what is drawn before.
    """
    table, truth = simulate_with_truth(600, seed=0)
    assert truth.kind[:12].tolist() == FIRST_KINDS
    angles = np.stack([table.azimuth, table.zenith], axis=1)[:3]
    assert angles.ravel().tolist() == pytest.approx(FIRST_ANGLES, rel=1e-12)
    if made_with() != MADE_WITH:
        pytest.skip(f"bytes are of {MADE_WITH}, this is {made_with()}")
    digest = hashlib.sha256()
    for part in (table, truth):
        for field in dataclasses.fields(part):
            column = np.ascontiguousarray(getattr(part, field.name))
            digest.update(f"{field.name} {column.dtype} {column.shape}".encode())
            digest.update(column.tobytes())
    assert digest.hexdigest()[:32] == DIGEST


@pytest.mark.slow
def test_workers_make_the_same() -> None:
    alone, shared = (simulate_with_truth(1100, seed=5, workers=n) for n in (1, 2))
    assert columns(alone[0]) == columns(shared[0])
    assert alone[1].energy.tobytes() == shared[1].energy.tobytes()


def test_a_giant_event_comes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """At 300 PeV an event has 100,000 pulses; the others of its chunk are none the worse."""
    usual = population._energies

    def one_giant(n: int, rng: np.random.Generator) -> np.ndarray:
        energy = usual(n, rng)
        energy[:4] = 3e8
        return energy

    monkeypatch.setattr(population, "_energies", one_giant)
    table, truth = simulate_with_truth(module._CHUNK, seed=2)
    assert table.lengths.max() > 100_000
    assert truth.energy[table.lengths.argmax()] == 3e8
    assert np.median(table.lengths) < 100
    giant = int(table.lengths.argmax())
    rows = slice(table.first[giant], table.first[giant + 1])
    assert (np.diff(table.time[rows]) >= 0).all()
    assert table.time[rows].max() < 200_000
    assert 5712 <= table.time[rows].min() < 10_000


def test_chunks_differ() -> None:
    chunk = module._CHUNK
    table = simulate(chunk + 5, seed=3)
    assert not np.array_equal(table.azimuth[:5], table.azimuth[chunk : chunk + 5])


def test_lengths_are_ragged(simulated: tuple[EventTable, Truth]) -> None:
    table, _ = simulated
    lengths = table.lengths
    assert lengths.max() / np.median(lengths) > 10
    # The competition's: P50 63, P75 89, P90 144, P95 221, P99 1177. 2,000 events scatter.
    for share, published, within in (
        (50, 63, 0.2),
        (75, 89, 0.2),
        (90, 144, 0.2),
        (95, 221, 0.3),
        (99, 1177, 0.6),
    ):
        assert np.percentile(lengths, share) == pytest.approx(published, rel=within)


def test_doms_and_truth_are_as_published(simulated: tuple[EventTable, Truth]) -> None:
    table, truth = simulated
    dom, per_dom = np.unique(events_of(table) * 5160 + table.sensor_id, return_counts=True)
    assert np.median(np.bincount(dom // 5160)) == pytest.approx(55, rel=0.15)
    assert (per_dom == 1).mean() == pytest.approx(0.78, rel=0.1)
    assert table.azimuth.mean() == pytest.approx(np.pi, abs=0.15)
    assert table.azimuth.std() == pytest.approx(1.814, abs=0.1)
    assert table.zenith.mean() == pytest.approx(1.534, abs=0.06)
    assert table.zenith.std() == pytest.approx(0.69, abs=0.05)
    assert set(truth.kind.tolist()) == set(range(len(KINDS)))
    assert (truth.length[truth.kind == KINDS.index("cascade")] == 0).all()


def test_direction_can_be_learnt(simulated: tuple[EventTable, Truth]) -> None:
    """LineFit on the HLC pulses, which knows nothing of the simulator, finds the direction."""
    table, truth = simulated
    hlc = ~table.auxiliary
    assert truth.noise[hlc].mean() < 0.05, "signal should dominate the HLC pulses"
    xyz = icecube86()
    angles = []
    for low, high in pairwise(table.first[:501]):
        use = hlc[low:high]
        t = table.time[low:high][use].astype(float)
        r = xyz[table.sensor_id[low:high][use]]
        v = ((r - r.mean(axis=0)) * (t - t.mean())[:, None]).sum(axis=0)
        angles.append(-v / np.linalg.norm(v))
    towards = np.stack(
        [
            np.cos(table.azimuth) * np.sin(table.zenith),
            np.sin(table.azimuth) * np.sin(table.zenith),
            np.cos(table.zenith),
        ],
        axis=1,
    )[:500]
    error = np.arccos(np.clip((np.array(angles) * towards).sum(axis=1), -1, 1))
    track = truth.kind[:500] == KINDS.index("through-going")
    assert error.mean() < 1.25  # knowing nothing: 1.57
    assert np.median(error[track]) < 0.6


@pytest.mark.parametrize("name", ["n_events", "seed", "first_event_id"])
@pytest.mark.parametrize("value", [-1, 1.0, True, "1"])
def test_bad_arguments(name: str, value: object) -> None:
    arguments: dict[str, object] = {"n_events": 1, name: value}
    with pytest.raises(ValueError, match=f"{name}: expected"):
        simulate(**arguments)  # type: ignore[arg-type]


def test_bad_workers() -> None:
    with pytest.raises(ValueError, match="workers: expected an integer of at least 1, got 0"):
        simulate(1, workers=0)


def test_an_event_that_cannot_trigger_ends_in_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ROUNDS", 2)
    monkeypatch.setattr(population, "_ENERGY_PARTS", ((1.0, 1e-3, 2.0),))
    monkeypatch.setattr(population, "_ENERGY_MAX", 2e-3)
    with pytest.raises(RuntimeError, match="did not trigger in 2 rounds"):
        simulate(1)


def test_default_dataset() -> None:
    dataset = default_dataset(5)
    assert len(dataset) == 5
    assert dataset.event_ids.tolist() == [0, 1, 2, 3, 4]
    assert dataset[0].n_pulses == dataset.lengths[0] > 8
    assert columns(dataset.table) == columns(simulate(5))


def test_embedded_events_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ICEDIAG_CACHE", str(tmp_path / "cache"))
    fresh = default_events(20, seed=4)
    (kept,) = (tmp_path / "cache").iterdir()  # and nothing half-written beside it
    with monkeypatch.context() as patch:
        patch.delattr(np.random, "default_rng")  # whoever makes it anew fails
        again = default_events(500, seed=4)
    assert columns(head(again[0], 20)) == columns(fresh[0])
    # One that was damaged is made anew, and mended.
    whole = kept.read_bytes()
    kept.write_bytes(whole[:-100] + bytes(100))
    assert columns(default_events(20, seed=4)[0]) == columns(fresh[0])
    assert kept.read_bytes() == whole
    # Another seed is another file; another simulator would be too.
    default_events(20, seed=5)
    assert len([*(tmp_path / "cache").iterdir()]) == 2


def test_without_a_cache_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    monkeypatch.setenv("ICEDIAG_CACHE", str(blocked / "cache"))
    assert columns(default_events(5)[0]) == columns(simulate(5))


def test_the_cache_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ICEDIAG_CACHE", str(tmp_path))
    monkeypatch.setattr(cache, "_LIMIT", 3000)
    for number in range(5):
        cache.kept(lambda: {"zeros": np.zeros(100)}, number)
        for path in tmp_path.iterdir():  # as if each were a second older than the next
            state = path.stat()
            os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns - 10**9))
    files = [*tmp_path.iterdir()]
    assert 0 < sum(path.stat().st_size for path in files) <= 3000
    assert cache.kept(dict, 4)["zeros"].size == 100, "the newest should stay"


def test_truth_goes_to_a_file_of_its_own(tmp_path: Path) -> None:
    table, truth = simulate_with_truth(12, seed=9, first_event_id=100)
    write_dataset(table, tmp_path / "d", extra={FILE: truth_table(table.event_id, truth)})
    back = read_truth(tmp_path / "d", table.event_id[::-1].copy())
    assert back is not None
    assert back.energy.tolist() == truth.energy[::-1].tolist()
    assert back.kind.tolist() == [KINDS[k] for k in truth.kind[::-1]]
    with pytest.raises(DataError, match="expected 7, which the meta table has"):
        read_truth(tmp_path / "d", np.array([100, 7]))
    assert read_truth(tmp_path, table.event_id) is None
