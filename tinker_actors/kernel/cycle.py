"""Who waits for whom: an ask that would wait for itself is refused at once, with the path.

A mailbox is *blocked* on an asker if each of the readers that stand between it and its next message is the
asker itself, or waits on a blocked mailbox. A serial actor has one such reader; of a pool, or of an actor whose
handlers run side by side, all must be blocked, for one free reader would serve the message. Before an exclusive
message all of them must end, so there one is enough. A handler that waits on several mailboxes at once counts
as blocked by any of them.

All actors live in one run, so the search sees every chain there is. It costs a step per actor of the chain, and
nothing where the asked actor is free.
"""

from __future__ import annotations

from tinker_actors.errors import AskCycle
from tinker_actors.kernel.reader import Reader, Station

__all__ = ["check_cycle", "cycle_error", "find_cycle"]


def find_cycle(asker: Reader, target: Station, *, exclusive: bool) -> tuple[str, ...] | None:
    """Return the actors from the asker back to it, if its waiting on `target` would never end.

    Args:
        asker: whose handler is about to wait.
        target: on whom.
        exclusive: for an exclusive message.
    """
    path = _blocked(target, asker, (), exclusive=exclusive)
    return None if path is None else (asker.station.owner, *path)


def _blocked(
    station: Station, asker: Reader, above: tuple[Station, ...], *, exclusive: bool = False
) -> tuple[str, ...] | None:
    """Return the way from a blocked mailbox to the asker's; None if it is not blocked."""
    if station in above:
        return ()  # it is being looked at: what else it needs decides
    readers, all_must_end = station.occupants(exclusive=exclusive)
    ways = [() if reader is asker else _blocked_by(reader, asker, (*above, station)) for reader in readers]
    found = [way for way in ways if way is not None]
    if not found or (len(found) < len(ways) and not all_must_end):
        return None
    back = [
        way for way in found if way[-1:] == (asker.station.owner,)
    ] or found  # not one that ends in a ring
    return (station.owner, *max(back, key=len))


def _blocked_by(reader: Reader, asker: Reader, above: tuple[Station, ...]) -> tuple[str, ...] | None:
    ways = (_blocked(station, asker, above) for station in reader.waits)
    return next((way for way in ways if way is not None), None)


def check_cycle(asker: Reader, target: Station, *, exclusive: bool) -> None:
    """Refuse to wait for oneself; arguments as for `find_cycle`.

    Raises:
        AskCycle: with the path.
    """
    path = find_cycle(asker, target, exclusive=exclusive)
    if path is not None:
        raise cycle_error(target, path)


def cycle_error(target: Station, path: tuple[str, ...]) -> AskCycle:
    """Return what to raise in place of waiting for oneself."""
    way = " -> ".join(path)
    return AskCycle(f"waiting for {target.owner} would never end: {way}", actor=target.owner, path=path)
