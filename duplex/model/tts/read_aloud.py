"""Text as it is written to text as a person reads it aloud, before Hibari's rules of reading.

    readable("Call (555) 123-4567, or 2*3 at https://www.example.com/a?b=1")
    # "Call 5 5 5, 1 2 3, 4 5 6 7, or 2 times 3 at example dot com slash a"

Hibari reads figures, dates, units and money. Here is what stands around them: markup, addresses,
telephone numbers, arithmetic, the names that programs give, and letters of other alphabets.
"""

import html
import re

from duplex.model.tts.read_figures import ARITHMETIC, NUMBERS, rules

# Text in which nothing stands for something else: most words, at once.
PLAIN = re.compile(r"(?:[A-Za-z\s'’,;!?]|\.(?!\w))*")
# Names as programs have them, unlike iPhone and eBay.
HUMPS = re.compile(r"\b[a-z]{2,}(?:[A-Z][a-z]+)+\b")
# Letters alone that are not read as they stand.
SHORT = re.compile(rf"{HUMPS.pattern}|\bext\.")
# Ends of names, of files and in the internet, whose dot is read; the second kind is spelled.
SAID = "com org net edu gov info co app dev shop blog doc zip exe bat json wav".split()
SPELLED = (
    "io ai uk de eu us fr js ts py md txt pdf csv html htm xml yaml yml jpg png gif svg mp3 mp4 sh"
).split()
ENDINGS = "|".join(SAID + SPELLED)


def readable(text: str, following: str = "") -> str:
    """The text as it is read; what only marks it up is gone.

    following: the first character after it, if it is known.
    """
    if PLAIN.fullmatch(text) and not SHORT.search(text):
        return text
    # Nobody reads such a word to its end, and looking through it takes the square of its length.
    text = re.sub(r"(\S{200})\S+", r"\1", text)
    # A sign at the end depends on what comes; a figure is put there and taken away again.
    is_before_figure = following.isdigit() and text[-1:] in "-*/x×~≈"
    text = html.unescape(f"{text} {following}" if is_before_figure else text)
    for kind in (MARKUP, ADDRESSES, NUMBERS, ARITHMETIC, NAMES):
        for pattern, spoken in kind:
            text = pattern.sub(spoken, text)
    text = " ".join(text.split())
    return text[:-1].rstrip() if is_before_figure else text


def is_open(text: str) -> bool:
    """Whether a tag or a link begins at its end, so that the next word belongs to it."""
    return bool(OPEN.search(text))


def _dotted(name: str) -> str:
    """The parts of a name with "dot" between them: "node.js" -> "node dot JS"."""
    parts = name.split(".")
    return " dot ".join(part.upper() if part in SPELLED else part for part in parts)


def _address(match: re.Match) -> str:
    """A link without its scheme and whatever nobody reads; the sentence's mark stays at its end."""
    link = match.group()
    end = re.search(r"[.,;:!?)\]'\"]*$", link).group()
    link = link[: len(link) - len(end)]
    place = re.sub(r"^\w+://|^www\.", "", re.sub(r"^\w+://(?=www\.)", "", link))
    place = re.split(r"[?#]", place)[0].rstrip("/")
    host, *path = place.split("/")
    host, _, port = host.rpartition("@")[2].partition(":")
    spoken = _dotted(host) + (f" port {port}" if port else "")
    # Two steps of plain words are worth reading; what is generated is not.
    if len(path) <= 2 and all(re.fullmatch(r"[A-Za-z]+(?:[-_][A-Za-z]+)*", step) for step in path):
        spoken += "".join(f" slash {re.sub('[-_]', ' ', step)}" for step in path)
    return spoken + end


def _path(match: re.Match) -> str:
    """ "/home/main.py" -> "slash home slash main dot PY"."""
    steps = match.group().lstrip("~").split("/")
    return " slash ".join(_dotted(step.rstrip(".")) for step in steps)


def _mail(match: re.Match) -> str:
    """ "j_smith@example.com" -> "j underscore smith at example dot com"."""
    name, place = match.groups()
    for sign, word in {".": "dot", "_": "underscore", "-": "dash", "+": "plus"}.items():
        name = name.replace(sign, f" {word} ")
    return f"{name} at {_dotted(place)}"


def _transliterated(match: re.Match) -> str:
    from anyascii import anyascii

    return anyascii(match.group())


# Names of HTML's tags; those of the first line stand within words.
INLINE_TAGS = "a|b|i|u|s|em|strong|code|span|sub|sup|small|mark|kbd|del|ins|font"
TAGS = (
    f"{INLINE_TAGS}|pre|p|br|hr|div|ul|ol|li|h[1-6]|table|tr|td|th|tbody|thead|img|blockquote|html|"
    "body|head|button|input|details|summary|video|audio|source|script|style"
)
# What follows the label of a link: its address and perhaps a title.
LINK = r"\]\((?:[^()\s]|\([^()]*\))*(?:\s+\"[^\"]*\")?\)"
# A tag or the title of a link that is not closed yet.
OPEN = re.compile(
    rf"</?(?:{TAGS})(?:\s[^<>]*)?$|\]\([^()]*$|\]\(\S*\([^()]*\)$|\]\(\S+\s+\"[^\"]*$|<!--(?!.*-->)"
)
MARKUP = rules(
    (r"[\u200b-\u200d\u2060\ufeff\u00ad]", ""),
    (r"```\w*", " "),
    (r"<!--.*?-->", " "),
    # Links: of [label](address) the label, also where the label's first words are read already.
    (rf"!?\[([^\[\]]*){LINK}", r"\1"),
    (rf"([^\s\[\]]+){LINK}", r"\1"),
    (r"!\[(?=\w)", ""),
    (r"\[([^\[\]]+)\]\[[^\[\]]*\]", r"\1"),
    (r"\[\^\w+\]|\[[ xX]\](?=\s|$)", " "),
    (rf"</?(?:{INLINE_TAGS})(?:\s[^<>]*)?>", ""),
    (rf"</?(?:{TAGS})(?:\s[^<>]*)?/?>", " "),
    (r"<((?:https?://|mailto:)?[^\s<>@]+[@.:/][^\s<>]*)>", r"\1"),
    # A backslash before a mark takes its meaning from it.
    (r"\\(?=[^\w\s])", ""),
    # The signs of TeX.
    (r"\$([^$]*[\\^_{}][^$]*)\$", r"\1"),
    (r"\$(?=[A-Za-z\\])|(?<=[A-Za-z}])\$(?!\d)", ""),
    (r"\\[dt]?frac\{([^{}]*)\}\{([^{}]*)\}", r"\1 over \2"),
    (r"\\sqrt\{([^{}]*)\}", r"the square root of \1"),
    (r"\\(?:times|cdot)\b", " × "),
    (r"\\div\b", " ÷ "),
    (r"\\pm\b", " ± "),
    (r"\\text\{([^{}]*)\}", r"\1"),
    (r"(?<!\S)(?:#+|[-=_*]{3,}|[|:]|[|:-]*-{3,}[|:-]*)(?!\S)", " "),
    (r"(?:^|(?<=[.!?:]\s))>+(?=\s|$)", " "),
    (r"[`•]|~~", ""),
)
ADDRESSES = rules(
    (r"\b(?:mailto|tel):", ""),
    (r"(?<!\S)(?:~/[\w.-]+(?:/[\w.-]+)*|(?:/[\w.-]+){2,})/?", _path),
    (r"(?<!\w)@(\w+(?:\.\w+)*)", lambda match: f"at {match.group(1).replace('.', ' dot ')}"),
    (r"([\w.+%-]*\w)@(\w[\w-]*(?:\.\w[\w-]*)+)", _mail),
    (r"\b(?:https?|ftp|wss?)://[^\s<>\"]+", _address),
    (r"\bwww\.[^\s<>\"]+", _address),
    (rf"(?<![\w@])\w[\w-]*(?:\.\w[\w-]*)*\.(?:{ENDINGS})/[^\s<>\"]*", _address),
    (
        rf"\b\w[\w-]*(?:\.\w[\w-]*)*\.(?:{ENDINGS})\b(?!\.\w)",
        lambda match: _dotted(match.group()),
    ),
    (r"(?<![\w.])\.(?=[A-Z]{2})", "dot "),
)
NAMES = rules(
    (r"(?<![^\W_])([A-G])#(?!\w)", r"\1 sharp"),
    (r"(?<=\b[A-G])♯", " sharp"),
    (r"(?<=\b[A-G])♭", " flat"),
    (r"(?<=\w)\(\)", ""),
    (r"(?<=[^\W_])_+(?=[^\W_])", " "),
    (HUMPS.pattern, lambda match: re.sub("(?=[A-Z])", " ", match.group())),
    (r"\s?&&\s?", " and "),
    (r"(?<=\w) ?\|\| ?(?=\w|$)", " or "),
    (r"[*_~]", ""),
    # Alphabets whose letters are sounds; of the others nothing is read. One Greek letter is a name.
    (
        r"[\u0370-\u03ff]{2,}|[\u0400-\u058f\u10a0-\u10ff\u3041-\u30ff\u1100-\u11ff\uac00-\ud7af]+",
        _transliterated,
    ),
)
