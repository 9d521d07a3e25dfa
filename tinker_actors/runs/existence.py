"""Whether a service has a checkpoint, as far as it can say."""

from __future__ import annotations

from typing import cast

from tinker_actors.actors.rest import RestClient
from tinker_actors.errors import InputError, NotFoundError
from tinker_actors.protocol.failure import says_no_route
from tinker_actors.wire.codec import JsonValue
from tinker_actors.wire.run import ParsedCheckpointTinkerPath

__all__ = ["is_there"]


async def is_there(rest: RestClient, path: str) -> bool | None:
    """Ask a service whether it has a checkpoint: for what it was made of, and if there is no such call, for a list.

    Returns:
        None: it has neither call, or its paths have no parts to be listed by.

    Raises:
        TinkerError: it could not be asked.
    """
    try:
        await rest.get_weights_info_by_tinker_path(path)
    except NotFoundError as error:
        if not says_no_route(cast("JsonValue", error.body)):
            return False
    else:
        return True
    try:
        parsed = ParsedCheckpointTinkerPath.from_tinker_path(path)
        listed = await rest.list_checkpoints(parsed.training_run_id)
    except InputError:
        return None
    except NotFoundError as error:
        return None if says_no_route(cast("JsonValue", error.body)) else False
    return any(one.tinker_path == path for one in listed.checkpoints)
