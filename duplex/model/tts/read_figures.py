"""How figures and the signs around them are read: rules that come before Hibari's own.

Telephone numbers, addresses of machines, versions, money, durations, arithmetic.
"""

import re
import unicodedata
from collections.abc import Callable

Rule = tuple[re.Pattern, str | Callable[[re.Match], str]]


def rules(*pairs: tuple[str, str | Callable[[re.Match], str]]) -> list[Rule]:
    """Patterns with what is read in their place, in the order in which they are tried."""
    return [(re.compile(pattern), spoken) for pattern, spoken in pairs]


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


def _plain(match: re.Match) -> str:
    """Letters and figures of other shapes as they usually are: "１", "𝐁", "₂", "⅓"."""
    return unicodedata.normalize("NFKC", match.group()).replace("\u2044", "/")


def _power(match: re.Match) -> str:
    """Raised figures: "x²" -> "x squared"."""
    power = unicodedata.normalize("NFKC", match.group()).replace("\u2212", "-")
    words = {"2": "squared", "3": "cubed"}
    return f" {words.get(power, f'to the power of {power}')} "


def _area(match: re.Match) -> str:
    """ "5 km²" -> "5 square kilometers"."""
    unit, power = match.groups()
    shape = "square" if power in ("²", "^2") else "cubic"
    names = {"mm": "millimeters", "cm": "centimeters", "m": "meters", "km": "kilometers"}
    return f" {shape} {(names | {'ft': 'feet', 'mi': 'miles', 'in': 'inches'})[unit]}"


BEFORE = r"(?<![\w.,/+-])"
AFTER = r"(?![\w/-]|[.,]\d)"
SIGN = "[$£€¥₹₩]"
PERIODS = "second|minute|hour|day|night|week|month|year|person|mo|yr|kg|lb"
RAISED = "⁰¹²³⁴⁵⁶⁷⁸⁹"
NUMBERS = rules(
    (r"[\uff01-\uff5e\U0001d400-\U0001d7ff\ufb00-\ufb06₀-₉]+", _plain),
    (r"(?<=\d)(?=[⅐-⅞])", " and "),
    (r"[⅐-⅞]", _plain),
    (r"(?<=\d)\s?(mm|cm|km|m|ft|mi|in)([²³]|\^[23])(?!\d)", _area),
    (rf"(?<=[\w)])⁻?[{RAISED}]+", _power),
    # Figures in groups: "1 000 000", "1_000".
    (
        r"(?<![\d.,])[1-9]\d{0,2}(?: \d{3})* 000(?!\d)",
        lambda match: match.group().replace(" ", ","),
    ),
    (r"(?<=\d)_(?=\d{3})", ""),
    (r"\b(\d{4}-\d\d-\d\d)T(\d\d:\d\d)[\d:.]*(?:Z|[+-]\d\d:?\d\d)?(?!\w)", r"\1 at \2"),
    # Telephones: with a country's number, with brackets, America's, with a leading zero; cards.
    (
        rf"{BEFORE}\+\d{{1,3}}[ .-]?(?:\(\d{{1,5}}\)[ .-]?)?"
        rf"\d{{1,5}}(?:[ .-]?\d{{2,5}}){{1,5}}{AFTER}",
        _digits,
    ),
    (rf"{BEFORE}(?:1[ .-])?\(\d{{3}}\)[ .-]?\d{{3}}[ .-]?\d{{4}}{AFTER}", _digits),
    (rf"{BEFORE}(?:1[ .-])?\d{{3}}([ .-])\d{{3}}\1\d{{4}}{AFTER}", _digits),
    (rf"{BEFORE}\d{{3}}-\d{{4}}{AFTER}", _digits),
    (rf"{BEFORE}\(?0\d{{1,4}}\)?[ /-]\d{{3,8}}(?:[ -]\d{{2,5}}){{0,3}}{AFTER}", _digits),
    (rf"{BEFORE}\d{{4}}(?: \d{{4}}){{3}}{AFTER}", _digits),
    (rf"{BEFORE}(?:0\d{{8,}}|\d{{10,}}){AFTER}", _digits),
    (r"(?<=[Cc]all |[Dd]ial )(?:\d{3} \d{4}|911|999|112|000|411|311|101|988)\b", _digits),
    (r"(?<=number )\d{3} \d{4}\b", _digits),
    (r"\bext\.(?=\s|$)", "extension"),
    # Other numbers that are names: of persons, books, places and network cards.
    (rf"{BEFORE}\d{{3}}-\d\d-\d{{4}}{AFTER}", _digits),
    (rf"{BEFORE}\d+(?:-\d+){{3,}}{AFTER}", _digits),
    (rf"(?<=\b[A-Z]{{2}} )\d{{5}}(?:-\d{{4}})?{AFTER}", _digits),
    (
        r"(?<![\w:])(?:[\dA-Fa-f]{2}:){5}[\dA-Fa-f]{2}(?![\w:])",
        lambda match: ", ".join(" ".join(pair) for pair in match.group().upper().split(":")),
    ),
    (rf"{BEFORE}00\d{{1,4}}{AFTER}", _digits),
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
    (r"(?<![\w.,])(\d[\d,.]*) (USD|EUR|GBP)\b", r"\2 \1"),
    (r"\bUSD (\d[\d,.]*\d|\d)", r"\1 US dollars"),
    (rf"(?<![\w.,])(\d[\d,.]*\d|\d)\s?({SIGN})(?!\d)", r"\2\1"),
    (rf"(?<!\w)[-−]({SIGN})", r"minus \1"),
    (rf"({SIGN})\s(?=\d)", r"\1"),
    (rf"({SIGN}?\d[\d,.]*)/({PERIODS})\b", r"\1 per \2"),
    (rf"({SIGN}\d[\d,.]*)\s?bn\b", r"\1 billion"),
    (rf"({SIGN}\d[\d,.]*)\s?mn\b", r"\1 million"),
    (rf"({SIGN}\d[\d,.]*)\s?tn\b", r"\1 trillion"),
    (r"\b24[/-]7\b", "24 7"),
    (r"\b50[/-]50\b", "50 50"),
    (r"\b0x(?=[\dA-Fa-f]+\b)", "0 x "),
    (r"(?<![\w.:])(\d{1,3}):(\d|\d{3,})(?![\d:])", r"\1 to \2"),
    (r"(?<![\w./])(\d+) (?=[1-9]/[1-9]\d?(?!\d))", r"\1 and "),
    (r"(?<![\w.,])1h\b", "1 hour"),
    (r"(?<![\w.,])(\d+)h\b", r"\1 hours"),
    (r"(hours?) (\d+)m(?:in)?\b", r"\1 \2 minutes"),
    (rf"(?<=\d)\s?[-–]\s?(?={SIGN}\d)|(?<=%)[-–](?=\d)", " to "),
    (r"(?<![\w.,/-])(\d{1,4})[-–](\d{1,4})(?=[.!?]*(?:[\s\"”)]|$))", r"\1 to \2"),
    (r"(?<=\d)([ap]m)?\s?[-–]\s?(?=\d{1,2}(?::\d\d)?\s?[ap]m\b)", r"\1 to "),
    (r"(?<![\w.])(\d)'\s?(\d{1,2})(?:\"|'')", r"\1 foot \2"),
    (r"(?<=\d)\s?(?=[½¼¾])", " and "),
)
ARITHMETIC = rules(
    (r"(\d(?:\.\d+)?)[eE]\+?(\d+)\b", r"\1 times 10 to the power of \2"),
    (r"(\d(?:\.\d+)?)[eE][-−](\d+)\b", r"\1 times 10 to the power of minus \2"),
    (r"\S*[=≈]\S*\d|\d\S*[=≈]\S*", _equation),
    (r"(?<=[\w)])(?:\*\*|\^)2\b", " squared"),
    (r"(?<=[\w)])(?:\*\*|\^)3\b", " cubed"),
    (r"(?<=[\d)])\*\*(?=[\d(a-z])|(?<![^\W_])([A-Za-z])\*\*(?=[\d(])", r"\1 to the power of "),
    (r"(?<=\d)\s?×\s?(?=\d)|(?<=\d) ×(?!\S)", " times "),
    (r"(?<=[\d)])\s?\*\s?(?=[\d(.$£€-])|(?<=[\d)])\*(?=[A-Za-z])", " times "),
    (r"(?<=[\d)]) \*(?=\s|$)", " times "),
    (r"(?<![\w*])([A-Za-z])\*(?=[A-Za-z\d](?![A-Za-z*]))", r"\1 times "),
    (r"(?<![\w.,])(\d+)[xX](\d+)(?!\w)", _product),
    (r"(?<=\d) [xX] (?=\d)", " times "),
    (r"(?<=[\d)]) / (?=[\d(])|\s?÷\s?", " divided by "),
    (r"(?<=[\w)%]) - (?=[\d($£€])|\s?−\s?", " minus "),
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
