from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from tests.text.templates import TEMPLATES, byte_tokenizer
from tinker_actors.errors import ConfigError, InputError
from tinker_actors.text.renderer import ChatMessage
from tinker_actors.text.template import ChatTemplate

TALK: list[ChatMessage] = [
    {"role": "user", "content": " What is <b>2+2</b>? é 中 \n"},
    {"role": "assistant", "content": "4"},
    {"role": "user", "content": "and 3+3?"},
    {"role": "assistant", "content": "  6 ", "reasoning_content": "\nthree and three\n"},
]
RULED: list[ChatMessage] = [{"role": "system", "content": "Be short."}, *TALK]
CALLING: list[ChatMessage] = [
    {"role": "user", "content": "weather in Malmö?"},
    {
        "role": "assistant",
        "content": "",
        "thinking": "ask the tool",
        "tool_calls": [
            {
                "type": "function",
                "function": {"name": "weather", "arguments": {"city": "Malmö", "units": ["c", "f"]}},
            }
        ],
    },
    {"role": "tool", "content": '{"c": 3}'},
]
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "weather", "description": 'It\'s <wet> & "cold"', "parameters": {"type": "object"}},
}
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
CASES: list[tuple[str, list[ChatMessage], dict[str, Any]]] = [
    *[(name, TALK, {}) for name in TEMPLATES],
    *[(name, TALK[:1], {"add_generation_prompt": True}) for name in TEMPLATES],
    *[(name, TALK[:3], {"add_generation_prompt": True}) for name in TEMPLATES],
    *[(name, RULED, {}) for name in TEMPLATES if name != "renamed"],
    ("marked", RULED, {"tools": [TOOL]}),
    ("thinking", CALLING, {}),
    ("thinking", CALLING, {"enable_thinking": False, "add_generation_prompt": True}),
]


@pytest.fixture(scope="module")
def official() -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=byte_tokenizer(), **SPECIAL)


@pytest.mark.parametrize(("name", "messages", "arguments"), CASES)
def test_templates_are_rendered_as_transformers_does(
    official: PreTrainedTokenizerFast, name: str, messages: list[ChatMessage], arguments: dict[str, Any]
) -> None:
    """Sign by sign: blanks, special tokens, dates, tools, thoughts and loops that are left early."""
    conversation: list[Any] = list(messages)
    expected = official.apply_chat_template(
        conversation, chat_template=TEMPLATES[name], tokenize=False, **arguments
    )
    prompt, tools = arguments.pop("add_generation_prompt", False), arguments.pop("tools", None)
    rendered = ChatTemplate(TEMPLATES[name]).render(
        messages, add_generation_prompt=prompt, tools=tools, variables=SPECIAL | arguments
    )
    assert rendered == expected


def test_the_date_is_the_one_that_is_given() -> None:
    """A template that writes the date can be tested."""
    template = ChatTemplate(TEMPLATES["headed"], now=lambda: datetime(2026, 2, 3, tzinfo=UTC))
    assert "Today: 03 Feb 2026\n" in template.render(TALK[:1], variables=SPECIAL)


def test_a_conversation_that_the_template_refuses_is_bad_input() -> None:
    """With the template's own words, and the messages named."""
    wrong: list[ChatMessage] = [{"role": "assistant", "content": "first"}]
    with pytest.raises(InputError, match="roles must alternate") as caught:
        ChatTemplate(TEMPLATES["bracketed"]).render(wrong, variables=SPECIAL)
    assert caught.value.field == "messages"


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{{ missing.attribute }}",
    ],
)
def test_a_template_stays_in_its_sandbox(template: str) -> None:
    """Neither Python's insides nor the caller's messages can be reached, and nothing else than InputError is raised."""
    before = [dict(message) for message in TALK]
    with pytest.raises(InputError):
        ChatTemplate(template).render(TALK)
    assert before == TALK


def test_a_text_that_is_no_template_is_told() -> None:
    """When it is compiled, not when it is first used."""
    with pytest.raises(ConfigError, match="is not a chat template"):
        ChatTemplate("{% for message in %}")


def test_without_jinja_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who lacks it is told what to install."""
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ConfigError, match=r"pip install 'tinker-actors\[chat\]'"):
        ChatTemplate("{{ messages }}")
