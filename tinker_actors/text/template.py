"""Chat templates: the Jinja that models of the Hugging Face hub bring along, rendered as `transformers` renders it.

A template is code of a stranger, so it runs in Jinja's sandbox. What templates may use beside Jinja itself
(transformers 5 utils/chat_template_utils.py): blocks that swallow their line's blanks, `break` and `continue`,
`raise_exception`, `strftime_now`, `tojson` without HTML escapes, and `{% generation %}` around what the model says.

Needs the extra `chat` (Jinja).
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn

from tinker_actors.errors import ConfigError, InputError
from tinker_actors.text.renderer import ChatMessage

if TYPE_CHECKING:
    import jinja2

__all__ = ["ChatTemplate"]

# One thought under several names: templates of different models read different ones.
_THOUGHT = ("reasoning_content", "thinking", "reasoning")


class ChatTemplate:
    """A compiled chat template.

    Args:
        source: the template.
        now: the wall clock, for templates that write the date.

    Raises:
        ConfigError: Jinja is not installed, or the template is none.
    """

    def __init__(self, source: str, now: Callable[[], datetime] = datetime.now) -> None:
        self.source = source
        jinja = _jinja()
        try:
            self._template = _environment(now).from_string(source)
        except jinja.TemplateError as error:
            raise ConfigError(f"template: is not a chat template: {error}") from error

    def render(
        self,
        messages: Sequence[ChatMessage],
        *,
        add_generation_prompt: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        variables: Mapping[str, object] | None = None,
    ) -> str:
        """Return the text of a conversation.

        Args:
            messages: the conversation.
            add_generation_prompt: end with what begins the model's answer.
            tools: descriptions of the tools that the model may call.
            variables: special tokens, and whatever else the template reads.

        Raises:
            InputError: the template refuses the conversation, or cannot be rendered with it.
        """
        try:
            return self._template.render(
                messages=[_with_thought(message) for message in messages],
                tools=None if tools is None else list(tools),
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **dict(variables or {}),
            )
        except Exception as error:  # a template may do anything with what it is given
            raise InputError(
                "messages", list(messages), f"the chat template refuses them: {error}"
            ) from error


def _with_thought(message: ChatMessage) -> dict[str, object]:
    """Give a message's thought all names that templates know."""
    plain: dict[str, object] = dict(message)
    thought = next((plain[name] for name in _THOUGHT if plain.get(name) is not None), None)
    return plain if thought is None else {"thinking": thought, **plain, "reasoning_content": thought}


def _jinja() -> Any:
    try:
        import jinja2
        import jinja2.sandbox
    except ImportError as error:
        raise ConfigError("chat templates need Jinja: pip install 'tinker-actors[chat]'") from error
    return jinja2


def _environment(now: Callable[[], datetime]) -> jinja2.Environment:
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_generation_block(), loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda form: now().strftime(form)
    return environment


@functools.cache
def _generation_block() -> type[Any]:
    """Return the extension for `{% generation %}` … `{% endgeneration %}`; it marks, and changes nothing."""
    from jinja2 import nodes
    from jinja2.ext import Extension
    from jinja2.parser import Parser

    class GenerationBlock(Extension):
        tags = {"generation"}  # noqa: RUF012 - Jinja's name for it

        def parse(self, parser: Parser) -> list[nodes.Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    return GenerationBlock


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise_exception(message: str) -> NoReturn:
    raise _jinja().TemplateError(message)
