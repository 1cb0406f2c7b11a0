"""All networks of an agent on one device, for all slots, in fixed shapes.

    audio -> Ears | wait | beams (host) -> DeviceLM -> Draws | wait, once a call | policy (host)
          -> Voice: new phones | wait, if there are any | plan (host) -> Voice | wait | audio

`place` takes the parts of an agent and returns others that are called in the same way. The host
keeps the clock, the beams and the policy. Eager on a CPU it is the reference of what is captured
on a GPU. The second pass needs more waits; so do rescoring and answers that are drafted ahead.
"""

import copy
from dataclasses import dataclass, replace

import torch

from duplex.agent.config import AgentConfig
from duplex.device.draws import Draws
from duplex.device.ears import Ears
from duplex.device.link import Link
from duplex.device.lm import DeviceLM
from duplex.device.voice import Voice
from duplex.errors import UsageError
from duplex.model.parts import Parts
from duplex.model.tts.codec import Codec


@dataclass(frozen=True)
class DeviceConfig:
    """What is fixed of an agent on a device, beside its slots."""

    device: str = "cpu"
    # Of the LM's weights and cache; None: as they are.
    dtype: torch.dtype | None = None
    # A backend of torch.compile, see Link.
    backend: str | None = None
    # Pieces of words recognised in a tick that count.
    pieces: int = 32


def agent_config(config: AgentConfig | None = None) -> AgentConfig:
    """How an agent on a device decodes: no wait in a tick but those of Ears, Draws and Voice.

    Three calls of the LM leave a tick with six waits at most; with this room for instructions a
    slot has 768 cells.
    """
    return replace(
        config or AgentConfig(),
        rescore=False,
        lookahead_budget_s=0.0,
        max_calls=3,
        prompt_cells=140,
    )


def check(device: str) -> None:
    """Raises UsageError where there is no such device."""
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(f"there is no {device} here; leave --compute out")


def place(parts: Parts, config: DeviceConfig, agent: AgentConfig) -> Parts:
    """Parts whose networks run on a device, once it is known for how many slots.

    The weights are copied there, those of the LM moved. Raises UsageError where there is no such
    device, or the codec has no form for it.
    """
    check(config.device)
    if not isinstance(parts.codec, Codec):
        raise UsageError("this agent's codec runs on a CPU only; leave --compute out")
    device = torch.device(config.device)
    moved = {
        name: copy.deepcopy(getattr(parts, name)).to(device)
        for name in ("encoder", "talker", "codec", "speaker", "sound")
        if getattr(parts, name) is not None
    }
    lm = parts.lm.to(device, config.dtype)

    def on(placed: Parts, slots: int) -> Parts:
        link = Link(device, config.backend)
        heads = moved.get("speaker"), moved.get("sound")
        ears = Ears(moved["encoder"], heads, slots, link, False)
        own = DeviceLM(lm, slots, link, ears.vectors, config.pieces)
        voice = Voice(moved["talker"], moved["codec"], slots, link, agent.codec_idle_ticks)
        draws = Draws(own, link, agent.top_k, agent.temperature)
        return replace(placed, lm=own, ears=ears, voice=voice, draws=draws, place=None)

    return replace(parts, lm=None, whisper=None, place=on)
