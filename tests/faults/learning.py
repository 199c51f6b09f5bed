"""Faults of learning as patients of the score: the same small changes in every pipeline they fit.

`python -m tests.faults.score --learning` looks at each by the instruments that its check builds on.
"""

from types import ModuleType

import torch

from icediag import Pipeline
from icediag.checks import CHECKS
from tests.data_faults import DATA_FAULTS, PLACES
from tests.healthy_learning import HEALTHY
from tests.learning_faults import FAULTS, SITES, LearningFault, Site

from .case import Fault, Patient

ALL = (*FAULTS, *DATA_FAULTS)


def family_of(code: str) -> tuple[ModuleType, ...]:
    """The checks that build on the same instruments as the one of a code.

    Those of the loss (L2x) and of overfitting (L0x) share a letter and nothing else.
    """
    width = 2 if code.startswith("L") else 1
    return tuple(check for check in CHECKS if check.CODE[:width] == code[:width])


def strikes(fault: LearningFault, site: Site) -> bool:
    """Whether a fault fits a pipeline."""
    if fault.only:
        return site.name in fault.only
    return site in SITES or fault in DATA_FAULTS


def _fault(fault: LearningFault, site: Site) -> Fault:
    codes = fault.code.split()
    return Fault(
        name=fault.name,
        checks=tuple(check.NAME for check in CHECKS if check.CODE in codes),
        stages=(fault.stage(site),) if fault.stage is not None else (),
        lowest=fault.severity,
        looked=family_of(codes[0]),
    )


def _patient(site: Site) -> Patient:
    by_name = {fault.name: fault for fault in ALL}

    def build(name: str | None) -> Pipeline:
        torch.manual_seed(0)
        made = site.make()
        return made if name is None else by_name[name].strike(made, site)

    faults = tuple(_fault(fault, site) for fault in ALL if strikes(fault, site))
    return Patient(name=site.name, build=build, faults=faults)


def _healthy() -> Patient:
    def build(name: str | None) -> Pipeline:
        torch.manual_seed(0)
        return HEALTHY[int(name or 0)]()

    numbers = tuple(str(number) for number in range(1, len(HEALTHY)))
    return Patient(name="healthy", build=build, faults=(), variants=numbers)


LEARNING: tuple[Patient, ...] = (*map(_patient, PLACES), _healthy())
#: What healthy pipelines are looked at by: all of these.
LOOKED = tuple(check for check in CHECKS if check.CODE[0] in "LGIT")
