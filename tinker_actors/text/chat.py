"""A renderer that uses a model's own chat template.

Theory of operation. A conversation is rendered as text by the template, and the text is turned into ids piece by piece:
what stands before an answer is encoded as it is when the answer is sampled, and the answer as its continuation: the ids
that both together have more, or, where a token would reach into both, the ids of the answer by itself. So what is
trained continues exactly the ids that are sampled from.

Which text belongs to an answer is found by rendering twice: the conversation before it, with the beginning of an answer
(`add_generation_prompt`), must be how the conversation with the answer begins. Templates that change what came before,
for instance by leaving out earlier thoughts, cannot be learned from as a whole; that is refused, not trained wrongly.

What ends a turn is found by rendering an answer that is known and looking at what follows it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import attrs
import numpy as np
from numpy.typing import NDArray

from tinker_actors.errors import ConfigError, InputError
from tinker_actors.text.renderer import ChatMessage, ParseTermination, TrainOn
from tinker_actors.text.template import ChatTemplate
from tinker_actors.text.tokenizer import Tokenizer
from tinker_actors.wire.input import ModelInput

__all__ = ["ChatTemplateRenderer"]

_ANSWER = "The answer is forty-two."  # a text that no template changes, to see what follows it


@attrs.frozen
class _Piece:
    """A part of a rendered conversation, and whether it is learned."""

    text: str
    learned: bool


class ChatTemplateRenderer:
    """Renders by a chat template; see `text.renderer.Renderer`.

    Args:
        tokenizer: the model's tokenizer.
        template: the template; None takes the tokenizer's own.
        stop: the token that ends the model's turn; None finds it out from the template.
        tools: descriptions of the tools that the model may call.
        variables: what else the template reads, such as `{"enable_thinking": False}`.

    Raises:
        ConfigError: no template, none that can be read, or one that does not show what ends a turn.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: str | ChatTemplate | None = None,
        *,
        stop: str | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        variables: Mapping[str, object] | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self._tools = tools
        self._variables = {**tokenizer.settings.special, **(variables or {})}
        self._template = self._chosen(template)
        self.stop = self._end_of_turn() if stop is None else stop
        stop_id = tokenizer.token_to_id(self.stop)
        if stop_id is None:
            raise ConfigError(f"stop = {self.stop!r}: is not one token of {tokenizer.tokenizer_id!r}")
        self._stop_id = stop_id

    def _chosen(self, template: str | ChatTemplate | None) -> ChatTemplate:
        if isinstance(template, ChatTemplate):
            return template
        own = self.tokenizer.settings.templates
        named = own.get("tool_use") if self._tools is not None else None
        source = template or named or own.get("default")
        if source is None:
            raise ConfigError(
                f"template = None: {self.tokenizer.tokenizer_id!r} has no chat template of its own; give one"
            )
        return ChatTemplate(source)

    def render(self, messages: Sequence[ChatMessage], *, add_generation_prompt: bool = False) -> str:
        """Return a conversation as text, as the template writes it.

        Raises:
            InputError: the template refuses the conversation.
        """
        return self._template.render(
            messages,
            add_generation_prompt=add_generation_prompt,
            tools=self._tools,
            variables=self._variables,
        )

    def build_generation_prompt(
        self, messages: Sequence[ChatMessage], prefill: str | None = None
    ) -> ModelInput:
        """Return what the model continues with its answer.

        Args:
            messages: the conversation so far.
            prefill: how the answer begins.

        Raises:
            InputError: the template refuses the conversation.
        """
        prompt = self.render(messages, add_generation_prompt=True)
        tokens = self._encode(prompt)
        return ModelInput.from_ints(tokens + self._continued(prompt, tokens, prefill or ""))

    def build_supervised_example(
        self, messages: Sequence[ChatMessage], train_on: TrainOn = "last_assistant_message"
    ) -> tuple[ModelInput, NDArray[np.float32]]:
        """Return a conversation's tokens, and how much each of them counts: shape (tokens,), 0 or 1.

        An answer is learned up to and including what ends its turn; what the template writes behind that is not.

        Args:
            messages: the conversation.
            train_on: which of its answers are learned; `all_tokens` learns everything.

        Raises:
            InputError: an unknown `train_on`, no answer to learn, a message without a role, a template that refuses
                the conversation, or one that changes what came before an answer.
        """
        text = ""
        tokens: list[int] = []
        weights: list[float] = []
        for piece in self._pieces(messages, train_on):
            ids = self._continued(text, tokens, piece.text)
            text += piece.text
            tokens += ids
            weights += [float(piece.learned)] * len(ids)
        return ModelInput.from_ints(tokens), np.array(weights, np.float32)

    def get_stop_sequences(self) -> list[str] | list[int]:
        """Return the ids that end the model's turn, for `SamplingParams.stop`."""
        eos = self.tokenizer.eos_token_id
        return [self._stop_id] if eos is None or eos == self._stop_id else [self._stop_id, eos]

    def parse_response(self, tokens: Sequence[int]) -> tuple[ChatMessage, ParseTermination]:
        """Return the message that sampled tokens stand for, and how it ended.

        Its content is the text as it is: how a model writes thoughts and calls of tools is its own.
        """
        eos = self.tokenizer.eos_token_id
        for at, token in enumerate(tokens):
            if token in (self._stop_id, eos):
                ended = ParseTermination.STOP_SEQUENCE if token == self._stop_id else ParseTermination.EOS
                return self._answer(tokens[:at]), ended
        return self._answer(tokens), ParseTermination.MALFORMED

    def _answer(self, tokens: Sequence[int]) -> ChatMessage:
        return {"role": "assistant", "content": self.tokenizer.decode(tokens)}

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)  # the template writes them

    def _continued(self, before: str, tokens: list[int], text: str) -> list[int]:
        """Return the ids of a text that continues another one, which has these tokens.

        Some tokenizers write a blank before whatever they are given, so a continuation is not encoded by itself.
        """
        together = self._encode(before + text)
        return together[len(tokens) :] if together[: len(tokens)] == tokens else self._encode(text)

    # --- which text is an answer's -----------------------------------------------------------------------

    def _pieces(self, messages: Sequence[ChatMessage], train_on: TrainOn) -> list[_Piece]:
        if train_on not in get_args(TrainOn):
            raise InputError("train_on", train_on, f"must be one of {', '.join(get_args(TrainOn))}")
        if train_on == "all_tokens":
            return [_Piece(self.render(messages), learned=True)]
        for at, message in enumerate(messages):
            if "role" not in message:
                raise InputError(f"messages[{at}]", message, "has no 'role'")
        answers = [at for at, message in enumerate(messages) if message["role"] == "assistant"]
        if not answers:
            raise InputError("messages", list(messages), "there is no assistant's message to learn")
        if train_on == "last_assistant_message":
            answers = answers[-1:]
        whole = self.render(messages)
        pieces: list[_Piece] = []
        done = 0
        for at in answers:
            start, end = self._place(messages, at, whole)
            pieces += [_Piece(whole[done:start], learned=False), _Piece(whole[start:end], learned=True)]
            done = end
        return [*pieces, _Piece(whole[done:], learned=False)]

    def _place(self, messages: Sequence[ChatMessage], at: int, whole: str) -> tuple[int, int]:
        """Return where an answer begins and ends in the text of the whole conversation."""
        before = self.render(messages[:at], add_generation_prompt=True)
        through = self.render(messages[: at + 1])
        if not (through.startswith(before) and whole.startswith(through)):
            raise InputError(
                f"messages[{at}]",
                messages[at],
                "the chat template writes what stands around this answer in another way than when it was given; "
                "learn the last answer of a shorter conversation",
            )
        end = through.rfind(self.stop, len(before))
        return len(before), len(through) if end < 0 else end + len(self.stop)

    def _end_of_turn(self) -> str:
        """Find out which token ends an answer.

        Raises:
            ConfigError: none can be found.
        """
        for token in self._encode(self._after_an_answer()):
            special = self.tokenizer.special_tokens.get(token)
            if special is not None:
                return special
        if self.tokenizer.eos_token is None:
            raise ConfigError("stop = None: the template writes no special token behind an answer; name it")
        return self.tokenizer.eos_token

    def _after_an_answer(self) -> str:
        refusal: InputError | None = None
        for given in (str, _parts):  # some templates read nothing but lists of parts
            talk: list[ChatMessage] = [
                {"role": "user", "content": given("?")},
                {"role": "assistant", "content": given(_ANSWER)},
            ]
            try:
                _, found, tail = self.render(talk).rpartition(_ANSWER)
            except InputError as error:
                refusal = error
                continue
            if found:
                return tail
        why = refusal or "the template does not write what an assistant says"
        raise ConfigError(f"stop = None: what ends a turn cannot be found out: {why}") from refusal


def _parts(text: str) -> list[dict[str, Any]]:
    return [{"type": "text", "text": text}]
