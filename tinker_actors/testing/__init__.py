"""The test kit: trees of actors on virtual time, probes, single steps, planned faults; and a scripted service.

    from tinker_actors.testing import open_test_system, run_virtual

    async def check() -> None:
        async with open_test_system() as system:
            ref = await system.start(CounterActor)
            assert await ref.ask(Add(2)) == 2

    run_virtual(check)

It needs no pytest; `plugin` offers it as fixtures to those who have it. `docs/kernel/testing.md` shows the whole;
`docs/wire/testing.md` the scripted service, for code that uses clients.
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
    from tinker_actors.testing.proxy import RecordingProxy, open_recording_proxy
    from tinker_actors.testing.recording import Exchange, Recording, Update
    from tinker_actors.testing.service.dialect import ServiceDialect
    from tinker_actors.testing.service.fault import (
        Capacity,
        InjectedFault,
        Pause,
        RateLimit,
        ServiceFault,
        ServiceFaults,
    )
    from tinker_actors.testing.service.law import Exponential, Fixed, Lognormal, SlowTail, Uniform
    from tinker_actors.testing.service.loopback import serve_scripted
    from tinker_actors.testing.service.opening import open_scripted_service
    from tinker_actors.testing.service.reply import ReplyPlan, ServedRequest
    from tinker_actors.testing.service.service import ScriptedService
    from tinker_actors.testing.service.state import Applied
    from tinker_actors.testing.service.transport import ScriptedTransport
    from tinker_actors.testing.stepper import Step, Stepper
    from tinker_actors.testing.system import TestSystem, open_test_system

__all__ = [
    "Applied",
    "Capacity",
    "Exchange",
    "Exponential",
    "Fault",
    "FaultPlan",
    "Fixed",
    "InjectedCrash",
    "InjectedDrop",
    "InjectedFault",
    "Injection",
    "Lognormal",
    "Pause",
    "Probe",
    "RateLimit",
    "Recording",
    "RecordingProxy",
    "ReplyPlan",
    "ScriptedService",
    "ScriptedTransport",
    "ServedRequest",
    "ServiceDialect",
    "ServiceFault",
    "ServiceFaults",
    "SlowTail",
    "Step",
    "Stepper",
    "TestSystem",
    "Uniform",
    "Update",
    "assert_counters",
    "assert_quiescent",
    "no_leaked_tasks",
    "open_recording_proxy",
    "open_scripted_service",
    "open_test_system",
    "run_virtual",
    "serve_scripted",
    "settle",
    "virtual_clock",
]

_HOME = {
    "Applied": "service.state",
    "Capacity": "service.fault",
    "Exchange": "recording",
    "Exponential": "service.law",
    "Fault": "fault",
    "FaultPlan": "fault",
    "Fixed": "service.law",
    "InjectedCrash": "fault",
    "InjectedDrop": "fault",
    "InjectedFault": "service.fault",
    "Injection": "fault",
    "Lognormal": "service.law",
    "Pause": "service.fault",
    "Probe": "probe",
    "RateLimit": "service.fault",
    "Recording": "recording",
    "RecordingProxy": "proxy",
    "ReplyPlan": "service.reply",
    "ScriptedService": "service.service",
    "ScriptedTransport": "service.transport",
    "ServedRequest": "service.reply",
    "ServiceDialect": "service.dialect",
    "ServiceFault": "service.fault",
    "ServiceFaults": "service.fault",
    "SlowTail": "service.law",
    "Step": "stepper",
    "Stepper": "stepper",
    "TestSystem": "system",
    "Uniform": "service.law",
    "Update": "recording",
    "assert_counters": "invariant",
    "assert_quiescent": "invariant",
    "no_leaked_tasks": "invariant",
    "open_recording_proxy": "proxy",
    "open_scripted_service": "service.opening",
    "open_test_system": "system",
    "run_virtual": "clock",
    "serve_scripted": "service.loopback",
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
