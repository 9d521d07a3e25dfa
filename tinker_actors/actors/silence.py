"""Samples of which none has ended for long: somebody hears of it early, and in the end they are given up."""

from __future__ import annotations

import logging

import trio

from tinker_actors.actors.event import EventHub
from tinker_actors.actors.target import SampleTarget
from tinker_actors.errors import APIConnectionError
from tinker_actors.protocol.event import SamplingSlow

__all__ = ["check_progress"]

_LOG = logging.getLogger("tinker_actors.sampling")


def check_progress(
    events: EventHub, target: SampleTarget, era: int, timeout: float, why: str
) -> APIConnectionError | None:
    """Look at a sample that does not move on: tell of the silence if it is time, and return its end if it is stuck.

    Args:
        events: where it is told.
        target: what the sample is drawn from.
        era: the sample's era in the target's progress.
        timeout: seconds of silence after which it is stuck.
        why: what the service said last.
    """
    now, progress = trio.current_time(), target.progress
    if progress.is_stuck(era, timeout, now):
        # tinker 0.38.0 lib/retry_handler.py has the same words
        text = f"No progress made in {timeout:g}s. Requests appear to be stuck. The service's last word was: {why}"
        return APIConnectionError(text, doubtful=True, retryable=False)
    seconds = progress.overdue(now)
    if seconds is not None:
        place, waiting = target.sampling_session_id, progress.waiting
        _LOG.warning("no sample of %s has ended for %.0f s; %d wait (%s)", place, seconds, waiting, why)
        events.publish(SamplingSlow(place, seconds, waiting, why))
    return None
