"""Scenes of the bench: what the user's side says and when, from a folder with `scenes.json` and sound files.

`scenes.json` is a list of scenes: `name`, `kind` (see KINDS), `file`, `pieces`, and where wanted `listen_s` (how long the scene
goes on after the last piece) and `echo` (`delay_s`, `gain`: the loudspeaker heard again by the microphone). Of a stereo file
the left channel is the user's; the right may hold a person in the agent's place, whose back-channels are then the measure.
A piece is a stretch `begin_s` to `end_s` of the file with a `role` (see ROLES), its `text` and, if known, `words` [[word, start_s,
end_s]] from the file's beginning. When it is played:

- `after_s`: so long after the piece before (the first: after the scene's beginning);
- `after_voice_s`, `latest_s`: once the agent has spoken so long since the piece before; without voice, after `latest_s`;
- `at_s`: at this time, whatever else happens (noise under everything);
- none of them: where it lies in the file.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from duplex.audio import AUDIBLE, SAMPLE_RATE, TICK_S, TICK_SAMPLES
from duplex.errors import SceneError

SHIPPED = Path(__file__).parent / "scene_set"
LISTEN_S = 6.0  # after the last piece
ROUNDING_S = 1e-6  # sums of tenths of a second are not exact
KINDS = (
    "pause", "turn", "interruption", "back_channel", "listening", "side_talk", "background", "noise", "silence", "echo",
)  # fmt: skip
NEEDED = {  # without a piece of this role a scene of the kind has nothing to be scored by
    "pause": "question", "turn": "question", "interruption": "interruption", "back_channel": "back_channel",
    "listening": "question", "echo": "question",
}  # fmt: skip
ROLES = {
    "question": "said to the agent, who is to answer",
    "part": "said to the agent, and the sentence goes on after a pause",
    "interruption": "said to the agent while it speaks, who is to stop and answer",
    "back_channel": "mhm, said while the agent speaks, who is to go on",
    "side": "said to somebody else",
    "television": "a voice in the room that is nobody's",
    "noise": "no speech at all",
}


@dataclass
class Word:
    text: str
    start_s: float
    end_s: float


@dataclass
class Piece:
    role: str
    text: str
    samples: np.ndarray  # float32 [N], 24 kHz
    words: list[Word]  # from the piece's beginning
    after_s: float | None = None
    after_voice_s: float | None = None
    latest_s: float = 6.0
    at_s: float | None = None


@dataclass
class Scene:
    name: str
    kind: str
    pieces: list[Piece]
    listen_s: float = LISTEN_S
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
    """The scenes of a folder (default: those that come with the project); raises SceneError."""
    folder = Path(folder or SHIPPED)
    try:
        entries = json.loads((folder / "scenes.json").read_text(encoding="utf-8"))
        return [_scene(folder, entry) for entry in entries]
    except (OSError, ValueError) as error:
        raise SceneError(
            f"there are no scenes in {folder} ({getattr(error, 'strerror', None) or error})"
        ) from error
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
    import soundfile
    import soxr

    if entry["kind"] not in KINDS:
        raise ValueError(
            f"scene {entry['name']}: its kind {entry['kind']!r} is none of {', '.join(KINDS)}"
        )
    needed = NEEDED.get(entry["kind"])
    if needed and all(item["role"] != needed for item in entry["pieces"]):
        raise ValueError(
            f"scene {entry['name']}: kind {entry['kind']!r} needs a piece of role {needed!r}"
        )
    try:
        sound, rate = soundfile.read(folder / entry["file"], dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{entry['file']}: {error.error_string}") from error
    if rate != SAMPLE_RATE:
        sound = soxr.resample(sound, rate, SAMPLE_RATE).astype(np.float32)
    echo = entry.get("echo", {})
    return Scene(
        entry["name"],
        entry["kind"],
        [_piece(sound[:, 0], item) for item in entry["pieces"]],
        entry.get("listen_s", LISTEN_S),
        echo.get("delay_s", 0.0),
        echo.get("gain", 0.0),
        sound[:, 1] if sound.shape[1] > 1 else None,
    )


def _piece(sound: np.ndarray, item: dict) -> Piece:
    if item["role"] not in ROLES:
        raise ValueError(f"the role {item['role']!r} is none of {', '.join(ROLES)}")
    begin = item["begin_s"]
    due = {
        name: item[name]
        for name in ("after_s", "after_voice_s", "latest_s", "at_s")
        if name in item
    }
    words = [Word(text, start - begin, end - begin) for text, start, end in item.get("words", [])]
    samples = sound[round(begin * SAMPLE_RATE) : round(item["end_s"] * SAMPLE_RATE)]
    return Piece(item["role"], item.get("text", ""), samples, words, **(due or {"at_s": begin}))


class Player:
    """The user's side of one scene, tick by tick, as `client.wav.converse` asks for it; `annotations` says what was played when."""

    def __init__(self, scene: Scene):
        self.scene = scene
        self.annotations: list[Annotation] = []
        self._line = [piece for piece in scene.pieces if piece.at_s is None]  # one after the other
        self._playing = [(piece, piece.at_s) for piece in scene.pieces if piece.at_s is not None]
        for piece, at_s in self._playing:
            self._mark(piece, at_s)
        self._line_end_s = 0.0  # when the last piece of the line has ended
        self._end_s = max(
            (at + len(piece.samples) / SAMPLE_RATE for piece, at in self._playing), default=0.0
        )
        self._voiced_since: float | None = None
        # played, not yet heard again; what is played at the end of a tick sounds during the next
        self._echo = np.zeros(TICK_SAMPLES + round(scene.echo_delay_s * SAMPLE_RATE), np.float32)

    def notice(self, event: dict, now_s: float) -> None:
        pass

    def notice_sound(self, samples: np.ndarray, now_s: float) -> None:
        """What the loudspeaker played in the tick."""
        if (
            self._voiced_since is None
            and now_s >= self._line_end_s
            and np.abs(samples).max(initial=0.0) > AUDIBLE
        ):
            self._voiced_since = now_s
        if self.scene.echo_gain:
            self._echo = np.concatenate([self._echo, self.scene.echo_gain * samples])

    def next_tick(self, now_s: float) -> tuple[np.ndarray, None] | None:
        """[1920] samples of the tick that begins now; None: the scene is over."""
        if self._line and self._due(self._line[0], now_s):
            piece = self._line.pop(0)
            self._playing.append((piece, now_s))
            self._mark(piece, now_s)
            self._line_end_s, self._voiced_since = self.annotations[-1].end_s, None
            self._end_s = max(self._end_s, self._line_end_s)
        if not self._line and now_s + ROUNDING_S >= self._end_s + self.scene.listen_s:
            return None
        tick = (
            self._echo[:TICK_SAMPLES]
            if len(self._echo) >= TICK_SAMPLES
            else np.zeros(TICK_SAMPLES, np.float32)
        )
        tick, self._echo = tick.copy(), self._echo[TICK_SAMPLES:]
        for piece, start_s in self._playing:
            first = round(
                (now_s - start_s) * SAMPLE_RATE
            )  # negative when the piece begins within the tick
            heard = piece.samples[max(0, first) : max(0, first + TICK_SAMPLES)]
            at = max(0, -first)
            tick[at : at + len(heard)] += heard[: TICK_SAMPLES - at]
        return tick, None

    def _due(self, piece: Piece, now_s: float) -> bool:
        now_s += ROUNDING_S
        waited = now_s - self._line_end_s
        if piece.after_voice_s is None:
            return waited >= piece.after_s
        voiced = (
            self._voiced_since is not None and now_s - self._voiced_since >= piece.after_voice_s
        )
        return waited >= TICK_S and (voiced or waited >= piece.latest_s)

    def _mark(self, piece: Piece, start_s: float) -> None:
        end_s = start_s + len(piece.samples) / SAMPLE_RATE
        words = [
            Word(word.text, start_s + word.start_s, start_s + word.end_s) for word in piece.words
        ]
        self.annotations.append(Annotation(piece.role, piece.text, start_s, end_s, words))
