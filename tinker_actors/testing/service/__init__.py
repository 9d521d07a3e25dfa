"""A Tinker service for tests: small, deterministic, without a model, and with every fault a network can have.

    from tinker_actors.testing import ServiceFaults, open_scripted_service, run_virtual

    async def check() -> None:
        faults = ServiceFaults().lose_model(of="forward_backward", nth=3)
        async with open_scripted_service(faults) as (client, service):
            ...

    run_virtual(check)

`docs/wire/testing.md` shows the whole. `service` decides, without I/O; `transport` and `loopback` carry it out.
"""
