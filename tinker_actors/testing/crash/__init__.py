"""The crash-point explorer: runs a loop once for each point at which it can crash, and compares how it ends.

Theory of operation. A *life* is one process that trains. It runs on virtual time, with the real clients, on a scripted
service and in a directory that both outlive it. Wherever something leaves it, or an answer is about to come, is a
*point*, and a *fuse* counts them. At one of them the fuse blows: from then on whatever the life sends or writes raises
`Crashed`, so that its last words reach nobody, and the life is cancelled. Then the next life begins, on the same
service and in the same directory.

A run without a crash says which points there are and how the programme ends: what is in its model, and where its loop
stands. Then it is run once for each point, or pair of points, and should end the same way.
"""

from __future__ import annotations

from .explorer import ExploreOptions, explore, explore_lives
from .files import Files
from .life import Ended, Life, RunOptions
from .point import Crashed, CrashPoint
from .report import CrashFailure, CrashReport
from .state import EndState

__all__ = [
    "CrashFailure",
    "CrashPoint",
    "CrashReport",
    "Crashed",
    "EndState",
    "Ended",
    "ExploreOptions",
    "Files",
    "Life",
    "RunOptions",
    "explore",
    "explore_lives",
]
