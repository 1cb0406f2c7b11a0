"""Whisper with random weights and tiny sizes; it reads something, but nothing that was said."""

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from duplex.model.asr.whisper import Whisper, WhisperConfig

MARKS = ["<|endoftext|>", "<|startoftranscript|>", "<|nocaptions|>", "<|notimestamps|>"]
LETTERS = sorted(pre_tokenizers.ByteLevel.alphabet())


def tokenizer() -> Tokenizer:
    """One token a byte, the marks behind them."""
    vocabulary = {letter: i for i, letter in enumerate(LETTERS)}
    vocabulary |= {mark: len(LETTERS) + i for i, mark in enumerate(MARKS)}
    found = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.decoder = decoders.ByteLevel()
    return found


def tiny_whisper(seed: int = 0) -> Whisper:
    """It has a whole window; what it reads depends on what it hears."""
    torch.manual_seed(seed)
    whisper = Whisper(WhisperConfig(width=64, layers=1, vocabulary=260), tokenizer())
    for parameter in whisper.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return whisper
