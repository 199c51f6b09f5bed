"""Random state: generators that the user's objects hold, put back as they were."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from icediag.instruments.trees.walk import OPAQUE

#: Generators are looked for so deep.
DEEPEST = 4
#: Objects that are looked at, at most.
MOST = 5000


def generators(thing: Any) -> list[Any]:
    """Random generators that an object holds, or what it holds does."""
    found: list[Any] = []
    seen: set[int] = set()

    def look(value: Any, depth: int) -> None:
        if id(value) in seen or len(seen) > MOST:
            return
        seen.add(id(value))
        if isinstance(
            value, (torch.Generator, random.Random, np.random.Generator, np.random.RandomState)
        ):
            found.append(value)
            return
        if depth > DEEPEST or isinstance(value, (*OPAQUE, torch.Tensor, np.ndarray)):
            return
        if isinstance(value, dict):
            for item in value.values():
                look(item, depth + 1)
        elif isinstance(value, (list, tuple)):
            # Generators lie among the first of a list, if anywhere: the rest are samples.
            for item in value[:16]:
                look(item, depth + 1)
        elif isinstance(getattr(value, "__dict__", None), dict):
            for item in vars(value).values():
                look(item, depth + 1)

    look(thing, 0)
    return found


def state_of(generator: Any) -> Any:
    """The state of a generator of any kind."""
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, random.Random):
        return generator.getstate()
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    return generator.get_state()


def put_state(generator: Any, state: Any) -> None:
    """Give a generator a state it had."""
    if isinstance(generator, random.Random):
        generator.setstate(state)
    elif isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    else:
        generator.set_state(state)


@contextmanager
def kept(*things: Any) -> Iterator[None]:
    """Put back the generators that things hold, and their own attributes, at the end."""
    states = [(g, state_of(g)) for thing in things for g in generators(thing)]
    attributes = [
        (thing, dict(vars(thing)))
        for thing in things
        if isinstance(getattr(thing, "__dict__", None), dict)
    ]
    try:
        yield
    finally:
        for thing, before in attributes:
            # Past a `__setattr__` of its own: a DataLoader's forbids some.
            now = vars(thing)
            if any(now.get(name) is not value for name, value in before.items()) or len(now) != len(
                before
            ):
                now.clear()
                now.update(before)
        for generator, state in states:
            put_state(generator, state)
