"""Where the tasks of an actor stand, as text."""

from __future__ import annotations

import traceback

import trio

__all__ = ["stack_of"]


def stack_of(task: trio.lowlevel.Task | None) -> str:
    """Return where a task and its children stand; innermost frames last, as in a traceback."""
    if task is None:
        return ""
    frames = [
        traceback.FrameSummary(frame.f_code.co_filename, line, frame.f_code.co_name)
        for frame, line in task.iter_await_frames()
    ]
    text = f"task {task.name}:\n" + "".join(traceback.format_list(frames))
    children = [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    return text + "".join(stack_of(child) for child in children)
