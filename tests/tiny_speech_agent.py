"""The whole agent with random weights and tiny sizes: every real part, nothing fetched."""

from dataclasses import replace

import numpy as np
import torch
from duplex.training.lexicon import pack
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from duplex.agent.agent import Agent
from duplex.agent.turn_policy import Settings
from duplex.model.codec import Codec, CodecConfig
from duplex.model.encoder import Encoder, EncoderConfig
from duplex.model.lexicon import unpack
from duplex.model.lm import LM, LMConfig
from duplex.model.talker import Talker, TalkerConfig
from duplex.model.tokens import FIRST_TEXT_ID

LETTERS = sorted(pre_tokenizers.ByteLevel.alphabet())


def tiny_tokenizer() -> Tokenizer:
    """One token a byte, after the places of the special tokens."""
    vocabulary = {f"<|{i}|>": i for i in range(FIRST_TEXT_ID)}
    vocabulary |= {letter: FIRST_TEXT_ID + i for i, letter in enumerate(LETTERS)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def tiny_encoder() -> Encoder:
    """With random weights. It is so unsure of every phone that any sound has words of the tiny lexicon in it."""
    encoder = Encoder(EncoderConfig(width=24, layers=1, heads=2, window=16)).eval()
    torch.nn.init.normal_(encoder.phones.weight, std=0.1)
    return encoder


def tiny_words() -> dict[str, np.ndarray]:
    """The tensors of a lexicon: a few short words in a few sentences."""
    return pack(
        ["hi you", "you and now", "so we go", "now we hear a tree", "i see you now"],
        listed=["hello", "good", "day"],
    )


def tiny_agent(
    slots: int,
    settings: Settings | None = None,
    seed: int = 0,
    codec=None,
    cancel_echo: bool = False,
) -> Agent:
    """Without the canceller, to which lasting noise is no user."""
    torch.manual_seed(seed)
    settings = replace(settings or Settings(), cancel_echo=cancel_echo)
    tokenizer = tiny_tokenizer()
    encoder = tiny_encoder()
    config = LMConfig(
        width=32, layers=2, heads=4, kv_heads=2, hidden=48, vocabulary=tokenizer.get_vocab_size(), lora_rank=0,
        feature_width=96, tick_window=20, text_window=40,
    )  # fmt: skip
    sizes = CodecConfig(
        codebook_size=16,
        latent_width=8,
        encoder_width=12,
        encoder_blocks=1,
        decoder_width=16,
        decoder_blocks=1,
    )
    talker = TalkerConfig(
        phone_width=16, width=20, layers=1, heads=1, hidden=24, code_width=12, codebook_size=16
    )
    model = LM(config).eval()
    torch.nn.init.normal_(model.residual.weight, std=0.3)  # so that sound decides what it says
    model = (
        model.double()
    )  # rounding differs with a batch's shape and must not decide between two symbols
    talker = Talker(talker).eval()
    return Agent(
        model,
        encoder,
        unpack(tiny_words()),
        talker,
        (codec or Codec(sizes)).eval(),
        tokenizer,
        slots,
        settings,
    )
