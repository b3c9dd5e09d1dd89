"""The tokenizer: byte-level BPE in CLIP's form, trained on captions.

It has all byte symbols, so any text can be encoded; each word of the caption grammar is one token.
"""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, models, trainers
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer

LENGTH = 48  # tokens, start and end included; the longest caption of the grammar fits
START, END = "<|startoftext|>", "<|endoftext|>"
SUFFIX = "</w>"


def train_tokenizer(texts: Iterable[str], size: int = 2048) -> CLIPTokenizer:
    """Train a tokenizer of at most `size` tokens; the same texts give the same tokenizer.

    Text is lower-cased and split as in CLIP (Radford et al. 2021), and padded with the end token as
    in Stable Diffusion.
    """
    # CLIPTokenizer's own normalizer and splitter, which it will apply to every text.
    clip = CLIPTokenizer(vocab={START: 0, END: 1}, merges=[]).backend_tokenizer
    alphabet = sorted(ByteLevel.alphabet())
    symbols = [*alphabet, *(symbol + SUFFIX for symbol in alphabet)]
    trainer = Tokenizer(models.BPE(end_of_word_suffix=SUFFIX))
    trainer.normalizer, trainer.pre_tokenizer = clip.normalizer, clip.pre_tokenizer
    trainer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=size,
            min_frequency=2,
            # Numbered here: otherwise their order varies, and it decides between equal counts.
            special_tokens=symbols,
            end_of_word_suffix=SUFFIX,
            show_progress=False,
        ),
    )
    merges = [tuple(pair) for pair in json.loads(trainer.to_str())["model"]["merges"]]
    tokens = [*symbols, *(a + b for a, b in merges), START, END]
    vocab = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=LENGTH)


def load(folder: Path, *partners: Path) -> CLIPTokenizer:
    """Load the tokenizer of a folder.

    Raises ValueError if a partner, the folder of a model that takes its ids, has another one.
    """
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    for partner in partners:
        if CLIPTokenizer.from_pretrained(partner).get_vocab() != tokenizer.get_vocab():
            raise ValueError(
                f"{partner} was trained with another tokenizer than {folder}: train both anew"
            )
    return tokenizer


def encode(tokenizer: CLIPTokenizer, texts: list[str]) -> np.ndarray:
    """Return token ids, int16 (len(texts), the tokenizer's length), padded and cut as in pipelines.

    Calls the Rust tokenizer directly, which is many times faster for many texts.
    """
    backend = tokenizer.backend_tokenizer
    length = tokenizer.model_max_length
    backend.enable_truncation(length)
    backend.enable_padding(
        length=length, pad_id=tokenizer.pad_token_id, pad_token=tokenizer.pad_token
    )
    encodings = backend.encode_batch_fast(texts)
    return np.array([encoding.ids for encoding in encodings], np.int16).reshape(len(texts), length)
