"""Chat templates in the manners of known families, and a tokenizer that has their special tokens."""

from __future__ import annotations

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers

from tinker_actors.text.settings import TokenizerSettings
from tinker_actors.text.tokenizer import Tokenizer

SPECIAL = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|head|>", "<|tail|>", "<|turn|>", "<turn>", "<end>"]

# Each turn between two signs; a system message of its own where there is none; tools in a block of JSON.
MARKED_TURNS = """\
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}
        {{- messages[0].content + '\\n\\n' }}
    {%- endif %}
    {{- '# Tools\\n' }}
    {%- for tool in tools %}
        {{- '\\n' }}{{- tool | tojson }}
    {%- endfor %}
    {{- '<|im_end|>\\n' }}
{%- elif messages[0]['role'] != 'system' %}
    {{- '<|im_start|>system\\nYou are of some help.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role != 'system' or not tools %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

# A head that names the role, the text without blanks around it, the date in front.
HEADED_TURNS = """\
{% set loop_messages = messages %}
{{- bos_token }}{% for message in loop_messages %}
{% set content = '<|head|>' + message['role'] + '<|tail|>\\n\\n' + message['content'] | trim + '<|turn|>' %}
    {% if loop.index0 == 0 %}
        {% set content = 'Today: ' + strftime_now('%d %b %Y') + '\\n' + content %}
    {% endif %}
{{ content }}
{%- endfor %}
{% if add_generation_prompt %}
{{ '<|head|>assistant<|tail|>\\n\\n' }}
{%- endif %}
"""

# Turns in brackets, which must alternate; a system message goes into the first of them.
BRACKETED_TURNS = """\
{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- set ns = namespace(index=0) %}
{%- for message in loop_messages %}
    {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
        {{- raise_exception("After the optional system message, roles must alternate user/assistant") }}
    {%- endif %}
    {%- set ns.index = ns.index + 1 %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if loop.first and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + " [/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + " [/INST]" }}
        {%- endif %}
    {%- else %}
        {{- " " + message["content"] | trim + eos_token }}
    {%- endif %}
{%- endfor %}
"""

# The assistant has another name, and what it says is marked as generated.
RENAMED_TURNS = """\
{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{%- for message in messages %}
{%- set role = 'model' if message['role'] == 'assistant' else message['role'] %}
{{ '<turn>' + role + '\\n' }}
{%- if message['role'] == 'assistant' %}{% generation %}
{%- if message['thinking'] is defined and loop.last %}{{ message['thinking'] | trim + ' => ' }}{% endif %}
{{- message['content'] | trim }}{{ '<end>' }}{% endgeneration %}
{%- else %}{{ message['content'] | trim }}{{ '<end>' }}{% endif %}{{ '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<turn>model\\n' }}{% endif %}
"""

# Thoughts stay in the last answer only; calls of tools are written as JSON; loops are left early.
THINKING_TURNS = """\
{%- set ns = namespace(last=-1) %}
{%- for message in messages[::-1] %}
    {%- if message.role == 'user' %}
        {%- set ns.last = messages | length - loop.index %}
        {%- break %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' }}
    {%- if message.role == 'assistant' and message.reasoning_content is defined and loop.index0 > ns.last %}
        {{- '<think>\\n' + message.reasoning_content.strip('\\n') + '\\n</think>\\n\\n' }}
    {%- endif %}
    {{- message.content or '' }}
    {%- for call in message.tool_calls or [] %}
        {{- '\\n<tool_call>\\n' + (call.function | tojson(indent=2)) + '\\n</tool_call>' }}
    {%- endfor %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and not enable_thinking %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""

TEMPLATES = {
    "marked": MARKED_TURNS,
    "headed": HEADED_TURNS,
    "bracketed": BRACKETED_TURNS,
    "renamed": RENAMED_TURNS,
    "thinking": THINKING_TURNS,
}


def byte_tokenizer(*merges: tuple[str, str]) -> tokenizers.Tokenizer:
    """Return a tokenizer with one token for each byte, for each pair that is merged, and the special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {sign: at for at, sign in enumerate([*alphabet, *map("".join, merges)])}
    backend = tokenizers.Tokenizer(models.BPE(vocabulary, list(merges)))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not merges)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    return backend


def piece_tokenizer(blank: str) -> tokenizers.Tokenizer:
    """Return a tokenizer that writes a blank as a sign of its own and puts one before a text, as SentencePiece does.

    Args:
        blank: whether that is done by a normalizer (`normalizer`), or where the pre-tokenizer does it (`first`,
            `always`, `never`).
    """
    signs = [*map(chr, range(33, 127)), "▁", "It", "▁It", "▁▁"]
    tokens = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *signs]
    merges = [("I", "t"), ("▁", "It"), ("▁", "▁")]
    vocabulary = {token: at for at, token in enumerate(tokens)}
    backend = tokenizers.Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True))
    if blank == "normalizer":
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=blank, split=False)
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return backend


def tokenizer_with(
    template: str | None, backend: tokenizers.Tokenizer | None = None, **special: str
) -> Tokenizer:
    """Return a tokenizer with a chat template."""
    names = {"bos_token": "<s>", "eos_token": "</s>"} | special
    templates = {} if template is None else {"default": template}
    return Tokenizer("test", backend or byte_tokenizer(), TokenizerSettings(names, templates))
