"""What was read and said for a response, counted as the OpenAI Realtime API counts."""

from dataclasses import dataclass


@dataclass
class Usage:
    """What was read and said; a piece of a word, or a tick of sound (80 ms), is a token."""

    input_text: int = 0
    input_audio: int = 0
    output_text: int = 0
    output_audio: int = 0

    def report(self) -> dict:
        """As the API writes it."""
        read = self.input_text + self.input_audio
        said = self.output_text + self.output_audio
        return {
            "total_tokens": read + said,
            "input_tokens": read,
            "output_tokens": said,
            "input_token_details": {
                "text_tokens": self.input_text,
                "audio_tokens": self.input_audio,
                "cached_tokens": 0,
            },
            "output_token_details": {
                "text_tokens": self.output_text,
                "audio_tokens": self.output_audio,
            },
        }
