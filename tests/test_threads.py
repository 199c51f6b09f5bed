"""Threads sleep while they wait where others want the cores, and only there."""

import os
import sys

import pytest

from icediag.cli.threads import wait_politely


def loaded(by: float) -> tuple[float, float, float]:
    return by * (os.cpu_count() or 1), 0.0, 0.0


@pytest.fixture(autouse=True)
def _before_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)


def test_on_a_busy_machine_threads_sleep() -> None:
    environment: dict[str, str] = {}
    wait_politely(environment, lambda: loaded(1.0))
    assert environment == {"OMP_WAIT_POLICY": "passive"}


def test_on_a_quiet_machine_nothing_is_set() -> None:
    environment: dict[str, str] = {}
    wait_politely(environment, lambda: loaded(0.2))
    assert not environment


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"])
def test_what_the_user_has_set_stands(name: str) -> None:
    environment = {name: "1"}
    wait_politely(environment, lambda: loaded(9.0))
    assert environment == {name: "1"}


def test_once_torch_is_loaded_it_is_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", sys)
    environment: dict[str, str] = {}
    wait_politely(environment, lambda: loaded(9.0))
    assert not environment


def test_where_the_load_is_not_known_nothing_is_set() -> None:
    def unknown() -> tuple[float, float, float]:
        raise OSError

    environment: dict[str, str] = {}
    wait_politely(environment, unknown)
    assert not environment
