from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.text.templates import TEMPLATES, byte_tokenizer, piece_tokenizer, tokenizer_with
from tinker_actors.errors import ConfigError, InputError
from tinker_actors.text.chat import ChatTemplateRenderer
from tinker_actors.text.renderer import ChatMessage, ParseTermination, Renderer, TrainOn
from tinker_actors.wire.input import ModelInput

TALK: list[ChatMessage] = [
    {"role": "user", "content": "What is 2+2?"},
    {"role": "assistant", "content": "It is 4."},
    {"role": "user", "content": "and 3+3?"},
    {"role": "assistant", "content": "It is 6."},
]
ENDS = {
    "marked": "<|im_end|>",
    "headed": "<|turn|>",
    "bracketed": "</s>",
    "renamed": "<end>",
    "thinking": "<|im_end|>",
}


def renderer(name: str) -> ChatTemplateRenderer:
    return ChatTemplateRenderer(tokenizer_with(TEMPLATES[name]))


def text_of(made: ChatTemplateRenderer, model_input: ModelInput) -> str:
    return made.tokenizer.decode(model_input.to_numpy().tolist())


def learned(made: ChatTemplateRenderer, messages: list[ChatMessage], train_on: TrainOn) -> list[str]:
    """Return the stretches of a conversation's text that are learned."""
    model_input, weights = made.build_supervised_example(messages, train_on)
    assert weights.dtype == np.float32
    edges = np.flatnonzero(np.diff(np.concatenate([[0], weights, [0]])))
    tokens = model_input.to_numpy().tolist()
    return [made.tokenizer.decode(tokens[start:end]) for start, end in edges.reshape(-1, 2)]


def test_it_is_a_renderer() -> None:
    """For type checkers, too."""
    made: Renderer = renderer("marked")
    assert made.get_stop_sequences()


@pytest.mark.parametrize("name", TEMPLATES)
def test_what_ends_a_turn_is_found_in_the_template(name: str) -> None:
    """Its id is what sampling stops at, and the end of a text is beside it."""
    made = renderer(name)
    tokenizer = made.tokenizer
    assert made.stop == ENDS[name]
    expected = dict.fromkeys([tokenizer.token_to_id(ENDS[name]), tokenizer.eos_token_id])
    assert made.get_stop_sequences() == list(expected)


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_prompt_ends_where_the_answer_begins(name: str) -> None:
    """It is the template's own text, nothing is added to it, and an answer may be begun."""
    made = renderer(name)
    prompt = made.build_generation_prompt(TALK[:1])
    assert text_of(made, prompt) == made.render(TALK[:1], add_generation_prompt=True)
    assert text_of(made, made.build_generation_prompt(TALK[:1], "It")) == text_of(made, prompt) + "It"


@pytest.mark.parametrize("name", TEMPLATES)
def test_an_answer_is_learned_with_the_end_of_its_turn(name: str) -> None:
    """And nothing else is; all tokens together are the conversation as the template writes it."""
    made = renderer(name)
    blank = " " if name == "bracketed" else ""  # its prompt ends before the blank that begins an answer
    answers = [f"{blank}It is 4.{ENDS[name]}", f"{blank}It is 6.{ENDS[name]}"]
    assert learned(made, TALK, "last_assistant_message") == answers[1:]
    assert learned(made, TALK, "all_assistant_messages") == answers
    assert learned(made, TALK, "all_tokens") == [made.render(TALK)]
    model_input, _ = made.build_supervised_example(TALK)
    assert text_of(made, model_input) == made.render(TALK)


@pytest.mark.parametrize("name", TEMPLATES)
def test_what_is_trained_continues_what_is_sampled_from(name: str) -> None:
    """The tokens before an answer are exactly those of the prompt."""
    made = renderer(name)
    prompt = made.build_generation_prompt(TALK[:3]).to_numpy()
    model_input, weights = made.build_supervised_example(TALK)
    first = int(np.flatnonzero(weights)[0])
    assert model_input.to_numpy()[:first].tolist() == prompt.tolist()


@pytest.mark.parametrize("blank", ["normalizer", "first", "always", "never"])
@pytest.mark.parametrize("name", ["marked", "bracketed"])
def test_an_answer_is_tokenized_as_it_continues_its_prompt(name: str, blank: str) -> None:
    """Not as a text by itself, before which some tokenizers write a blank; nor is what it is begun with."""
    made = ChatTemplateRenderer(tokenizer_with(TEMPLATES[name], piece_tokenizer(blank)))
    whole = made.tokenizer.encode(made.render(TALK), add_special_tokens=False)
    for train_on in ("last_assistant_message", "all_assistant_messages"):
        model_input, _ = made.build_supervised_example(TALK, train_on)
        assert model_input.to_numpy().tolist() == whole
    begun = made.build_generation_prompt(TALK[:1], "It is é").to_numpy().tolist()
    prompt = made.render(TALK[:1], add_generation_prompt=True)
    assert begun == made.tokenizer.encode(prompt + "It is é", add_special_tokens=False)


def test_an_answer_that_would_grow_together_with_its_prompt_keeps_the_prompts_tokens() -> None:
    """What is sampled from has no token that reaches into the answer, so what is trained has none."""
    template = "{% for m in messages %}{{ m.role + ':' + m.content + '</s>' }}{% endfor %}"
    template += "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
    tokenizer = tokenizer_with(template, byte_tokenizer(("I", "t"), (":", "It")))
    made = ChatTemplateRenderer(tokenizer)
    assert tokenizer.token_to_id(":It") in tokenizer.encode(made.render(TALK))
    prompt = made.build_generation_prompt(TALK[:1]).to_numpy().tolist()
    assert made.build_generation_prompt(TALK[:1], "It").to_numpy().tolist() == prompt + tokenizer.encode("It")
    model_input, _ = made.build_supervised_example(TALK[:2])
    assert model_input.to_numpy().tolist() == prompt + tokenizer.encode("It is 4.</s>")


@pytest.mark.parametrize("train_on", ["all_messages", "", None])
def test_what_is_learned_is_named_or_refused(train_on: Any) -> None:
    """A name that is not known is not taken for another one."""
    with pytest.raises(InputError) as caught:
        renderer("marked").build_supervised_example(TALK, train_on)
    assert (caught.value.field, caught.value.value) == ("train_on", train_on)


def test_a_message_without_a_role_is_refused() -> None:
    """By the field that is missing."""
    with pytest.raises(InputError) as caught:
        renderer("marked").build_supervised_example([TALK[0], {"content": "4"}])  # type: ignore[typeddict-item]
    assert caught.value.field == "messages[1]"


def test_a_template_that_reads_lists_of_parts_shows_its_end_of_a_turn() -> None:
    """Those of models that see images read nothing else; one that writes no answer at all shows no end."""
    listed = (
        "{% for m in messages %}{{ m.role + ':' }}{% for part in m.content if part.type == 'text' %}"
        "{{ part.text }}{% endfor %}{{ '<end>' }}{% endfor %}"
    )
    assert ChatTemplateRenderer(tokenizer_with(None), listed).stop == "<end>"
    with pytest.raises(ConfigError, match="does not write what an assistant says"):
        ChatTemplateRenderer(tokenizer_with(None), "{{ '<end>' }}")


def test_an_answer_that_the_template_rewrites_later_is_refused() -> None:
    """A thought that is left out of the history was there when it was sampled."""
    talk: list[ChatMessage] = [TALK[0], {**TALK[1], "thinking": "two and two"}, *TALK[2:]]
    made = renderer("thinking")
    with pytest.raises(InputError, match="in another way") as caught:
        made.build_supervised_example(talk, "all_assistant_messages")
    assert caught.value.field == "messages[1]"
    assert learned(made, talk, "last_assistant_message") == ["It is 6.<|im_end|>"]
    assert learned(made, talk[:2], "last_assistant_message") == [
        "<think>\ntwo and two\n</think>\n\nIt is 4.<|im_end|>"
    ]


def test_an_answer_that_spells_the_end_of_a_turn_is_learned_to_its_own_end() -> None:
    """And not to where the sign stands in its text."""
    talk: list[ChatMessage] = [TALK[0], {"role": "assistant", "content": "Write <|im_end|> behind it."}]
    assert learned(renderer("marked"), talk, "last_assistant_message") == [
        "Write <|im_end|> behind it.<|im_end|>"
    ]


def test_an_empty_answer_is_the_end_of_its_turn() -> None:
    """Which is all there is to learn."""
    made = renderer("marked")
    talk: list[ChatMessage] = [TALK[0], {"role": "assistant", "content": ""}]
    assert learned(made, talk, "last_assistant_message") == ["<|im_end|>"]
    assert made.parse_response(made.tokenizer.encode("<|im_end|>"))[0]["content"] == ""


def test_a_conversation_without_an_answer_teaches_nothing() -> None:
    """That is told, and not trained with weights of zero."""
    with pytest.raises(InputError, match="no assistant's message"):
        renderer("marked").build_supervised_example(TALK[:1])


@pytest.mark.parametrize(
    ("tail", "ended"),
    [
        ("<|im_end|>", ParseTermination.STOP_SEQUENCE),
        ("<|im_end|>\nmore", ParseTermination.STOP_SEQUENCE),
        ("</s>", ParseTermination.EOS),
        ("", ParseTermination.MALFORMED),
    ],
)
def test_an_answer_becomes_a_message(tail: str, ended: ParseTermination) -> None:
    """With how it ended; what ends it is not part of it."""
    made = renderer("marked")
    tokens = made.tokenizer.encode("It is 4." + tail)
    assert made.parse_response(tokens) == ({"role": "assistant", "content": "It is 4."}, ended)


def test_tools_and_settings_reach_the_template() -> None:
    """Descriptions of tools, and what a template reads beside the messages."""
    tokenizer = tokenizer_with(TEMPLATES["marked"])
    assert '{"name": "add"}' in ChatTemplateRenderer(tokenizer, tools=[{"name": "add"}]).render(TALK[:1])
    quiet = ChatTemplateRenderer(tokenizer_with(TEMPLATES["thinking"]), variables={"enable_thinking": False})
    assert quiet.render(TALK[:1], add_generation_prompt=True).endswith("<think>\n\n</think>\n\n")


def test_a_template_for_tools_is_taken_when_there_are_tools() -> None:
    """Some models have a template for each."""
    tokenizer = tokenizer_with(TEMPLATES["marked"])
    templates = {**tokenizer.settings.templates, "tool_use": "{{ messages[-1].content }}!<end>"}
    object.__setattr__(tokenizer.settings, "templates", templates)
    assert ChatTemplateRenderer(tokenizer, tools=[{}]).render(TALK[:1]) == "What is 2+2?!<end>"
    assert ChatTemplateRenderer(tokenizer).stop == "<|im_end|>"


def test_a_template_may_be_given() -> None:
    """In place of the tokenizer's own, with the token that ends a turn."""
    tokenizer = tokenizer_with(None)
    with pytest.raises(ConfigError, match="has no chat template"):
        ChatTemplateRenderer(tokenizer)
    plain = "{% for m in messages %}{{ m.content }}{% endfor %}"
    assert ChatTemplateRenderer(tokenizer, plain).stop == "</s>"
    assert ChatTemplateRenderer(tokenizer, plain, stop="<end>").stop == "<end>"
    with pytest.raises(ConfigError, match="is not one token"):
        ChatTemplateRenderer(tokenizer, plain, stop="END")


def test_a_template_that_shows_no_end_of_a_turn_is_told() -> None:
    """Nobody samples to the limit of every answer for lack of a sign to stop at."""
    tokenizer = tokenizer_with(None, eos_token="")
    object.__setattr__(tokenizer.settings, "special", {})
    with pytest.raises(ConfigError, match="no special token behind an answer"):
        ChatTemplateRenderer(tokenizer, "{% for m in messages %}{{ m.content }}{% endfor %}")
    with pytest.raises(ConfigError, match="cannot be found out"):
        ChatTemplateRenderer(tokenizer, "{{ raise_exception('only tools') }}")
