"""How a client of the OpenAI Realtime API wants turns to be found."""

from duplex.audio import TICK_MS
from duplex.serving.openai.events import Refused, is_whole

# Milliseconds of silence that a client may want before a turn ends.
MAX_SILENCE_MS = 10_000
# Milliseconds of silence below which the agent does not go.
MIN_SILENCE_MS = 3 * TICK_MS
# Milliseconds of silence behind an answer after which a client may have the agent speak again.
MIN_IDLE_MS = 1_000
MAX_IDLE_MS = 600_000
EAGERNESS = ("low", "medium", "high", "auto")
SEMANTIC = {
    "type": "semantic_vad",
    "eagerness": "auto",
    "create_response": True,
    "interrupt_response": True,
}
SERVER = {
    "type": "server_vad",
    "silence_duration_ms": 500,
    "create_response": True,
    "interrupt_response": True,
}


def read(hearing: dict, usual: dict | None) -> dict | None:
    """What turn_detection asks for, as the API writes it; None: push to talk. Raises Refused."""
    if "turn_detection" not in hearing:
        return usual
    where = "session.audio.input.turn_detection"
    wanted = hearing["turn_detection"]
    # "none" is how Azure's clients write it.
    if wanted in (None, False, {"type": "none"}):
        return None
    if not isinstance(wanted, dict):
        raise Refused("invalid_value", "turn_detection is an object or null", where)
    kind = wanted.get("type", "server_vad")
    if kind not in ("server_vad", "semantic_vad"):
        text = "turn_detection.type is server_vad or semantic_vad"
        raise Refused("invalid_value", text, f"{where}.type")
    found = dict(SERVER if kind == "server_vad" else SEMANTIC)
    for name in ("create_response", "interrupt_response"):
        value = wanted.get(name)
        if value is not None and not isinstance(value, bool):
            raise Refused("invalid_value", f"{name} is true or false", f"{where}.{name}")
        found[name] = found[name] if value is None else value
    if kind == "semantic_vad":
        found["eagerness"] = wanted.get("eagerness") or "auto"
        if found["eagerness"] not in EAGERNESS:
            text = f"eagerness is one of {', '.join(EAGERNESS)}"
            raise Refused("invalid_value", text, f"{where}.eagerness")
        return found
    if wanted.get("idle_timeout_ms") is not None:
        if not is_whole(wanted["idle_timeout_ms"], MIN_IDLE_MS, MAX_IDLE_MS):
            text = f"idle_timeout_ms is a whole number from {MIN_IDLE_MS} to {MAX_IDLE_MS}"
            raise Refused("invalid_value", text, f"{where}.idle_timeout_ms")
        found["idle_timeout_ms"] = int(wanted["idle_timeout_ms"])
    silence = wanted.get("silence_duration_ms")
    if silence is not None:
        if not is_whole(silence, 0, MAX_SILENCE_MS):
            text = f"silence_duration_ms is a whole number from 0 to {MAX_SILENCE_MS}"
            raise Refused("invalid_value", text, f"{where}.silence_duration_ms")
        found["silence_duration_ms"] = max(MIN_SILENCE_MS, int(silence))
    return found
