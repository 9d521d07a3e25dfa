"""Text and conversations: tokenizers, and renderers for chat models.

- `Tokenizer`: text to ids and back. Clients give the one of their model (`get_tokenizer`); `load_tokenizer` loads one.
- `Renderer`: what turns conversations into tokens and answers into messages; `ChatTemplateRenderer` is one that uses
  the chat template of the model itself.
- `datum_from_model_input_weights`: a supervised example as a datum.
"""

from __future__ import annotations

from tinker_actors.text.chat import ChatTemplateRenderer
from tinker_actors.text.renderer import (
    ChatMessage,
    ParseTermination,
    Renderer,
    TrainOn,
    datum_from_model_input_weights,
)
from tinker_actors.text.resolution import resolve_tokenizer_id
from tinker_actors.text.template import ChatTemplate
from tinker_actors.text.tokenizer import Tokenizer, load_tokenizer

__all__ = [
    "ChatMessage",
    "ChatTemplate",
    "ChatTemplateRenderer",
    "ParseTermination",
    "Renderer",
    "Tokenizer",
    "TrainOn",
    "datum_from_model_input_weights",
    "load_tokenizer",
    "resolve_tokenizer_id",
]
