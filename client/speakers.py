"""Who is heard beside the words: people by their names, the voice print of one, and sounds."""

from pathlib import Path


class Speakers:
    """Reads the events of people and sounds; `name` says how each person is to be called."""

    def __init__(self, voice_print: Path | None = None):
        """voice_print: the file that the voice print is written to, if one comes."""
        self._voice_print = voice_print
        self._names: dict[int, str] = {}

    def name(self, speaker: int | None) -> str:
        """A person as a transcript names him."""
        return self._names.get(speaker) or ("you" if speaker in (None, 1) else f"person {speaker}")

    def read(self, event: dict) -> str | None:
        """Take an event; a sentence, where it has one for the user."""
        text = event.get("text", "")
        match event["type"]:
            case "speaker_named":
                self._names[event["speaker"]] = text
            case "sound":
                return f"a sound: {text}"
            case "backchannel":
                return f"the agent, while you speak: {text}"
            case "speaker_corrected":
                return f"turn {event['turn'] + 1} was said by {self.name(event['speaker'])}"
            case "speaker_enrolled" if self._voice_print is not None:
                return self._keep(text)
        return None

    def _keep(self, text: str) -> str:
        try:
            self._voice_print.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            return f"cannot write {self._voice_print} ({error.strerror or error})"
        return f"wrote your voice print to {self._voice_print}"
