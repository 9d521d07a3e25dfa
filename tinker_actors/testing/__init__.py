"""The test kit: trees of actors on virtual time, probes, single steps and planned faults.

    from tinker_actors.testing import open_test_system, run_virtual

    async def check() -> None:
        async with open_test_system() as system:
            ref = await system.start(CounterActor)
            assert await ref.ask(Add(2)) == 2

    run_virtual(check)

It needs no pytest; `plugin` offers it as fixtures to those who have it. `docs/kernel/testing.md` shows the whole.
Names are loaded on first use, because pytest imports this package in every run.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tinker_actors.testing.clock import run_virtual, virtual_clock
    from tinker_actors.testing.fault import Fault, FaultPlan, InjectedCrash, InjectedDrop, Injection
    from tinker_actors.testing.invariant import (
        assert_counters,
        assert_quiescent,
        no_leaked_tasks,
        settle,
    )
    from tinker_actors.testing.probe import Probe
    from tinker_actors.testing.stepper import Step, Stepper
    from tinker_actors.testing.system import TestSystem, open_test_system

__all__ = [
    "Fault",
    "FaultPlan",
    "InjectedCrash",
    "InjectedDrop",
    "Injection",
    "Probe",
    "Step",
    "Stepper",
    "TestSystem",
    "assert_counters",
    "assert_quiescent",
    "no_leaked_tasks",
    "open_test_system",
    "run_virtual",
    "settle",
    "virtual_clock",
]

_HOME = {
    "Fault": "fault",
    "FaultPlan": "fault",
    "InjectedCrash": "fault",
    "InjectedDrop": "fault",
    "Injection": "fault",
    "Probe": "probe",
    "Step": "stepper",
    "Stepper": "stepper",
    "TestSystem": "system",
    "assert_counters": "invariant",
    "assert_quiescent": "invariant",
    "no_leaked_tasks": "invariant",
    "open_test_system": "system",
    "run_virtual": "clock",
    "settle": "invariant",
    "virtual_clock": "clock",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
