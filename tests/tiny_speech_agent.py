"""The whole agent with random weights and tiny sizes: every real part, nothing fetched."""

from dataclasses import replace
from functools import cache

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from duplex.agent import Agent, AgentConfig, TurnPolicy
from duplex.audio import TICK_SAMPLES
from duplex.model.asr.encoder import BLANK, Encoder, EncoderConfig
from duplex.model.asr.lexicon import unpack
from duplex.model.lm import LM, LMConfig
from duplex.model.ngram_draft import NgramConfig
from duplex.model.parts import Parts
from duplex.model.tokens import FIRST_TEXT_ID, NEXT
from duplex.model.tts.codec import Codec, CodecConfig
from duplex.model.tts.g2p import G2P
from duplex.model.tts.talker import Talker, TalkerConfig
from duplex.training.draft import Turn, count
from duplex.training.lexicon import pack

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
    """With random weights; so unsure of every phone that any sound has words in it."""
    encoder = Encoder(EncoderConfig(width=24, layers=1, heads=2, window=16)).eval()
    torch.nn.init.normal_(encoder.phones.weight, std=0.1)
    return encoder


def tiny_words() -> dict[str, np.ndarray]:
    """The tensors of a lexicon: a few short words in a few sentences."""
    return pack(
        ["hi you", "you and now", "so we go", "now we hear a tree", "i see you now"],
        listed=["hello", "good", "day"],
    )


@cache
def tiny_g2p() -> G2P:
    """Hibari's dictionary, read once."""
    return G2P()


def tiny_parts(seed: int = 0, codec=None) -> Parts:
    """Every part of an agent, random and tiny. The LM counts in double precision: rounding differs
    with a batch's shape, and must not decide between two symbols."""
    torch.manual_seed(seed)
    tokenizer = tiny_tokenizer()
    encoder = tiny_encoder()
    config = LMConfig(
        width=32,
        layers=2,
        heads=4,
        kv_heads=2,
        hidden=48,
        vocabulary=tokenizer.get_vocab_size(),
        lora_rank=0,
        feature_width=96,
        tick_window=20,
        text_window=40,
    )
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
    lm = LM(config).eval()
    torch.nn.init.normal_(lm.residual.weight, std=0.3)  # so that sound decides what it says
    return Parts(
        encoder=encoder,
        lexicon=unpack(tiny_words()),
        lm=lm.double(),
        tokenizer=tokenizer,
        g2p=tiny_g2p(),
        talker=Talker(talker).eval(),
        codec=(codec or Codec(sizes)).eval(),
    )


def tiny_agent(
    slots: int = 1,
    policy: TurnPolicy | None = None,
    config: AgentConfig | None = None,
    seed: int = 0,
    codec=None,
) -> Agent:
    """An agent of tiny parts; by default without the echo canceller, to which noise is no user."""
    config = config or AgentConfig(cancel_echo=False)
    return Agent(tiny_parts(seed, codec), slots, config, policy)


def drafted_agent(
    slots: int, policy: TurnPolicy, config: AgentConfig, turns: list[list[int]], seed=0
) -> Agent:
    """With n-grams of these turns of the agent's, each from <agent> on."""
    parts = tiny_parts(seed)
    vocabulary = parts.lm.config.vocabulary
    parts.ngrams = count([Turn(tokens, []) for tokens in turns], NgramConfig(vocabulary=vocabulary))
    return Agent(parts, slots, config, policy)


class Script:
    """Stands for the LM's output layer, which wants given symbols one after the other."""

    def __init__(self, symbols: list[int], vocabulary: int):
        self.symbols = list(symbols)
        self.vocabulary = vocabulary

    def __call__(self, hidden: torch.Tensor, text: bool = True) -> torch.Tensor:
        scores = torch.zeros(*hidden.shape[:-1], self.vocabulary if text else FIRST_TEXT_ID)
        wanted = self.symbols[0] if self.symbols else NEXT
        if wanted < scores.shape[-1]:  # a text symbol waits until the runtime asks for text
            scores[..., wanted] = 10.0
            self.symbols = self.symbols[1:]
        else:
            scores[..., NEXT] = 10.0
        return scores


UNDEMANDING = {
    "min_confidence_reply": 0.0,
    "min_confidence_first": 0.0,
    "min_confidence_noise": 0.0,
}


def scripted_agent(symbols: list[int], slots: int = 1, **rules) -> tuple[Agent, Script]:
    """An agent that hears nothing, asks for each symbol once, and wants these.

    rules: fields of its TurnPolicy; any turn may be answered.
    """
    policy = replace(TurnPolicy(), **UNDEMANDING | rules)
    agent = tiny_agent(slots, policy, AgentConfig(cancel_echo=False, speculate=False))
    agent.parts.encoder.phones.bias.data[BLANK] = 99.0
    script = Script(symbols, agent.parts.lm.config.vocabulary)
    agent.parts.lm.logits = script
    return agent, script


def text(words: str) -> list[int]:
    """The tiny tokenizer's tokens of a text."""
    return [FIRST_TEXT_ID + LETTERS.index(letter) for letter in words.replace(" ", "Ġ")]


def tick_of(level: float = 0.0, slots: int = 1) -> np.ndarray:
    """One tick of a constant level, for every slot."""
    return np.full((slots, TICK_SAMPLES), level, np.float32)
