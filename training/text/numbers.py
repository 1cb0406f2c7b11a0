"""Exchanges about numbers, days and months, with computed answers; numbers are written as words."""

import random

from duplex.training.text.templates import expand

# By operation: the question's and the answer's template (duplex.training.text.templates).
SUM = {
    "+": (
        "{What's|What is|How much is|Tell me,|Can you tell me what|What do you get for} $a plus $b?"
        "|{Add|Please add} $a and $b.|What's the sum of $a and $b?|What do $a and $b make?"
        "|$a plus $b?"
        "|If I have $a apples and get $b more, how many do I have?",
        "$a plus $b is $c.|$a plus $b is $c.|That's $c.|$a plus $b makes $c.|The answer is $c."
        "|It's $c.",
    ),
    "-": (
        "{What's|What is|How much is|Tell me,|Can you tell me what} $a minus $b?"
        "|Take $b away from $a."
        "|Subtract $b from $a.|What do you get when you take $b from $a?|$a minus $b?"
        "|If I have $a coins and spend $b, how many are left?",
        "$a minus $b is $c.|$a minus $b is $c.|That's $c.|$a minus $b leaves $c.|The answer is $c."
        "|It's $c.",
    ),
    "*": (
        "{What's|What is|How much is|Tell me,|Can you tell me what} $a times $b?|Multiply $a by $b."
        "|What's $a multiplied by $b?|What do you get when you multiply $a by $b?|$a times $b?",
        "$a times $b is $c.|$a times $b is $c.|That's $c.|$a times $b makes $c.|The answer is $c."
        "|It's $c.",
    ),
    "/": (
        "{What's|What is|How much is} $a divided by $b?|Divide $a by $b."
        "|What do you get when you divide $a by $b?",
        "$a divided by $b is $c.|$a divided by $b is $c.|That's $c.|The answer is $c.",
    ),
}


def number_words(n: int) -> str:
    """0 <= n < 10 000 in words: 342 -> "three hundred forty-two"."""
    units = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen
    fifteen sixteen seventeen eighteen nineteen""".split()
    tens = "zero ten twenty thirty forty fifty sixty seventy eighty ninety".split()
    assert 0 <= n < 10_000, n
    if n < 20:
        return units[n]
    if n < 100:
        return tens[n // 10] + ("-" + units[n % 10] if n % 10 else "")
    size, name = (1000, "thousand") if n >= 1000 else (100, "hundred")
    return f"{number_words(n // size)} {name}" + (" " + number_words(n % size) if n % size else "")


def operands(operation: str, rng: random.Random) -> tuple[int, int, int]:
    """(a, b, a operation b), small numbers more often."""
    high = rng.choice([10, 10, 10, 12, 12, 20])
    if operation == "+":
        a = rng.randint(1, high)
        b = rng.randint(1, high)
        return a, b, a + b
    if operation == "-":
        a = rng.randint(2, high)
        b = rng.randint(1, a)
        return a, b, a - b
    a = rng.randint(2, 12)
    b = rng.randint(2, rng.choice([10, 12]))
    return (a, b, a * b) if operation == "*" else (a * b, b, a)


def arithmetic(rng: random.Random) -> tuple[str, list[tuple[str, str]]]:
    """A sum, difference, product or quotient, now and then with a follow-up on the result."""
    operation = rng.choice("+++--**/")
    a, b, c = operands(operation, rng)
    slots = {"a": number_words(a), "b": number_words(b), "c": number_words(c)}
    question, answer = SUM[operation]
    turns = [(expand(question, rng, slots), expand(answer, rng, slots))]
    if rng.random() < 0.12 and c >= 2:
        sign = rng.choice("+-")
        template, direction = {
            "+": ("And {$c plus $d|plus $d|if you add $d}?|{Now add|Then add} $d.", 1),
            "-": (
                "And {$c minus $d|minus $d|if you take away $d}?|Now {subtract|take away} $d.",
                -1,
            ),
        }[sign]
        d = rng.randint(1, min(c, 10))
        result = number_words(c + direction * d)
        word = "plus" if sign == "+" else "minus"
        slots = {"c": slots["c"], "d": number_words(d), "e": result}
        question = expand(template, rng, slots)
        turns.append((question, expand(f"$c {word} $d is $e.|That's $e then.", rng, slots)))
    return f"{a}{operation}{b}", turns


def halves(rng: random.Random) -> tuple[str, list[tuple[str, str]]]:
    """Half, double, before, after and larger of."""
    kind = rng.choice(["half", "double", "after", "before", "bigger", "smaller"])
    n = rng.randint(1, rng.choice([10, 20, 50, 100]))
    m = rng.choice([x for x in range(1, 101) if x != n])
    result = {
        "half": n,
        "double": 2 * n,
        "after": n + 1,
        "before": n - 1,
        "bigger": max(n, m),
        "smaller": min(n, m),
    }
    asked = 2 * n if kind == "half" else n
    slots = {"a": number_words(asked), "b": number_words(m), "c": number_words(result[kind])}
    slots["d"] = number_words(n + m - result[kind]) if kind in ("bigger", "smaller") else ""
    ask = "{What's|What is|Tell me|Do you know}"
    question, answer = {
        "half": (ask + " half of $a?|How much is half of $a?", "Half of $a is $c.|That's $c."),
        "double": (
            ask + " {double $a|twice $a|the double of $a}?",
            "Twice $a is $c.|Double $a is $c.|That's $c.",
        ),
        "after": (
            "{What|Which} number comes after $a?|What comes after $a?",
            "After $a comes $c.|$c comes after $a.",
        ),
        "before": (
            "{What|Which} number comes before $a?",
            "Before $a comes $c.|$c comes before $a.",
        ),
        "bigger": (
            "{Which|What} is {bigger|more|larger}, $a or $b?|Is $a more than $b?",
            "$c is more than $d.",
        ),
        "smaller": (
            "{Which|What} is {smaller|less}, $a or $b?|Is $a less than $b?",
            "$c is less than $d.",
        ),
    }[kind]
    key = f"{kind} {n} {m}" if slots["d"] else f"{kind}{n}"
    return key, [(expand(question, rng, slots), expand(answer, rng, slots))]


def counting(rng: random.Random) -> tuple[str, list[tuple[str, str]]]:
    """Counting up, down, or by twos, fives and tens."""
    kind = rng.choice(["up", "up", "down", "step"])
    start = 1 if rng.random() < 0.5 else rng.randint(2, 60)
    count = rng.randint(4, 19) if start == 1 else rng.randint(2, 7)
    if kind == "step":
        step = rng.choice([2, 5, 10])
        values = [step * (i + 1) for i in range(rng.randint(3, 6))]
        question = f"{{Count|Please count|Now count}} by {number_words(step)}s up to $b."
    else:
        values = list(range(start, start + count + 1))[:: 1 if kind == "up" else -1]
        direction = "{to|up to}" if kind == "up" else "{down to|back to|backwards to}"
        question = (
            f"{{Count|Please count}} from $a {direction} $b.|Can you count from $a {direction} $b?"
        )
        if kind == "up" and start == 1:
            question += "|{Count|Please count|Can you count} {up |}to $b."
    words = [number_words(value) for value in values]
    slots = {"a": words[0], "b": words[-1]}
    return f"count{values}", [(expand(question, rng, slots), expand(", ".join(words) + ".", rng))]


def order(rng: random.Random) -> tuple[str, list[tuple[str, str]]]:
    """Days of the week, months of the year and letters: before, after, which number."""
    days = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
    months = (
        "January February March April May June July August September October November December"
    ).split()
    ordinals = (
        "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth".split()
    )
    letters = "A B C D E F G H I J K L M N O P Q R S T U V W X Y Z".split()
    names = rng.choice([days, days, months, months, letters])
    unit = {7: "day", 12: "month", 26: "letter"}[len(names)]
    i = rng.randrange(1, len(names) - 1) if unit == "letter" else rng.randrange(len(names))
    slots = {"a": names[i], "unit": unit, "next": names[(i + 1) % len(names)], "last": names[i - 1]}
    whole = {"day": "week", "month": "year", "letter": "alphabet"}[unit]
    forms = [
        ("{What|Which} $unit comes after $a?|What comes after $a?|What's the $unit after $a?",
         "After $a comes $next.|$next comes after $a.|The $unit after $a is $next."),
        ("{What|Which} $unit comes before $a?|What comes before $a?|What's the $unit before $a?",
         "Before $a comes $last.|$last comes before $a.|The $unit before $a is $last."),
    ]  # fmt: skip
    if i < 12:
        slots["nth"] = ordinals[i]
        question = (
            f"What's the $nth {unit} of the {whole}?|Which {unit} of the {whole} is the $nth?"
        )
        answer = f"The $nth {unit} of the {whole} is $a.|$a is the $nth {unit} of the {whole}."
        forms.append((question, answer))
    if unit == "day":
        question = "If today is $a, what day is tomorrow?"
        forms.append((question, "Then tomorrow is $next.|Tomorrow would be $next."))
        question = "If today is $a, what day was yesterday?"
        forms.append((question, "Then yesterday was $last.|Yesterday was $last."))
    question, answer = rng.choice(forms)
    return f"order{names[i]}", [(expand(question, rng, slots), expand(answer, rng, slots))]


def small_sum(rng: random.Random) -> tuple[str, list[tuple[str, str]]]:
    """Two numbers up to ten, plus or minus: facts to be known.

    So only a wording is ever kept aside, never a sum.
    """
    a = rng.randint(1, 10)
    b = rng.randint(1, 10)
    operation = rng.choice("+-")
    a, c = (a, a + b) if operation == "+" else (a + b, a)
    slots = {"a": number_words(a), "b": number_words(b), "c": number_words(c)}
    question, answer = SUM[operation]
    asked = expand(question, rng, slots)
    return asked, [(asked, expand(answer, rng, slots))]


def number_exchange(rng: random.Random) -> tuple[str, list[tuple[str, str]]]:
    """(key that decides the split, turns) of one exchange about numbers or order."""
    return rng.choice([arithmetic] * 6 + [halves] * 2 + [counting] + [order] * 2)(rng)
