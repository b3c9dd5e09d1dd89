"""The words the model reads: a byte-level BPE tokenizer in CLIP's form, learnt from captions.

It holds every byte symbol, so any text can be encoded; the words of the caption grammar are one token each.
"""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, models, trainers
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer

LENGTH = 48  # tokens a caption, start and end included; the longest caption of the grammar fits
START, END = "<|startoftext|>", "<|endoftext|>"
SUFFIX = "</w>"


def train_tokenizer(texts: Iterable[str], size: int = 2048) -> CLIPTokenizer:
    """Learns a tokenizer of at most `size` tokens; the same texts give the same tokenizer.

    Text is lower-cased and split as CLIP does it (Radford et al. 2021); padded with the end token, as
    Stable Diffusion's is.
    """
    # CLIPTokenizer's own normaliser and splitter: what is learnt here must match what it does to a text.
    clip = CLIPTokenizer(vocab={START: 0, END: 1}, merges=[]).backend_tokenizer
    alphabet = sorted(ByteLevel.alphabet())
    symbols = [*alphabet, *(symbol + SUFFIX for symbol in alphabet)]
    learner = Tokenizer(models.BPE(end_of_word_suffix=SUFFIX))
    learner.normalizer, learner.pre_tokenizer = clip.normalizer, clip.pre_tokenizer
    learner.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=size,
            min_frequency=2,
            # Numbered here, because the trainer numbers them in an order that varies, and by it settles equal counts.
            special_tokens=symbols,
            end_of_word_suffix=SUFFIX,
            show_progress=False,
        ),
    )
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    tokens = [*symbols, *(a + b for a, b in merges), START, END]
    vocab = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=LENGTH)


def load(folder: Path, *partners: Path) -> CLIPTokenizer:
    """The tokenizer of a folder. Raises ValueError if a partner, a model that will read its ids, learnt others."""
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    for partner in partners:
        if CLIPTokenizer.from_pretrained(partner).get_vocab() != tokenizer.get_vocab():
            raise ValueError(
                f"{partner} was trained with another tokenizer than {folder}: train both anew"
            )
    return tokenizer


def encode(tokenizer: CLIPTokenizer, texts: list[str]) -> np.ndarray:
    """Token ids, int16 (len(texts), the tokenizer's length), padded and cut as the pipeline does it.

    Goes to the Rust tokenizer directly: many times faster than calling the Python one on many texts.
    """
    backend, length = tokenizer.backend_tokenizer, tokenizer.model_max_length
    backend.enable_truncation(length)
    backend.enable_padding(
        length=length, pad_id=tokenizer.pad_token_id, pad_token=tokenizer.pad_token
    )
    encodings = backend.encode_batch_fast(texts)
    return np.array([encoding.ids for encoding in encodings], np.int16).reshape(len(texts), length)
