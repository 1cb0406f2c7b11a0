"""Exchanges in which the agent says something again, or has only a remark to make on what it hears.

Said again is its own last answer, or a sentence given to it.
"""

import gzip
import random
import re
from pathlib import Path

from duplex.training.text.templates import expand, read_lines

UNWANTED = re.compile(
    r"\b(kill|die|dead|death|sex|shit|fuck|damn|hell|stupid|idiot|hate|gun|shoot|shot|suicide|drunk"
    r"|bomb|war|rape|naked|blood|ass|murder|bitch|bastard|drug|drugs|kiss|kissed|god|jesus|hitler"
    r"|nazi|slut|fat|ugly|cancer|stab|hang|whore|porn|racist|died|killed|dying|weapon|virgin"
    r"|pregnant|breast|jew|jews|muslim|muslims|gay|jerk|moron|hostage|corpse|coffin)\w*\b",
    re.IGNORECASE,
)


def short_sentences(data: Path) -> list[str]:
    """Plain harmless English sentences of 3 to 9 words of Tatoeba, few of them about Tom."""
    found = {}
    with gzip.open(data / "text" / "tatoeba-en-fr.tsv.gz", "rt", encoding="utf-8") as file:
        for i, line in enumerate(file):
            text = line.split("\t")[0].strip()
            if re.search(r"\b(Tom|Mary)\b", text) and i % 8:
                continue
            plain = re.fullmatch(r"[A-Z][A-Za-z',]*( [A-Za-z',]+){2,8}[.?!]", text)
            if plain and len(text) >= 14 and not UNWANTED.search(text):
                found[text] = None
    return list(found)


def say_after_me(sentence: str, rng: random.Random) -> tuple[str, str]:
    """A request to say something, and it said. A phrase without an end mark gets a full stop."""
    say = (
        "{Repeat after me|Please repeat after me|Repeat this|Say this|Please say this"
        "|Can you say this|Say after me|Repeat}: $text|Say: $text|Please say: $text"
        "|Can you repeat this sentence: $text|Repeat the following: $text|Say the following: $text"
    )
    sentence = sentence if sentence[-1] in ".?!" else sentence + "."
    sentence = sentence[0].upper() + sentence[1:]
    return expand(say, rng, {"text": sentence}), rng.choice([sentence] * 5 + ["Sure. " + sentence])


def own_phrases() -> list[str]:
    """Short texts of our own, to be said after the user."""
    return read_lines("phrases") + read_lines("funfacts")


def remark(sentences: list[str], rng: random.Random) -> tuple[str, tuple[str, str]] | None:
    """(sentence, turn): something about the user or others, and an answer that knows nothing of it.

    None where the sentence drawn is of another kind.
    """
    first_person = re.compile(r"(I|I'm|I've|I'd|We|We're|My)\b(?!.*\byour?\b)")
    about_others = re.compile(
        r"(What|Why|Where|When|Who|How|Is|Did|Does|Was|Has)\b.*\b(he|she|they|his|her|their|him)\b"
    )
    remarks = (
        "{I see|Oh, I see|Oh|Ah, I see|Okay|Interesting}{.|, tell me more.|, please go on."
        "|, how do you feel about that?}"
        "|Oh, really? {Tell me more.|How come?|}|{I understand|That's good to know"
        "|Thank you for telling me}."
    )
    unknown = (
        "{I'm sorry, |Sorry, |}I {don't know|can't know that|have no idea|don't know that"
        "|really don't know}."
        "|{I'm not sure|I don't know}, {what do you think|can you tell me more}?|I {can't say"
        "|couldn't say}."
    )
    sentence = rng.choice(sentences)
    if first_person.match(sentence) and sentence.endswith("."):
        return sentence, (sentence, expand(remarks, rng))
    if about_others.match(sentence) and sentence.endswith("?"):
        return sentence, (sentence, expand(unknown, rng))
    return None


def answer_again(answer: str, rng: random.Random) -> tuple[str, str]:
    """A request to repeat, and the last answer word for word, now and then after "Sure."."""
    again = (
        "{|Sorry, |Excuse me, |Please, }{could|can} you {say|repeat} that{| again}{|, please}?"
        "|Sorry, what?|Pardon?"
        "|Pardon me?"
        "|{Sorry, |Excuse me, |}I didn't {hear|catch|get|understand} {you|that}.|What did you say?"
        "|Come again?"
        "|What was that?"
        "|Sorry, what {was that|did you say}?|Repeat that{|, please}.|Say that again{|, please}."
        "|Please say that again."
        "|Please repeat that.|Again, please.|One more time, please.|Once more, please.|Sorry?"
        "|Excuse me?|I missed that."
    )
    # Before an answer that is repeated; mostly there is none.
    prefix = "||||Sure. |I said, |I said, |Of course. |No problem. |Sure, here it is. "
    function_words = (
        "That's It's The They People Yes No A In After Before You My Your There Half Twice Not Sure"
    ).split()
    answer = re.sub(r"^(Sure\.|I said,|Of course\.|No problem\.|Sure, here it is\.) ", "", answer)
    before = rng.choice(prefix.split("|"))
    if before.endswith(", ") and answer.split()[0].strip(",.") in function_words:
        answer = answer[0].lower() + answer[1:]
    return expand(again, rng), before + answer
