"""Writes a tiny language model with random weights, as a folder that servers load: 125,000 parameters, 1 MB.

    python tests/contract/servers/tiny_model.py FOLDER

The tokenizer is trained on the spot. Its vocabulary is the model's: from a larger one, servers would draw tokens that
the tokenizer cannot spell. The same seed gives the same bytes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CORPUS = [
    "the quick brown fox jumps over the lazy dog",
    "a nursery supervises its children",
    "one two three four five six seven eight nine ten",
    "hello world, how are you today?",
    "forward backward optim step sample save load",
    "0 1 2 3 4 5 6 7 8 9 10 11 12",
]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CONTEXT, HIDDEN, INTERMEDIATE, LAYERS = 2048, 64, 128, 2
HEADS, KEY_HEADS, HEAD_SIZE = 4, 2, 16


def write_tiny_model(folder: Path, seed: int = 0) -> None:
    """Write the model's folder; one that is there is left as it is."""
    if (folder / "model.safetensors").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary, end = write_tokenizer(folder)
    write_settings(folder, vocabulary, end)
    save_file(weights(vocabulary, seed), folder / "model.safetensors", metadata={"format": "pt"})


def write_tokenizer(folder: Path) -> tuple[int, int]:
    """Train and write a byte-level tokenizer; return its size and the token that ends a text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS * 50, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": SPECIAL[0],
            "pad_token": SPECIAL[0],
            "bos_token": None,
            "unk_token": None,
            "model_max_length": CONTEXT,
            "clean_up_tokenization_spaces": False,
            "additional_special_tokens": SPECIAL[1:],
            "chat_template": TEMPLATE,
        },
    )
    end = tokenizer.token_to_id(SPECIAL[0])
    assert end is not None
    return tokenizer.get_vocab_size(), end


def write_settings(folder: Path, vocabulary: int, end: int) -> None:
    """Write what `transformers` wants to know of a model."""
    write_json(
        folder / "config.json",
        {
            "architectures": ["Qwen3ForCausalLM"],
            "model_type": "qwen3",
            "vocab_size": vocabulary,
            "hidden_size": HIDDEN,
            "intermediate_size": INTERMEDIATE,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "num_key_value_heads": KEY_HEADS,
            "head_dim": HEAD_SIZE,
            "hidden_act": "silu",
            "max_position_embeddings": CONTEXT,
            "rms_norm_eps": 1e-6,
            "rope_theta": 10000.0,
            "attention_bias": False,
            "attention_dropout": 0.0,
            "initializer_range": 0.02,
            "tie_word_embeddings": False,
            "use_cache": True,
            "bos_token_id": None,
            "eos_token_id": end,
            "pad_token_id": end,
            "torch_dtype": "float32",
            "use_sliding_window": False,
            "sliding_window": None,
            "max_window_layers": LAYERS,
        },
    )
    write_json(
        folder / "generation_config.json", {"eos_token_id": end, "pad_token_id": end, "do_sample": True}
    )


def weights(vocabulary: int, seed: int) -> dict[str, NDArray[np.float32]]:
    """Draw the weights."""
    rng = np.random.default_rng(seed)

    def drawn(rows: int, columns: int) -> NDArray[np.float32]:
        return (rng.standard_normal((rows, columns)) * 0.05).astype(np.float32)

    tensors = {
        "model.embed_tokens.weight": drawn(vocabulary, HIDDEN),
        "model.norm.weight": np.ones(HIDDEN, np.float32),
        "lm_head.weight": drawn(vocabulary, HIDDEN),
    }
    for layer in range(LAYERS):
        at = f"model.layers.{layer}"
        tensors |= {
            f"{at}.self_attn.q_proj.weight": drawn(HEADS * HEAD_SIZE, HIDDEN),
            f"{at}.self_attn.k_proj.weight": drawn(KEY_HEADS * HEAD_SIZE, HIDDEN),
            f"{at}.self_attn.v_proj.weight": drawn(KEY_HEADS * HEAD_SIZE, HIDDEN),
            f"{at}.self_attn.o_proj.weight": drawn(HIDDEN, HEADS * HEAD_SIZE),
            f"{at}.self_attn.q_norm.weight": np.ones(HEAD_SIZE, np.float32),
            f"{at}.self_attn.k_norm.weight": np.ones(HEAD_SIZE, np.float32),
            f"{at}.mlp.gate_proj.weight": drawn(INTERMEDIATE, HIDDEN),
            f"{at}.mlp.up_proj.weight": drawn(INTERMEDIATE, HIDDEN),
            f"{at}.mlp.down_proj.weight": drawn(HIDDEN, INTERMEDIATE),
            f"{at}.input_layernorm.weight": np.ones(HIDDEN, np.float32),
            f"{at}.post_attention_layernorm.weight": np.ones(HIDDEN, np.float32),
        }
    return tensors


def write_json(path: Path, value: object) -> None:
    """Write a JSON file."""
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")


if __name__ == "__main__":
    write_tiny_model(Path(sys.argv[1]))
