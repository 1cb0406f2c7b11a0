"""The words of the user's open turn, as a large mind reads them."""

from duplex.agent.hearing import pending_words, people
from duplex.agent.hearing.second_pass import TurnReading, written
from duplex.agent.session import Session
from duplex.agent.thinking.wording import heard_words
from duplex.model.asr.spoken_form import spoken_form


def in_turn(session: Session, tokenizer) -> str:
    """Those that the LM has written."""
    said = tokenizer.decode([token for _, token in session.user.transcribed])
    return people.attributed(session.people, heard_words(said))


def so_far(session: Session, tokenizer, forms: dict[str, str]) -> str:
    """The same, and those that it must write next; as the second pass has read them so far.

    forms: how that writes words, by their small letters.
    """
    tokens = [token for _, token in session.user.transcribed]
    certain = pending_words.certain_tokens(session.user.pending, session.policy)
    words = tokenizer.decode(tokens + certain).split()
    second = session.user.second
    if second.agreed and not second.is_read:
        reading = TurnReading(second.agreed_text, spoken_form(second.agreed_text).split())
        read = written(reading, forms)
        words = [*read, *words[len(read) :]]
    return people.attributed(session.people, heard_words(" ".join(words)))
