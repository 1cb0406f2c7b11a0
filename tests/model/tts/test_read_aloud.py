"""What is written is said as a person says it: the phones of both sides are the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duplex.model.tts.read_aloud import readable
from tests.model.tts.test_g2p import READER, read, spell

ARITHMETIC = [
    ("2*3 is 6", "two times three is six"),
    ("2 * 3 * 4 = 24", "two times three times four equals twenty four"),
    ("3x4 or 3 x 4", "three times four or three times four"),
    ("7 × 2, 7 ÷ 2", "seven times two, seven divided by two"),
    ("1920x1080", "nineteen twenty by ten eighty"),
    ("10**2 or 2**10", "ten squared or two to the power of ten"),
    ("x^2 and 5^3", "x squared and five cubed"),
    ("a*b", "a times b"),
    ("10 - 4 is 6", "ten minus four is six"),
    ("10-4=6", "ten minus four equals six"),
    ("6/2=3", "six divided by two equals three"),
    ("2 + 3 = 5", "two plus three equals five"),
    ("2+3=5.", "two plus three equals five."),
    ("f(x) = x**2 + 1", "f(x) equals x squared plus one"),
    ("x > 5 and y <= 3", "x greater than five and y less than or equal to three"),
    ("x != 3", "x is not equal to three"),
    ("√9 = 3", "the square root of nine equals three"),
    ("−5 degrees", "minus five degrees"),
    ("It is -5 °C", "It is minus five degrees Celsius"),
    ("~5 miles", "about five miles"),
    ("~$5, ≈5", "about five dollars, about five"),
    ("1e-5", "one times ten to the power of minus five"),
    ("6.02e23", "6.02 times ten to the power of twenty three"),
    ("1,000*2", "one thousand times two"),
    ("2½", "two and one half"),
    ("pages 10-20", "pages ten to twenty"),
    ("e=mc^2, 10^-3", "e equals mc squared, ten to the power of minus three"),
    ("(2+3)*4, i++", "(two plus three) times four, i plus plus"),
    ("50% - 10%, $5 + $3", "fifty percent minus ten percent, five dollars plus three dollars"),
    (r"$\frac{1}{2}$ \times 3", "one over two times three"),
    ("≈ 3.14 or ~ 100", "about 3.14 or about one hundred"),
    ("3 1/2 cups, 2⅓", "three and one half cups, two and one third"),
    ("10⁸ or x²", "ten to the power of 8 or x squared"),
    ("5 km² or 20 m^3", "five square kilometers or twenty cubic meters"),
    ("2 *3, 10*-2", "two times three, ten times minus two"),
]
NUMBERS = [
    ("555-867-5309.", "five five five, eight six seven, five three zero nine."),
    ("(555) 123-4567", "five five five, one two three, four five six seven"),
    ("1-800-555-0199, or", "one, eight zero zero, five five five, zero one nine nine, or"),
    ("07432 123456!", "zero seven four three two, one two three four five six!"),
    ("+44 20 7946 0958", "plus four four, two zero, seven nine four six, zero nine five eight"),
    ("+33 1 23 45 67 89", "plus three three, one, two three, four five, six seven, eight nine"),
    ("+1 (555) 867-5309", "plus one, five five five, eight six seven, five three zero nine"),
    ("555.867.5309", "five five five, eight six seven, five three zero nine"),
    ("1-800-FLOWERS", "one, eight zero zero, flowers"),
    ("5558675309", "five five five eight six seven five three zero nine"),
    ("#1 and #42", "number one and number forty two"),
    ("5$ or 5 €", "five dollars or five euros"),
    ("US$5", "five dollars"),
    ("It costs 3.50$.", "It costs three dollars and fifty cents."),
    ("-$5, $ 5", "minus five dollars, five dollars"),
    ("$5/month", "five dollars per month"),
    (
        "192.168.1.1",
        "one hundred ninety two dot one hundred sixty eight dot one dot one",
    ),
    ("10.0.0.1:80", "ten dot zero dot zero dot one port eighty"),
    ("v1.2.3", "version one point two point three"),
    ("Python 3.11", "Python three point eleven"),
    ("802.11ac", "eight oh two dot eleven A C"),
    ("24.12.2024", "2024-12-24"),
    ("24/7", "twenty four seven"),
    ("6'2\" tall", "six foot two tall"),
    ("Call 911! Call 555 1234", "Call nine one one! Call five five five, one two three four"),
    ("ext. 42", "extension forty two"),
    ("123-45-6789", "one two three, four five, six seven eight nine"),
    ("Hills, CA 90210", "Hills, CA nine zero two one zero"),
    ("5 USD, 100 ¥, €1.5bn", "five US dollars, one hundred yen, €1.5 billion"),
    ("2h 30m, 24h", "two hours thirty minutes, twenty four hours"),
    ("16:9, 5pm-6pm", "sixteen to nine, five pm to six pm"),
    ("He won 3-2. It was 1:200.", "He won three to two. It was one to two hundred."),
    ("$20-$30 or 20%-30%", "twenty dollars to thirty dollars or twenty percent to thirty percent"),
    ("1 000 000 or 10_000", "one million or ten thousand"),
    ("030/1234567, 007", "zero three zero, one two three four five six seven, zero zero seven"),
    ("2024-06-05T10:30:00Z", "2024-06-05 at 10:30"),
    ("50/50", "fifty fifty"),
    ("iOS 17.4.1, 0xFF", "iOS seventeen point four point one, zero x FF"),
]
ADDRESSES = [
    ("https://www.example.com/about", "example dot com slash about"),
    ("Is it https://example.com?", "Is it example dot com?"),
    ("www.example.org/x9/y/z?q=1", "example dot org"),
    ("http://127.0.0.1:80/", "one hundred twenty seven dot zero dot zero dot one port eighty"),
    ("[our site](https://example.com/a?b=1)", "[our site"),
    ('[the docs](https://example.com/x_(y) "Two words") now', "[the docs now"),
    ("![a cat](cat.png)", "a cat"),
    ("<https://example.com>", "example dot com"),
    ("john.smith@example.com", "john dot smith at example dot com"),
    ("j_doe+x@mail.example.org.", "j underscore doe plus x at mail dot example dot org."),
    ("main.py", "main dot PY"),
    ("/home/me/file_name.txt", "slash home slash me slash file name dot TXT"),
    ("(see www.bbc.co.uk/news)", "(see bbc dot co dot UK slash news)"),
    ("tel:+15551234567", "plus one five five five one two three four five six seven"),
]
NAMES = [
    ("Call get_weather() now.", "Call get weather now."),
    ("__init__", "init"),
    ("C# is in F#.", "C sharp is in F sharp."),
    ("C++", "C plus plus"),
    ("G♯ and B♭", "G sharp and B flat"),
    ("@user.name", "at user dot name"),
    (".NET", "dot net"),
    ("#hashtag", "hashtag hashtag"),
    ("getWeatherData", "get Weather Data"),
    ("x && y || z", "x and y or z"),
    ("iPhone, OpenAI, GitHub", "iPhone, OpenAI, GitHub"),
]
MARKUP = [
    ("**bold** and *italic* and _this_ and __that__", "bold and italic and this and that"),
    ("***really*** ~~old~~ `code`", "really old code"),
    ("### Heading here", "Heading here"),
    ("* another thing", "another thing"),
    ("> a quote", "a quote"),
    ("<b>bold</b> text<br>next<br/>or last", "bold text next or last"),
    ('<a href="https://x.org" class="b c">here</a>', "here"),
    ("x &lt; y &amp; z", "x less than y and z"),
    ("if x<y and z>w", "if x less than y and z greater than w"),
    ("A -> B", "A to B"),
]
SCRIPTS = [
    ("Привет", "Privet"),
    ("Ελλάδα", "Ellada"),
    ("おはよう", "ohayou"),
    ("東京 🙂", ""),
    ("H₂O, １２, 𝐁𝐨𝐥𝐝", "H2O, twelve, Bold"),
    ("π is 3.14", "pi is 3.14"),
]
AS_BEFORE = [
    "It's 3:30 pm on 2024-01-15, a.m. in the U.S., e.g. 50%.",
    "well-known T-shirts, rock 'n' roll, 3rd of 5-10 minutes",
    "In (1984) he paid $1,000,000 for 2020-2024 alone.",
]


@pytest.mark.parametrize(
    ("written", "said"), ARITHMETIC + NUMBERS + ADDRESSES + NAMES + MARKUP + SCRIPTS
)
def test_it_is_said_as_a_person_says_it(written, said):
    assert spell(written).strip() == spell(said).strip()


@pytest.mark.parametrize("text", AS_BEFORE)
def test_what_hibari_reads_rightly_is_left_to_it(text):
    assert spell(text) == READER.g2p(text)


@pytest.mark.parametrize("written", [row[0] for row in ARITHMETIC + NUMBERS + ADDRESSES])
def test_text_may_be_cut_at_every_letter(written):
    """The words that a telephone number or a link has are read together, wherever they are cut."""
    text = f"Well, {written} is it"
    assert read(list(text)) == read([text])
    assert " ".join(word for word, _ in read([text])) == text


@given(st.text(alphabet="ab1 .*_-/+=<>()[]:#@$~^`\"'&;−×|\\", max_size=60))
def test_any_signs_can_be_read(text):
    assert "*" not in readable(text, "1") and "_" not in readable(text)


@pytest.mark.parametrize(
    "piece", ["a", "1.", "a.b", "*", "(", "[a](", "<a ", "=1", "a@", "1-", " 1"]
)
def test_long_text_is_read_at_once(piece):
    """No rule tries all ways to take it apart."""
    assert readable(piece * 3_000) is not None
