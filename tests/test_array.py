"""The built-in array against the published positions."""

import csv
from pathlib import Path

import numpy as np
import pytest

from icediag.model.array import DOMS_PER_STRING, N_MAIN_STRINGS, N_STRINGS, icecube86

PUBLISHED = Path(__file__).parents[2] / "shared" / "data" / "sensor_geometry.csv"


def test_agrees_with_the_published_positions() -> None:
    if not PUBLISHED.is_file():
        pytest.skip(f"{PUBLISHED} is absent: nothing to compare with")
    with PUBLISHED.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["sensor_id"]) for row in rows] == list(range(N_STRINGS * DOMS_PER_STRING))
    published = np.array([[float(row[axis]) for axis in "xyz"] for row in rows])
    distance = np.linalg.norm(icecube86() - published, axis=1)
    assert distance.max() <= 2.0
    assert np.median(distance) <= 0.1


def test_shape_order_and_spacings() -> None:
    xyz = icecube86()
    assert xyz.shape == (5160, 3)
    assert xyz.dtype == np.float64
    string_dom = xyz.reshape(N_STRINGS, DOMS_PER_STRING, 3)
    steps = -np.diff(string_dom[..., 2], axis=1)
    assert steps.min() > 0, "om 1 is the uppermost DOM of its string"
    assert np.median(steps[:N_MAIN_STRINGS]) == pytest.approx(17.02, abs=0.01)
    deepcore = steps[N_MAIN_STRINGS:]
    assert np.median(deepcore[:, :9]) == pytest.approx(10.0, abs=0.05)
    assert np.median(deepcore[:, 9]) == pytest.approx(257.0, abs=1.0)
    assert np.median(deepcore[:, 10:]) == pytest.approx(7.0, abs=0.05)
    # Nearest neighbours of the main strings stand about 125 m apart.
    xy = string_dom[:N_MAIN_STRINGS, 0, :2]
    apart = np.linalg.norm(xy[:, None] - xy[None], axis=-1)
    np.fill_diagonal(apart, np.inf)
    assert apart.min(axis=1).min() > 90
    assert apart.min(axis=1).max() < 130


def test_result_is_a_fresh_copy() -> None:
    icecube86()[:] = 0.0
    assert np.ptp(icecube86()) > 500
