"""What people say to let the other one go on: phrases, and whether words are nothing else.

The same list tells the training when the agent is not to stop, see duplex.training.scenes.
"""

from collections.abc import Iterable

from duplex.model.asr.spoken_form import spoken_form

# Beside the commonest of 14 621 in the meetings of ICSI.
BACKCHANNELS = (
    "Mhm.|Mm hm.|Yeah.|Yeah, yeah.|Uh huh.|Right.|Yeah, right.|Okay.|Oh, okay.|I see.|Oh, I see."
    "|Oh.|Oh really?|Really?|Wow.|Sure.|Yep.|Yes.|Hm.|Huh.|Exactly.|Makes sense.|Got it."
    "|Cool.|Great.|Nice.|Good.|Alright.|That's right.|Of course."
).split("|")
BACKCHANNEL_WORDS = {word for phrase in BACKCHANNELS for word in spoken_form(phrase).split()}


def is_backchannel(words: Iterable[str]) -> bool:
    """Whether words, in any writing, are nothing but assent; no words are none."""
    said = [part for word in words for part in spoken_form(word).split()]
    return bool(said) and BACKCHANNEL_WORDS.issuperset(said)
