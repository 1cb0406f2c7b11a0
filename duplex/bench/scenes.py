"""Scenes of the bench: what the user's side says and when.

A folder of them has `scenes.json`, a list of scenes, and sound files. A scene has `name`, `kind`
(see KINDS), `file`, `pieces`, and where wanted `listen_s` (how long it goes on after the last
piece) and `echo` (`delay_s`, `gain`: the loudspeaker heard again by the microphone). Of a stereo
file the left channel is the user's; the right may hold a person in the agent's place, whose
back-channels are then the measure.

A piece is a part of the file, `begin_s` to `end_s`, with a `role` (see ROLES), its `text` and, if
known, `words` [[word, start_s, end_s]] from the file's beginning. When it is played:

- `after_s`: so long after the piece before (the first: after the scene's beginning);
- `after_voice_s`, `latest_s`: once the agent has spoken so long since the piece before; without
  voice, after `latest_s`;
- `at_s`: at this time, whatever else happens (noise under everything);
- none of them: where it lies in the file.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from duplex.audio import AUDIBLE, SAMPLE_RATE, TICK_S, TICK_SAMPLES
from duplex.errors import SceneError

# The scenes that come with the project.
SHIPPED = Path(__file__).parent / "scene_set"
# What scenes are about, and the role of the piece without which they could not be scored.
KINDS = {
    "pause": "question",
    "turn": "question",
    "interruption": "interruption",
    "back_channel": "back_channel",
    "listening": "question",
    "side_talk": None,
    "background": None,
    "noise": None,
    "silence": None,
    "echo": "question",
}
# What a piece is to the agent.
ROLES = {
    "question": "said to the agent, who is to answer",
    "part": "said to the agent, and the sentence goes on after a pause",
    "interruption": "said to the agent while it speaks, who is to stop and answer",
    "back_channel": "mhm, said while the agent speaks, who is to go on",
    "side": "said to somebody else",
    "television": "a voice in the room that is nobody's",
    "noise": "no speech at all",
}
# Sums of tenths of a second are not exact.
ROUNDING_S = 1e-6


@dataclass
class Word:
    """A word and when it sounds."""

    text: str
    start_s: float
    end_s: float


@dataclass
class Piece:
    """A part of a scene's sound, and when it is due: see above."""

    role: str
    text: str
    samples: np.ndarray  # float32 [N], 24 kHz
    words: list[Word]  # from the piece's beginning
    after_s: float | None = None
    after_voice_s: float | None = None
    latest_s: float = 6.0
    at_s: float | None = None

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return len(self.samples) / SAMPLE_RATE


@dataclass
class Scene:
    """What the user's side says in one conversation."""

    name: str
    kind: str
    pieces: list[Piece]
    listen_s: float = 6.0  # after the last piece
    echo_delay_s: float = 0.0
    echo_gain: float = 0.0
    partner: np.ndarray | None = None  # float32 [N]: a person in the agent's place


@dataclass
class Annotation:
    """A piece where it was played, in seconds of the recording."""

    role: str
    text: str
    start_s: float
    end_s: float
    words: list[Word] = field(default_factory=list)


def load(folder: Path | None = None) -> list[Scene]:
    """The scenes of a folder (default: those that come with the project). Raises SceneError."""
    folder = Path(folder or SHIPPED)
    try:
        entries = json.loads((folder / "scenes.json").read_text(encoding="utf-8"))
        return [_scene(folder, entry) for entry in entries]
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SceneError(f"there are no scenes in {folder} ({reason})") from error
    except (KeyError, TypeError) as error:
        raise SceneError(
            f"{folder / 'scenes.json'} is not as duplex/bench/scenes.py describes it ({error!r})"
        ) from error


def questions(scenes: list[Scene]) -> list[np.ndarray]:
    """The sound of the questions of the scenes of kind `turn`, float32 [N] each."""
    return [
        piece.samples
        for scene in scenes
        if scene.kind == "turn"
        for piece in scene.pieces
        if piece.role == "question"
    ]


def _scene(folder: Path, entry: dict) -> Scene:
    """A scene from its entry. Raises ValueError, KeyError, TypeError."""
    _check(entry)
    sound = _read_sound(folder / entry["file"])
    echo = entry.get("echo", {})
    return Scene(
        entry["name"],
        entry["kind"],
        [_piece(sound[:, 0], item) for item in entry["pieces"]],
        entry.get("listen_s", Scene.listen_s),
        echo.get("delay_s", 0.0),
        echo.get("gain", 0.0),
        sound[:, 1] if sound.shape[1] > 1 else None,
    )


def _check(entry: dict) -> None:
    """Raises ValueError where a scene of this kind could not be scored."""
    name = entry["name"]
    kind = entry["kind"]
    if kind not in KINDS:
        raise ValueError(f"scene {name}: its kind {kind!r} is none of {', '.join(KINDS)}")
    needed = KINDS[kind]
    if needed and all(item["role"] != needed for item in entry["pieces"]):
        raise ValueError(f"scene {name}: kind {kind!r} needs a piece of role {needed!r}")


def _read_sound(path: Path) -> np.ndarray:
    """float32 [N, channels] at 24 kHz. Raises ValueError."""
    import soundfile
    import soxr

    try:
        sound, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{path.name}: {error.error_string}") from error
    if rate != SAMPLE_RATE:
        sound = soxr.resample(sound, rate, SAMPLE_RATE).astype(np.float32)
    return sound


def _piece(sound: np.ndarray, item: dict) -> Piece:
    """A piece of sound, [N], from its entry."""
    if item["role"] not in ROLES:
        raise ValueError(f"the role {item['role']!r} is none of {', '.join(ROLES)}")
    begin_s = item["begin_s"]
    due = {
        name: item[name]
        for name in ("after_s", "after_voice_s", "latest_s", "at_s")
        if name in item
    }
    words = [
        Word(text, start_s - begin_s, end_s - begin_s)
        for text, start_s, end_s in item.get("words", [])
    ]
    samples = sound[round(begin_s * SAMPLE_RATE) : round(item["end_s"] * SAMPLE_RATE)]
    return Piece(item["role"], item.get("text", ""), samples, words, **(due or {"at_s": begin_s}))


class Player:
    """The user's side of one scene, tick by tick, as `client.wav.converse` asks for it.

    `annotations` says what was played when.
    """

    def __init__(self, scene: Scene):
        self.scene = scene
        self.annotations: list[Annotation] = []
        # Pieces that come one after the other, and those that have begun, with their times.
        self._line = [piece for piece in scene.pieces if piece.at_s is None]
        self._playing: list[tuple[Piece, float]] = []
        self._line_end_s = 0.0  # when the last piece of the line has ended
        self._end_s = 0.0  # when the last piece of all has ended
        for piece in scene.pieces:
            if piece.at_s is not None:
                self._begin(piece, piece.at_s)
        self._voiced_since_s: float | None = None
        # What was played and not heard again yet: what is played at the end of a tick sounds
        # during the next one.
        self._echo = np.zeros(TICK_SAMPLES + round(scene.echo_delay_s * SAMPLE_RATE), np.float32)

    def notice(self, event: dict, now_s: float) -> None:
        """What the agent tells does not change what is said to it."""

    def notice_sound(self, samples: np.ndarray, now_s: float) -> None:
        """What the loudspeaker played in the tick, [TICK_SAMPLES]."""
        is_answer = now_s >= self._line_end_s and np.abs(samples).max(initial=0.0) > AUDIBLE
        if self._voiced_since_s is None and is_answer:
            self._voiced_since_s = now_s
        if self.scene.echo_gain:
            self._echo = np.concatenate([self._echo, self.scene.echo_gain * samples])

    def next_tick(self, now_s: float) -> tuple[np.ndarray, None] | None:
        """The tick that begins now, [TICK_SAMPLES]; None: the scene is over."""
        if self._line and self._is_due(self._line[0], now_s):
            piece = self._line.pop(0)
            self._begin(piece, now_s)
            self._line_end_s = now_s + piece.seconds
            self._voiced_since_s = None
        if not self._line and now_s + ROUNDING_S >= self._end_s + self.scene.listen_s:
            return None
        has_echo = len(self._echo) >= TICK_SAMPLES
        tick = self._echo[:TICK_SAMPLES].copy() if has_echo else np.zeros(TICK_SAMPLES, np.float32)
        self._echo = self._echo[TICK_SAMPLES:]
        for piece, start_s in self._playing:
            # Negative when the piece begins within the tick.
            first = round((now_s - start_s) * SAMPLE_RATE)
            heard = piece.samples[max(0, first) : max(0, first + TICK_SAMPLES)]
            at = max(0, -first)
            tick[at : at + len(heard)] += heard[: TICK_SAMPLES - at]
        return tick, None

    def _is_due(self, piece: Piece, now_s: float) -> bool:
        now_s += ROUNDING_S
        waited_s = now_s - self._line_end_s
        if piece.after_voice_s is None:
            return waited_s >= piece.after_s
        has_voice = (
            self._voiced_since_s is not None and now_s - self._voiced_since_s >= piece.after_voice_s
        )
        return waited_s >= TICK_S and (has_voice or waited_s >= piece.latest_s)

    def _begin(self, piece: Piece, start_s: float) -> None:
        """A piece is played from now on."""
        end_s = start_s + piece.seconds
        words = [
            Word(word.text, start_s + word.start_s, start_s + word.end_s) for word in piece.words
        ]
        self._playing.append((piece, start_s))
        self.annotations.append(Annotation(piece.role, piece.text, start_s, end_s, words))
        self._end_s = max(self._end_s, end_s)
