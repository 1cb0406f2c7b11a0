"""Exchanges about capitals, currencies, languages and continents of countries.

Well-known countries come from texts/countries.txt, the rest from countries.json of the data
folder (samayo/country-json).
"""

import json
import random
import re
from dataclasses import dataclass
from pathlib import Path

from duplex.training.text.templates import expand, read_lines

# By what is asked for: the question's and the answer's template (duplex.training.text.templates).
QUESTIONS = {
    "capital": (
        "{What's|What is|Do you know|Tell me|Can you tell me|Name} the capital {|city }of $name?"
        "|What is the capital of $name?|Which city is the capital of $name?"
        "|What's $owner capital {|city}?"
        "|I'd like to know the capital of $name.",
        "The capital of $name is $capital.|The capital of $name is $capital."
        "|$capital is the capital of $name."
        "|It's $capital.|That's $capital.|$owner capital is $capital.",
    ),
    "currency": (
        "What currency {do they use|is used|do people use} in $name?|What's the currency of $name?"
        "|{What|Which} {money|currency} do I need in $name?|How do people pay in $name?"
        "|What money do they have in $name?",
        "{They|People} {use|pay with} the $currency in $name."
        "|The currency of $name is the $currency."
        "|In $name people pay with the $currency.|It's the $currency.",
    ),
    "language": (
        "{What|Which} language {do they|do people} speak in $name?|What's the language of $name?"
        "|What do people speak in $name?"
        "|{What|Which} language is spoken in $name?",
        "{People|They} speak $language in $name.|In $name people {mostly |}speak $language."
        "|They speak $language there.",
    ),
    "continent": (
        "{What|Which} continent is $name {in|on}?|Where is $name?|Where's $name?"
        "|{What|Which} part of the world is $name in?|Do you know where $name is?",
        "$name is in $continent.|It's in $continent.|You'll find $name in $continent.",
    ),
    "owner": (
        "$capital is the capital of {which|what} country?|{What"
        "|Which} country has $capital as its capital?"
        "|{What|Which} country is $capital the capital of?|Where is $capital?|{What"
        "|Which} country is $capital in?",
        "$capital is the capital of $name.|$capital is in $name.|$capital is the capital of $name.",
    ),
}


@dataclass
class Country:
    """What is known about a country; "" where it is not."""

    name: str  # As it stands in a sentence: "the Netherlands".
    capital: str
    currency: str
    language: str
    continent: str
    known: bool  # To most people.

    def slots(self) -> dict[str, str]:
        """What stands for `$name` and the like in a template."""
        owner = self.name + ("'" if self.name.endswith("s") else "'s")
        return vars(self) | {"known": "", "owner": owner}

    def topics(self) -> list[str]:
        """What can be asked about it."""
        return [topic for topic in QUESTIONS if topic == "owner" or getattr(self, topic)]


def in_sentence(name: str) -> str:
    """The name, with its article if it has one."""
    with_article = re.compile(
        r"^(United|Czech|Dominican|Central|Democratic|Republic)|(Islands|Republic|Emirates|States)$"
    )
    with_article_names = {
        "Netherlands",
        "Philippines",
        "Bahamas",
        "Gambia",
        "Maldives",
        "Seychelles",
        "Comoros",
        "Vatican",
    }
    return "the " + name if with_article.search(name) or name in with_article_names else name


def load_countries(data: Path) -> list[Country]:
    """Well-known countries first, then the plain ones of countries.json.

    Of these only capital and continent are known.
    """
    # Outdated, cut off or disputed in countries.json.
    left_out = (
        "Burundi|Chad|Christmas Island|Congo|Fiji Islands|French Guiana|Guam|Hong Kong|Israel"
        "|Kiribati|Macao|Marshall Islands|American Samoa|Mayotte|Monaco|Montserrat"
        "|Netherlands Antilles|New Caledonia|Norfolk Island|Northern Mariana Islands|Palau"
        "|Palestine|Pitcairn|Saint Helena|Saint Pierre and Miquelon|Svalbard and Jan Mayen|Tokelau"
        "|Wallis and Futuna|Western Sahara|Sri Lanka|Myanmar|San Marino|Djibouti|Gibraltar|Anguilla"
        "|Ivory Coast|Suriname|Guadeloupe"
    ).split("|")
    countries = []
    for line in read_lines("countries"):
        name, capital, currency, language, continent = (part.strip() for part in line.split("|"))
        countries.append(Country(name, capital, currency, language, continent, known=True))
    names = {country.name.removeprefix("the ") for country in countries}
    for name, row in sorted(
        json.loads((data / "text" / "countries.json").read_text(encoding="utf-8")).items()
    ):
        capital = (row.get("city") or "").strip()
        plain = name.isascii() and capital.isascii() and not re.search(r"[(),.]", name + capital)
        if (
            name in names
            or name in left_out
            or not (plain and capital and row.get("continent"))
            or len(name) > 25
        ):
            continue
        countries.append(Country(in_sentence(name), capital, "", "", row["continent"], known=False))
    return countries


def ask(country: Country, topic: str, rng: random.Random) -> tuple[str, str]:
    """(question, answer) about a country."""
    question, answer = QUESTIONS[topic]
    return expand(question, rng, country.slots()), expand(answer, rng, country.slots())


def country_exchange(
    countries: list[Country], rng: random.Random
) -> tuple[str, list[tuple[str, str]]]:
    """(key that decides the split, turns): a question, now and then the same of another country."""
    known = [country for country in countries if country.known]
    rare = [country for country in countries if not country.known]
    pool = rare if rng.random() < 0.12 else known
    country = rng.choice(pool)
    topic = rng.choice(["capital", "capital", "capital", *country.topics()])
    turns = [ask(country, topic, rng)]
    # A rare country is held out by its name, a well-known one by the wording of the question.
    key = turns[0][0] if country.known else country.name
    if country.known and topic != "owner" and rng.random() < 0.15:
        for other in rng.sample([c for c in known if c is not country], rng.choice([1, 1, 2])):
            template = "{And what about|What about|And|How about|And what about} {$name|$name"
            template += "|the one of $name}?" if topic == "capital" else "}?"
            question = expand(template, rng, other.slots())
            full_answer = QUESTIONS[topic][1].split("|It's")[0]
            turns.append((question, expand(full_answer, rng, other.slots())))
    return key, turns
