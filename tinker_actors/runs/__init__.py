"""Runs that cannot be killed: a loop whose steps are decided once, whatever dies, and resumed where they ended.

    run         Run: what a loop works with
    step        RunStep, DecidedStep: one step, decided together with where the loop stands after it
    saving      checkpoints: when they are put in line, and what is waited for
    keeping     what becomes of them then: verified, given an end, deleted
    existence   whether a service has a checkpoint
    draining    the first signal ends the run in good order, the second cancels it
    living      opening a run on a service and a journal, and leaving it

What is decided here is decided in `protocol`: run_identity, loop_state, checkpoint_policy, retention, resume. A run is
opened by `opening.open_run`, the one place that knows its directory and its backend.
"""
