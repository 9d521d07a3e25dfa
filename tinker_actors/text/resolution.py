"""Which tokenizer belongs to a model. Pure.

Rules and revisions: tinker 0.38.0 lib/public_interfaces/sampling_client.py. In order:

    the service names a tokenizer             that one
    `meta-llama/Llama-3...`                   one tokenizer for all of them, which needs no permission
    `moonshotai/Kimi-K2.5-Text-Only`          that of `moonshotai/Kimi-K2.5`
    `owner/model/variant`                     that of `owner/model`
    any other name                            that of the name itself

What follows a `:` in a name belongs to the service. A path of this machine stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["REVISIONS", "resolve_tokenizer_id"]

_LLAMA_3: Final = "thinkingmachineslabinc/meta-llama-3-instruct-tokenizer"
_SHARED: Mapping[str, str] = {"moonshotai/Kimi-K2.5-Text-Only": "moonshotai/Kimi-K2.5"}
_PATHS: Final = ("/", "./", "../", "~")

REVISIONS: Mapping[str, str] = {
    "moonshotai/Kimi-K2-Thinking": "612681931a8c906ddb349f8ad0f582cb552189cd",
    "moonshotai/Kimi-K2.5": "4d01dfe0332d63057c186e0b262165819efb6611",
    "moonshotai/Kimi-K2.6": "b5aabbfb20227ed42becbf5541dbffd213942c58",
    "moonshotai/Kimi-K3": "f831ab66814297da540d832a5235f8e904f29d06",
}
"""By tokenizer id, the commit on the hub that the service was built with."""


def resolve_tokenizer_id(model_name: str, tokenizer_id: str | None = None) -> str:
    """Return the id of a model's tokenizer; the table is at the head of the module.

    Args:
        model_name: the base model.
        tokenizer_id: what the service names, if it does.
    """
    if tokenizer_id:
        return _without_suffix(tokenizer_id)
    if model_name.startswith(_PATHS):
        return model_name
    name = _without_suffix(model_name)
    if name.startswith("meta-llama/Llama-3"):
        return _LLAMA_3
    owner, _, rest = name.partition("/")
    if rest.count("/") == 1:
        name = f"{owner}/{rest.partition('/')[0]}"
    return _SHARED.get(name, name)


def _without_suffix(name: str) -> str:
    return name if name.startswith(_PATHS) else name.partition(":")[0]
