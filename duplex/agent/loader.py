"""From a folder of weights to an agent. The only place that knows whether networks are compiled."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from duplex import weights
from duplex.agent.agent import Agent
from duplex.agent.config import AgentConfig
from duplex.agent.turn_policy import TurnPolicy
from duplex.audio import TICK_SAMPLES
from duplex.checkpoint import load_config, load_tensors
from duplex.errors import BackboneError, WeightsError
from duplex.mind import load as mind
from duplex.model.asr.encoder import Encoder, EncoderConfig
from duplex.model.asr.lexicon import load_lexicon
from duplex.model.asr.whisper import Whisper, load_whisper
from duplex.model.backbone import fill_lm, read_backbone
from duplex.model.lm import LM, LMConfig
from duplex.model.ngram_draft import load_draft
from duplex.model.parts import Parts
from duplex.model.sound import load_sound_head
from duplex.model.speaker import load_speaker_head
from duplex.model.tokens import OVER
from duplex.model.tts.codec import load_codec
from duplex.model.tts.g2p import G2P
from duplex.model.tts.talker import Talker, TalkerConfig
from duplex.model.vocabulary import load_tokenizer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadOptions:
    """Where and in which number format the networks run."""

    device: str = "cpu"  # a torch device for the LM alone; for all networks see duplex.device
    dtype: str | None = None  # "int8" (default on a CPU), "bfloat16" or "float32": the LM's weights
    threads: int | None = None  # with "int8": two share each product where there are two cores
    backbone: Path | None = (
        None  # GGUF file or folder the LM was trained on; None: SmolLM2, fetched
    )
    offline: bool = False  # never fetch weights
    # The Whisper that reads turns again: "tiny", "base", a folder or "off"; None: tiny if it is
    # there or can be fetched.
    second_pass: str | None = None
    # What thinks of the answers: see duplex.mind.load.
    mind: str = "small"

    @property
    def format(self) -> str:
        """The number format that is used."""
        return self.dtype or ("int8" if self.device == "cpu" else "bfloat16")


def load_agent(
    folder: Path | None = None,
    slots: int = 1,
    config: AgentConfig | None = None,
    policy: TurnPolicy | None = None,
    **options,
) -> Agent:
    """The agent in `folder` (default: the one that ships), ready to step.

    options: fields of LoadOptions. Raises WeightsError, BackboneError, MindError,
    FileNotFoundError.
    """
    # With one thread torch makes no pool of workers here: a second pool, for the thread that will
    # run the model, halves its speed.
    threads_of_torch = torch.get_num_threads()
    torch.set_num_threads(1)
    options = LoadOptions(**options)
    thinker = mind.load_thinker(options.mind, options.offline)
    config = with_instructions(config or AgentConfig(), folder or weights.DEFAULT_AGENT)
    agent = Agent(load_parts(folder, options), slots, config, policy)
    if options.device == "cpu":
        warm_up(agent)
    torch.set_num_threads(threads_of_torch)
    return agent if thinker is None else agent.with_thinker(thinker)


def warm_up(agent: Agent, text: str = "Good day, my friend. ", ticks: int = 16) -> None:
    """Say something once: nothing is loaded or allocated in a session's first answer then."""
    if agent.second_pass is not None:
        agent.second_pass.warm_up()
    agent.open(0)
    session = agent.sessions[0]
    response = agent.response
    words, _ = response.g2p.push(text, response.g2p.initial_state())
    response.queue_new_words(0, session, words)
    response.synthesizer.finish(response.synthesis_state, 0)
    agent.answer(0)
    for _ in range(ticks):
        agent.step(np.zeros((agent.slots, TICK_SAMPLES), np.float32), [0])
    agent.close(0)
    agent.reset_counts()


def with_instructions(config: AgentConfig, folder: Path) -> AgentConfig:
    """The config with what the agent in `folder` is to keep in mind, if it has instructions.txt."""
    path = Path(folder) / "instructions.txt"
    if config.instructions is not None or not path.is_file():
        return config
    return replace(config, instructions=path.read_text(encoding="utf-8-sig").strip() or None)


def load_parts(folder: Path | None = None, options: LoadOptions | None = None) -> Parts:
    """The networks and data in `folder`, compiled for this processor where the format is int8."""
    folder = Path(folder) if folder else weights.DEFAULT_AGENT
    options = options or LoadOptions()
    tokenizer = load_tokenizer(folder)
    parts = Parts(
        encoder=_load(Encoder, EncoderConfig, folder / "encoder"),
        lexicon=load_lexicon(folder / "lexicon"),
        lm=load_lm(folder, options),
        tokenizer=tokenizer,
        g2p=G2P(),
        talker=_load(Talker, TalkerConfig, folder / "talker"),
        codec=load_codec(folder / "codec"),
        ngrams=load_draft(folder / "draft", tokenizer.get_vocab_size()),
        whisper=load_second_pass(options),
        speaker=load_speaker_head(folder / "speaker") if (folder / "speaker").is_dir() else None,
        sound=load_sound_head(folder / "sounds") if (folder / "sounds").is_dir() else None,
    )
    if options.format == "int8":
        return compiled(parts, options.threads)
    from duplex import cpu

    return cpu.compile_search(parts)


def compiled(parts: Parts, threads: int | None = None) -> Parts:
    """The same parts, compiled for this processor in 8 bits; None may be among them."""
    from duplex import cpu

    return cpu.compile(parts, threads)


def load_lm(folder: Path, options: LoadOptions) -> LM:
    """The LM of an agent's folder: its backbone, and what was trained merged into it."""
    backbone = options.backbone
    if backbone is None:
        backbone = next(weights.smollm2(offline=options.offline).glob("*.gguf"))
    lm = LM(load_config(LMConfig, folder / "lm"))
    sizes, tensors = read_backbone(Path(backbone))
    differing = [name for name, size in sizes.items() if getattr(lm.config, name) != size]
    if differing:
        raise BackboneError(
            f"{folder / 'lm'} was trained on another backbone than {backbone}: "
            f"{', '.join(differing)} differ"
        )
    fill_lm(lm, tensors)
    del tensors
    lm.load_state_dict(load_tensors(folder / "lm"), strict=False)
    set_turn_end(lm, folder / "turn_end")
    dtype = torch.bfloat16 if options.format == "bfloat16" else torch.float32
    return lm.merge().to(options.device, dtype).eval()


@torch.no_grad()
def set_turn_end(lm: LM, folder: Path) -> None:
    """Give the LM the row that tells whether the user has said all; without one it never does."""
    lm.control_out[OVER] = 0.0
    if not folder.is_dir():
        return
    row = load_tensors(folder)["weight"]
    if len(row) != lm.config.width:
        raise BackboneError(
            f"{folder} was fitted to another LM; make one for this by duplex.training.turn_end, or "
            "remove it"
        )
    lm.control_out[OVER] = row


def load_second_pass(options: LoadOptions) -> Whisper | None:
    """The Whisper that reads the user's turns a second time.

    Raises WeightsError where one is asked for and cannot be had.
    """
    if options.second_pass == "off":
        return None
    known = {None: weights.whisper_tiny, "tiny": weights.whisper_tiny, "base": weights.whisper_base}
    find = known.get(options.second_pass)
    try:
        folder = find(options.offline) if find else Path(options.second_pass)
    except WeightsError as error:
        if options.second_pass:
            raise
        log.warning("it hears worse without its second pass: %s", error)
        return None
    return load_whisper(folder).to(options.device)


def _load(network, config, folder: Path) -> torch.nn.Module:
    """A network of this class with the config and weights in `folder`."""
    module = network(load_config(config, folder))
    module.load_state_dict(load_tensors(folder))
    return module.eval()
