"""Text as it is written to text as a person reads it aloud, before Hibari's rules of reading.

    readable("Call (555) 123-4567, or 2*3 at https://www.example.com/a?b=1")
    # "Call 5 5 5, 1 2 3, 4 5 6 7, or 2 times 3 at example dot com slash a"

Hibari reads figures, dates, units and money. Here is what stands around them: markup, addresses,
telephone numbers, arithmetic, the names that programs give, and letters of other alphabets.
"""

import html
import re
from collections.abc import Callable

Rule = tuple[re.Pattern, str | Callable[[re.Match], str]]

# Text in which nothing stands for something else: most words, at once.
PLAIN = re.compile(r"(?:[A-Za-z\s'’,;!?]|\.(?!\w))*")
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
    if PLAIN.fullmatch(text):
        return text
    # Nobody reads such a word to its end, and looking through it takes the square of its length.
    text = re.sub(r"(\S{200})\S+", r"\1", text)
    # A sign at the end depends on what comes; a figure is put there and taken away again.
    is_before_figure = following.isdigit() and text[-1:] in "-*/x×~"
    text = html.unescape(f"{text} {following}" if is_before_figure else text)
    for rules in (MARKUP, ADDRESSES, NUMBERS, ARITHMETIC, NAMES):
        for pattern, spoken in rules:
            text = pattern.sub(spoken, text)
    text = " ".join(text.split())
    return text[:-1].rstrip() if is_before_figure else text


def is_open(text: str) -> bool:
    """Whether a tag or a link begins at its end, so that the next word belongs to it."""
    return bool(OPEN.search(text))


def _rules(*pairs: tuple[str, str | Callable[[re.Match], str]]) -> list[Rule]:
    return [(re.compile(pattern), spoken) for pattern, spoken in pairs]


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


def _mail(match: re.Match) -> str:
    """ "j_smith@example.com" -> "j underscore smith at example dot com"."""
    name, place = match.groups()
    for sign, word in {".": "dot", "_": "underscore", "-": "dash", "+": "plus"}.items():
        name = name.replace(sign, f" {word} ")
    return f"{name} at {_dotted(place)}"


def _digits(match: re.Match) -> str:
    """One figure after the other, with a pause between the groups."""
    groups = re.findall(r"\d+", match.group())
    plus = "plus " if match.group().startswith("+") else ""
    return plus + ", ".join(" ".join(group) for group in groups)


def _vanity(match: re.Match) -> str:
    """ "1-800-FLOWERS" -> "1, 8 0 0, flowers"."""
    return f"1, {' '.join(match.group(1))}, {match.group(2).lower().replace('-', ' ')}"


def _points(match: re.Match) -> str:
    """ "v1.2.3" -> "version 1 point 2 point 3"."""
    version = "version " if match.group(1) else ""
    return version + " point ".join(match.group(2).split("."))


def _product(match: re.Match) -> str:
    """ "3x4" -> "3 times 4", but "1920x1080" -> "1920 by 1080"."""
    first, second = match.groups()
    return f"{first} {'by' if min(int(first), int(second)) > 12 else 'times'} {second}"


def _equation(match: re.Match) -> str:
    """Strokes in an equation are no range and no date."""
    parts = re.sub(r"(?<=[\w)])-(?=[\w(])", " minus ", match.group())
    return re.sub(r"(?<=[\w)])/(?=[\w(])", " divided by ", parts)


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
MARKUP = _rules(
    (r"[\u200b-\u200d\u2060\ufeff\u00ad]", ""),
    (r"```\w*", " "),
    (r"<!--.*?-->", " "),
    # Links: of [label](address) the label, also where the label's first words are read already.
    (rf"!?\[([^\[\]]*){LINK}", r"\1"),
    (rf"([^\s\[\]]+){LINK}", r"\1"),
    (r"!\[(?=\w)", ""),
    (r"\[([^\[\]]+)\]\[[^\[\]]*\]", r"\1"),
    (r"\[\^\w+\]|\[[ xX]\](?=\s|$)", " "),
    (r"<((?:https?://|mailto:)?[^\s<>@]+[@.:/][^\s<>]*)>", r"\1"),
    (rf"</?(?:{INLINE_TAGS})(?:\s[^<>]*)?>", ""),
    (rf"</?(?:{TAGS})(?:\s[^<>]*)?/?>", " "),
    # A backslash before a mark takes its meaning from it.
    (r"\\(?=[^\w\s])", ""),
    (r"(?<!\S)(?:#+|[-=_*]{3,}|[|:][|:-]*)(?!\S)", " "),
    (r"(?:^|(?<=[.!?:]\s))>+(?=\s|$)", " "),
    (r"[`•]|~~", ""),
)
ADDRESSES = _rules(
    (r"\bmailto:", ""),
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
BEFORE = r"(?<![\w.,/+-])"
AFTER = r"(?![\w/-]|[.,]\d)"
SIGN = "[$£€]"
PERIODS = "second|minute|hour|day|night|week|month|year|person|mo|yr|kg|lb"
NUMBERS = _rules(
    # Telephones: with a country's number, with brackets, America's, with a leading zero; cards.
    (
        rf"{BEFORE}\+\d{{1,3}}[ .-]?(?:\(\d{{1,5}}\)[ .-]?)?"
        rf"\d{{1,5}}(?:[ .-]?\d{{2,5}}){{1,5}}{AFTER}",
        _digits,
    ),
    (rf"{BEFORE}(?:1[ .-])?\(\d{{3}}\)[ .-]?\d{{3}}[ .-]?\d{{4}}{AFTER}", _digits),
    (rf"{BEFORE}(?:1[ .-])?\d{{3}}([ .-])\d{{3}}\1\d{{4}}{AFTER}", _digits),
    (rf"{BEFORE}\d{{3}}-\d{{4}}{AFTER}", _digits),
    (rf"{BEFORE}\(?0\d{{1,4}}\)?[ -]\d{{3,8}}(?:[ -]\d{{2,5}}){{0,3}}{AFTER}", _digits),
    (rf"{BEFORE}\d{{4}}(?: \d{{4}}){{3}}{AFTER}", _digits),
    (rf"{BEFORE}(?:0\d{{8,}}|\d{{10,}}){AFTER}", _digits),
    (r"\b1-(8\d\d|900)-([A-Z][A-Z0-9-]+)\b", _vanity),
    # Addresses of machines, standards, versions, dates with full stops.
    (r"\b802\.11([a-z]*)\b", lambda match: f"8 oh 2 dot 11 {' '.join(match.group(1).upper())}"),
    (
        r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?::\d+|/\d+)?(?![\w]|\.\w)",
        lambda match: re.sub(
            r"[.:/]",
            lambda sign: {".": " dot ", ":": " port ", "/": " slash "}[sign.group()],
            match.group(),
        ),
    ),
    (r"(?<![\w.])(\d{1,2})\.(\d{1,2})\.((?:19|20)\d\d)(?!\d)", r"\3-\2-\1"),
    (r"(?<![\w.])([vV]?)(\d+(?:\.\d+){2,})(?![\w]|\.\w)", _points),
    (r"\b[vV](?=\d+\.\d)", "version "),
    (
        r"(?<=\b)((?:[Pp]ython|[Vv]ersion|iOS|macOS|Android|Ubuntu|Node|release) \d+)\.(\d\d+)\b",
        r"\1 point \2",
    ),
    # Money.
    (r"\bUS\$", "$"),
    (rf"(?<![\w.,])(\d[\d,.]*\d|\d)\s?({SIGN})(?!\d)", r"\2\1"),
    (rf"(?<!\w)[-−]({SIGN})", r"minus \1"),
    (rf"({SIGN})\s(?=\d)", r"\1"),
    (rf"({SIGN}?\d[\d,.]*)/({PERIODS})\b", r"\1 per \2"),
    (r"\b24/7\b", "24 7"),
    (r"(?<![\w.])(\d)'\s?(\d{1,2})(?:\"|'')", r"\1 foot \2"),
    (r"(?<=\d)\s?(?=[½¼¾])", " and "),
)
ARITHMETIC = _rules(
    (r"(\d(?:\.\d+)?)[eE]\+?(\d+)\b", r"\1 times 10 to the power of \2"),
    (r"(\d(?:\.\d+)?)[eE][-−](\d+)\b", r"\1 times 10 to the power of minus \2"),
    (r"\S*[=≈]\S*\d|\d\S*[=≈]\S*", _equation),
    (r"(?<=[\w)])(?:\*\*|\^)2\b", " squared"),
    (r"(?<=[\w)])(?:\*\*|\^)3\b", " cubed"),
    (r"(?<=[\d)])\*\*(?=[\d(a-z])|(?<![^\W_])([A-Za-z])\*\*(?=[\d(])", r"\1 to the power of "),
    (r"(?<=\d)\s?×\s?(?=\d)|(?<=\d) ×(?!\S)", " times "),
    (r"(?<=[\d)])\*(?=[\d(A-Za-z])|(?<=[\d)]) \*(?=\s|$)", " times "),
    (r"(?<![\w*])([A-Za-z])\*(?=[A-Za-z\d](?![A-Za-z*]))", r"\1 times "),
    (r"(?<![\w.,])(\d+)[xX](\d+)(?!\w)", _product),
    (r"(?<=\d) [xX] (?=\d)", " times "),
    (r"(?<=[\d)]) / (?=[\d(])|\s?÷\s?", " divided by "),
    (r"(?<=[\w)]) - (?=[\d(])|\s?−\s?", " minus "),
    (r"(?<![\w)-])-(?=\.?\d)", "minus "),
    (r"(?<![\w~])[~≈]\s?(?=[$£€]?\d)", "about "),
    (r"(?<=\d)~(?=\d)", " to "),
    (r"(?:-+|=)>|⇒", " → "),
    (r"\s?(?:!=|≠)\s?", " is not equal to "),
    (r"\s?(?:<=|≤)\s?", " less than or equal to "),
    (r"\s?(?:>=|≥)\s?", " greater than or equal to "),
    (r"\s?≈\s?", " is about "),
    (r"(?<=[\w)]) ?={1,3}(?= ?[\w(.$£€-]|$)", " equals "),
    (r"(?<=[\w)]) ?<(?= ?[\w(.$£€-]|$)", " less than "),
    (r"(?<=[\w)]) ?>(?= ?[\w(.$£€-]|$)", " greater than "),
    (r"(?<=[\w)]) ?\+(?= ?[\d(a-zA-Z]| ?$)", " plus "),
    (r"√\s?", " the square root of "),
    (r"∞", " infinity "),
    (r"№\s?", " number "),
)
NAMES = _rules(
    (r"(?<![^\W_])([A-G])#(?!\w)", r"\1 sharp"),
    (r"(?<=\w)\(\)", ""),
    (r"(?<=[^\W_])_+(?=[^\W_])", " "),
    (r"[*_~]", ""),
    # Alphabets whose letters are sounds; of the others nothing is read. One Greek letter is a name.
    (
        r"[\u0370-\u03ff]{2,}|[\u0400-\u058f\u10a0-\u10ff\u3041-\u30ff\u1100-\u11ff\uac00-\ud7af]+",
        _transliterated,
    ),
)
