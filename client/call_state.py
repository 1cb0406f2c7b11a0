"""What the terminal says of a call, as a pure function of sound, socket, levels and events.

The page has the same function, web/state.js; tests/client/call_states.json holds both to the same
names. Neither takes the model's word for who speaks: that is what can be heard.
"""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class CallFacts:
    """What is known of a call at one moment."""

    # off, asking, lost, on; the page knows more ways to be without sound.
    sound: str = "off"
    # off, connecting, open, quiet, cut, restarting, full, failed.
    socket: str = "off"
    ending: bool = False
    muted: bool = False
    # Push to talk, and the key is not held.
    waits_for_key: bool = False
    # Who can be heard now.
    you: bool = False
    agent: bool = False
    # Whether the agent's turn is open.
    agent_turn: bool = False


# By name: tone (idle, live, wait, bad), what is so, and the way out.
SENTENCES = {
    "ready": ("idle", "ready", ""),
    "ending": ("wait", "ending", ""),
    "asking": ("wait", "opening the sound device", ""),
    "lost": ("bad", "the sound device is gone", "plug it in again; the conversation waits"),
    "connecting": ("wait", "connecting", ""),
    "cut": ("wait", "connection lost; trying again", "it is kept for half a minute"),
    "quiet": ("wait", "nothing comes from the server", "it goes on by itself when the server does"),
    "restarting": ("wait", "the agent starts again", "it is told what was said"),
    "full": ("wait", "all places are taken", "trying again"),
    "failed": ("bad", "the connection has ended", "start again"),
    "muted": ("wait", "you are muted", ""),
    "muted_agent": ("wait", "the agent speaks; you are muted", ""),
    "key": ("wait", "press space to talk", ""),
    "key_agent": ("live", "the agent speaks; press space to talk", ""),
    "both": ("live", "both speak", ""),
    "agent": ("live", "the agent speaks", ""),
    "waits": ("live", "the agent waits for you", ""),
    "you": ("live", "you speak", ""),
    "pauses": ("live", "the agent is about to speak", ""),
    "listening": ("live", "listening", ""),
}


def name(facts: CallFacts) -> str:
    """The name of the state, a key of SENTENCES or one of the page's."""
    if facts.ending:
        return "ending"
    if facts.sound not in ("off", "on"):
        return facts.sound
    if facts.socket == "failed":
        return "failed"
    if facts.sound == "off":
        return "ready"
    if facts.socket != "open":
        return "connecting" if facts.socket == "off" else facts.socket
    if facts.muted or facts.waits_for_key:
        return ("muted" if facts.muted else "key") + ("_agent" if facts.agent else "")
    return _who_speaks(facts)


def _who_speaks(facts: CallFacts) -> str:
    if facts.you and facts.agent:
        return "both"
    if facts.agent:
        return "agent"
    if facts.you:
        return "waits" if facts.agent_turn else "you"
    return "pauses" if facts.agent_turn else "listening"


@dataclass(frozen=True)
class Ear:
    """Whether somebody can be heard: a level above the noise of the room, in one of the last ticks.

    Levels are root mean squares of a tick.
    """

    floor: float = 0.002
    quiet_ticks: int = 5
    # The least level of a voice (-42 dB), and for how long it counts on: 0.4 s.
    least: float = 0.008
    held_ticks: int = 5

    @property
    def voice(self) -> bool:
        """Whether there is a voice."""
        return self.quiet_ticks < self.held_ticks

    def listen(self, level: float) -> "Ear":
        """After one more tick. The noise falls at once and rises by 2 %."""
        noise = max(2e-4, min(level, self.floor * 1.02))
        is_loud = level > max(self.least, 4 * noise)
        quiet_ticks = 0 if is_loud else self.quiet_ticks + 1
        return replace(self, floor=min(noise, 0.02), quiet_ticks=quiet_ticks)
