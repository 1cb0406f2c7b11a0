"""Ask an agent aloud: a question's sound in, and all that it heard, said and sounded like until its answer has ended."""

import time

import numpy as np

from duplex.audio import SAMPLE_RATE, SPEECH_LEVEL, TICK_SAMPLES
from duplex.events import transcribe

PATIENCE_TICKS = 75  # 6 s without an answer ends the wait
LEAD_IN_SAMPLES = SAMPLE_RATE // 2  # silence before a question, as in any room


def last_sound(wave: np.ndarray) -> int:
    """Sample after which a recording is 40 dB below its peak: where its last word ends."""
    return int(np.flatnonzero(np.abs(wave) > 0.01 * np.abs(wave).max()).max()) + 1


def play(agent, wave: np.ndarray) -> dict:
    """Play one question to slot 0 and listen until the answer has ended -> what happened, with its sound."""
    wave = np.pad(wave, (LEAD_IN_SAMPLES, 0))
    ticks = -(-len(wave) // TICK_SAMPLES)
    sound = np.pad(wave, (0, ticks * TICK_SAMPLES - len(wave))).reshape(ticks, TICK_SAMPLES)
    events, voice, seconds, ended, quiet = [], [], [], False, 0
    while not (ended and quiet > 12) and quiet < PATIENCE_TICKS:
        tick = len(voice)
        batch = np.zeros((agent.slots, TICK_SAMPLES), np.float32)
        if tick < ticks:
            batch[0] = sound[tick]
        begun = time.perf_counter()
        out, said = agent.step(batch, [0])
        seconds.append(time.perf_counter() - begun)
        voice.append(out[0])
        events += said[0]
        ended = ended or any(e.kind == "agent_ended" for e in said[0])
        quiet = 0 if tick < ticks or np.abs(out[0]).max() > SPEECH_LEVEL else quiet + 1
    voice = np.concatenate(voice)
    loud = np.flatnonzero(np.abs(voice) > SPEECH_LEVEL)
    after = loud[loud > last_sound(wave)]
    transcript = transcribe(events)
    text = {"heard": transcript.user_text.strip(), "said": transcript.agent_text.strip()}
    delay = (after[0] - last_sound(wave)) / SAMPLE_RATE if len(after) else None
    return {**text, "voice": voice, "delay_s": delay, "tick_s": seconds}
