"""Decisions: pure functions and tables over wire types. Time and chance are arguments; nothing here waits.

    the service   capability, credential, recovery, reachability
    sending       query, retry, policy, backoff, throttle, aimd
    sampling      sample, progress, sampler_handle
    waiting       future, batch_poll, failure, queue_state, wait, cancel
    answers       sse, pagination, archive, console
    training      creation, batch, saving, custom_loss, plan, chunking, metric, number, step
    journals      journal, journal_rules, memory_journal, body, reattach, witness
    runs          run_identity, run_journal, loop_state, resume, checkpoint_policy, retention
    telling       event, run_event, event_line, tree_seen, telemetry

What is decided here is done by `transport` and `actors`.
"""
