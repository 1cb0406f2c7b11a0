"""The page in headless browsers with a microphone that plays a file, against a real server.

make test-clients; it needs Debian's chromium, and for Firefox its firefox-esr and pulseaudio.
"""

import base64
import io
import json
import shutil
from collections.abc import Iterator

import numpy as np
import pytest
import soundfile
from websockets.sync.client import connect

from duplex.audio import SAMPLE_RATE
from duplex.events import Event
from duplex.serving.http.auth import Access
from tests.client.page import firefox
from tests.client.proxy import Proxy
from tests.helpers import running_server, tone
from tests.serving.scale.processes import director, servers
from tests.tiny_agent import TinyAgent

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.clients
# What is shown at most so long after its cause, in milliseconds; a busy machine takes its time.
SOON = 15_000

# Runs before the page's own scripts: what it makes can be taken hold of, and fails when told to.
HOLD = """
window.held = { streams: [], contexts: [], nodes: [], sent: [], fail: null, sampleRate: null };
const send = WebSocket.prototype.send;
WebSocket.prototype.send = function (message) {
  if (typeof message === "string") held.sent.push(message);
  send.call(this, message);
};
const ask = navigator.mediaDevices?.getUserMedia.bind(navigator.mediaDevices);
if (ask) navigator.mediaDevices.getUserMedia = async (wanted) => {
  if (held.fail) throw new DOMException("", held.fail);
  const stream = await ask(wanted);
  held.streams.push(stream);
  return stream;
};
const Context = AudioContext, Node = window.AudioWorkletNode ?? class {};
window.AudioContext = class extends Context {
  constructor(options) {
    super(held.sampleRate ? { ...options, sampleRate: held.sampleRate } : options);
    held.contexts.push(this);
  }
  resume() { return held.asleep ? Promise.reject(new Error("a tap is wanted")) : super.resume(); }
};
window.AudioWorkletNode = class extends Node {
  constructor(...all) { super(...all); held.nodes.push(this); }
};
const blobUrl = URL.createObjectURL; // what is given to be downloaded
URL.createObjectURL = (blob) => {
  const reader = new FileReader();
  reader.onload = () => { held.saved = reader.result.split(",")[1]; };
  reader.readAsDataURL(blob);
  return blobUrl(blob);
};
HTMLAnchorElement.prototype.click = () => {};
"""


@pytest.fixture(scope="module", params=["chromium", "firefox"])
def browser(request, tmp_path_factory) -> Iterator:
    """Its microphone plays a second of a tone, then three of silence, over and over."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "firefox":
        if not firefox.is_there():
            pytest.skip("Firefox or PulseAudio is not here")
        with firefox.launched(folder) as browser:
            yield browser
        return
    if CHROMIUM is None:
        pytest.skip("there is no chromium here")
    sound = np.concatenate([np.zeros(SAMPLE_RATE // 2), tone(13), np.zeros(3 * SAMPLE_RATE)])
    path = folder / "microphone.wav"
    soundfile.write(path, sound, SAMPLE_RATE, subtype="PCM_16")
    options = [
        "--no-sandbox",
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={path}",
    ]
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()


@pytest.fixture
def proxy(server_url) -> Iterator[Proxy]:
    with Proxy(int(server_url.split(":")[2].split("/")[0])) as proxy:
        yield proxy


@pytest.fixture
def page(browser, proxy) -> Iterator:
    context = browser.new_context(permissions=["microphone"])
    page = context.new_page()
    page.set_default_timeout(SOON)
    faults = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.add_init_script(HOLD)
    page.goto(f"http://127.0.0.1:{proxy.port}/")
    yield page
    context.close()
    assert faults + getattr(browser, "faults", []) == []


def wait(page, *names: str) -> None:
    """Until one of these states is shown."""
    page.wait_for_selector(",".join(f'#state[data-name="{name}"]' for name in names))


def talking(page) -> None:
    page.click("#talk")
    wait(page, "listening", "you", "agent")


def kinds(page) -> list[str]:
    """Types of the raw events of the drawer, the newest first."""
    page.evaluate("document.getElementById('developer').open = true")
    page.wait_for_timeout(100)
    return [line.split()[2] for line in page.inner_text("#events").splitlines() if line]


def count(page, selector: str) -> int:
    return page.evaluate(f"document.querySelectorAll('{selector}').length")


def saved(page, button: str) -> bytes:
    """What a button gives to be downloaded."""
    page.evaluate("held.saved = null; document.getElementById('save').open = true")
    page.click(button)
    for _ in range(200):
        if found := page.evaluate("held.saved"):
            return base64.b64decode(found)
        page.wait_for_timeout(50)
    raise AssertionError("nothing was saved")


def test_words_latency_and_what_is_kept(page):
    talking(page)
    page.wait_for_selector("li.agent small:has-text(' s')")
    page.wait_for_selector("li.agent:not(.open) span:has-text('cho0')")
    assert "Word0" in page.inner_text("li.you p")
    assert "answer 0." in page.inner_text("#figures")
    assert "Agent: " in page.inner_text("#announce")
    page.click("#talk")
    wait(page, "ready")
    assert "median answer" in page.inner_text("#way")
    stereo, rate = soundfile.read(io.BytesIO(saved(page, "#sound")))
    assert rate == SAMPLE_RATE and stereo.shape[1] == 2
    assert np.abs(stereo).max(axis=0).min() > 0.02
    assert "agent: Echo0" in saved(page, "#text").decode()
    page.reload()
    assert "Word0" in page.inner_text("li.you p")
    page.click("#fresh")
    assert count(page, "#turns li") == 0


def test_a_conversation_follows_its_end_whatever_opens_below_it(page):
    """Settings take room from it; who has scrolled up stays there."""
    talking(page)
    for _ in range(30):
        page.evaluate("turns.append(document.createElement('li')); turns.lastChild.append('–')")
    page.wait_for_selector("li.agent:not(.open)")
    main = "document.querySelector('main')"
    left = f"{main}.scrollHeight - {main}.scrollTop - {main}.clientHeight"
    for is_open in ("true", "false"):
        page.evaluate(f"document.getElementById('settings').open = {is_open}")
        page.wait_for_timeout(300)
        assert page.evaluate(left) < 60
    page.evaluate(f"{main}.scrollTop = 0")
    page.wait_for_selector("li.you.open")
    assert page.evaluate(f"{main}.scrollTop") == 0


def test_what_can_be_saved(page):
    """A menu that closes by a choice, Escape, and a press elsewhere."""
    talking(page)
    page.wait_for_selector("li.agent:not(.open) small:has-text(' s')")
    page.click("#talk")
    wait(page, "ready")
    is_open = "document.getElementById('save').open"
    lines = [json.loads(line) for line in saved(page, "#lines").decode().splitlines()]
    assert {line["who"] for line in lines} == {"you", "agent"}
    assert any(line.get("answer_s") for line in lines)
    assert page.evaluate(is_open) is False
    assert saved(page, "#subtitles").startswith(b"WEBVTT\n\n00:00:0")
    page.evaluate("document.getElementById('save').open = true")
    page.keyboard.press("Escape")
    assert page.evaluate(is_open) is False
    page.evaluate("document.getElementById('save').open = true")
    page.click("h1")
    assert page.evaluate(is_open) is False


def test_people_sounds_and_backchannels_are_shown(browser):
    class Company(TinyAgent):
        """Two people, a dog, and an agent that says mhm."""

        def step(self, audio, active, voice=True):
            played, events = super().step(audio, active, voice)
            told = [event for event in events[0] if event.kind == "heard"]
            for event in told:
                event.speaker = 2
                events[0] += [Event("sound", event.tick, "dog")]
                events[0] += [Event("backchannel", event.tick, "mhm")]
            return played, events

    with running_server(Company(1)) as url:
        context = browser.new_context(permissions=["microphone"])
        page = context.new_page()
        page.set_default_timeout(SOON)
        page.goto(url.replace("ws:", "http:").removesuffix("/v1/duplex"))
        talking(page)
        page.wait_for_selector("li.you:has-text('Person 2')")
        page.wait_for_selector("li.sound:has-text('Dog')")
        page.wait_for_selector("li.backchannel:has-text('Mhm')")
        colors = "[...document.querySelectorAll('li b')].map((it) => getComputedStyle(it).color)"
        assert len(set(page.evaluate(colors))) == 3
        context.close()


def test_tab_reaches_the_buttons_past_any_number_of_turns(page):
    """In a call no turn is on the way, after it one, from which arrows reach the others."""
    talking(page)
    page.wait_for_selector("li.agent:not(.open)")
    page.wait_for_selector("li.you.open")
    assert count(page, '.play:not([tabindex="-1"])') == 0
    page.click("#talk")
    wait(page, "ready")
    assert count(page, '.play[tabindex="0"]') == 1 and count(page, ".play") >= 3
    page.evaluate("document.querySelector('.play[tabindex=\"0\"]').focus()")
    page.keyboard.press("ArrowUp")
    place = "[...document.querySelectorAll('.play')].indexOf(document.activeElement)"
    assert page.evaluate(place) == count(page, ".play") - 2
    assert count(page, '.play[tabindex="0"]') == 1


def test_a_text_that_is_too_long_says_so(page):
    talking(page)
    page.evaluate("""const clipboardData = { getData: () => "long ".repeat(2000) };
        say.dispatchEvent(Object.assign(new Event("paste"), { clipboardData })); 0""")
    page.wait_for_selector("#note:has-text('1000 characters')")
    odd = "<b>\u202eabc</b> 🙂 <file_sep> \u0000 'quoted'"
    page.evaluate(f"say.value = {json.dumps(odd)}; say.focus(); 0")
    page.keyboard.press("Enter")
    page.wait_for_selector("li.you:has-text('typed')")
    assert odd in page.evaluate("turns.textContent") and count(page, "li b b") == 0
    wait(page, "listening", "you", "agent", "both", "pauses", "waits")


def test_new_in_a_call_begins_another_one(page):
    talking(page)
    page.wait_for_selector("li.agent")
    page.click("#fresh")
    wait(page, "listening", "you", "agent")
    page.wait_for_selector("li.you:has-text('0:0')")
    starts = [message for message in page.evaluate("held.sent") if "session.start" in message]
    assert len(starts) == 2


@pytest.mark.parametrize("size", [(320, 640), (390, 844), (844, 390), (1280, 800)])
def test_nothing_is_cut_off_on_any_screen(browser, proxy, size):
    """No sideways scrolling, and the button is there without any."""
    with browser.new_context(viewport={"width": size[0], "height": size[1]}) as context:
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{proxy.port}/")
        page.evaluate("document.getElementById('settings').open = true")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.evaluate("document.getElementById('settings').open = false")
        page.evaluate("""turns.innerHTML = "<li>long</li>".repeat(60); keep.hidden = false;
            timeline.hidden = false; save.open = true; 0""")
        page.wait_for_timeout(200)
        menu = page.evaluate("document.querySelector('#save div').getBoundingClientRect().x")
        assert menu >= 0
        box = page.evaluate("document.getElementById('talk').getBoundingClientRect().toJSON()")
        assert box["y"] + box["height"] <= size[1] and box["height"] >= 44


def test_devices_at_any_rate_keep_the_pitch(page, browser):
    """The context takes what the device has, and the server hears and speaks 24 kHz."""
    for rate in (16_000, 44_100, 48_000):
        page.evaluate(f"held.sampleRate = {rate}")
        talking(page)
        page.wait_for_selector("li.agent:not(.open) small:has-text(' s')")
        page.click("#talk")
        wait(page, "ready")
        stereo, _ = soundfile.read(io.BytesIO(saved(page, "#sound")))
        for side in stereo.T:
            loud = np.flatnonzero(np.abs(side) > 0.3 * np.abs(side).max())
            part = side[loud[0] : loud[0] + SAMPLE_RATE // 2] * np.hanning(SAMPLE_RATE // 2)
            hertz = np.abs(np.fft.rfft(part)).argmax() * 2
            assert hertz == pytest.approx(getattr(browser, "HERTZ", 440), abs=4), rate
        page.click("#fresh")


def test_lost_microphone_is_told_and_taken_back(page):
    talking(page)
    page.evaluate("""held.fail = "NotFoundError"; const [track] = held.streams.at(-1).getTracks();
        track.stop(); track.dispatchEvent(new Event("ended"));""")
    wait(page, "unplugged")
    assert "microphone is gone" in page.inner_text("#alert").lower()
    page.wait_for_timeout(1500)
    wait(page, "unplugged")
    page.evaluate("""held.fail = null;
        navigator.mediaDevices.dispatchEvent(new Event("devicechange"));""")
    wait(page, "listening", "you", "agent")
    page.wait_for_selector("li.you")
    assert "session.ended" not in kinds(page)
    assert page.inner_text("#alert") == ""


def test_suspended_sound_goes_on_with_a_tap(page):
    """A phone call on iOS, a blocked autoplay."""
    talking(page)
    page.evaluate("held.asleep = true; held.contexts.at(-1).suspend(); 0")
    wait(page, "suspended")
    assert "Tap" in page.inner_text("#way")
    page.wait_for_timeout(1500)
    page.evaluate("held.asleep = false")
    page.click("h1")
    wait(page, "listening", "you", "agent")
    assert "session.ended" not in kinds(page)


def test_dead_sound_device_is_opened_again_with_a_tap(page):
    talking(page)
    page.evaluate("held.nodes.at(-1).port.onmessage = null")
    wait(page, "stalled")
    page.click("h1")
    wait(page, "listening", "you", "agent")
    page.wait_for_selector("li.agent")


def test_no_microphone_at_the_start(page):
    for fault, state in (
        ("NotAllowedError", "refused"),
        ("NotReadableError", "busy"),
        ("NotFoundError", "absent"),
    ):
        page.evaluate(f"held.fail = '{fault}'")
        page.click("#talk")
        wait(page, state)
        assert page.inner_text("#way") and page.inner_text("#talk") == "Start talking"
    page.evaluate("""held.fail = null;
        navigator.mediaDevices.dispatchEvent(new Event("devicechange"));""")
    wait(page, "listening", "you")


def test_insecure_page_says_so(page):
    page.evaluate("Object.defineProperty(navigator, 'mediaDevices', { value: undefined }); 0")
    page.click("#talk")
    wait(page, "insecure")
    assert "--tls-cert" in page.inner_text("#way")


def test_cut_connection_is_taken_up_again(page, proxy):
    talking(page)
    proxy.is_closed = True
    proxy.cut()
    wait(page, "cut")
    page.fill("#say", "lost")
    page.keyboard.press("Enter")
    # What could not be sent is not shown as said, and stays in its field.
    assert "Lost" not in page.evaluate("turns.textContent")
    assert page.evaluate("say.value") == "lost"
    page.wait_for_selector("#note:has-text('Not sent')")
    # What is chosen meanwhile counts afterwards.
    page.evaluate("document.getElementById('settings').open = true")
    page.select_option("#persona", "Waiter")
    proxy.is_closed = False
    wait(page, "listening", "you", "agent")
    page.wait_for_selector("li.agent")
    assert count(page, "li.rule") == 0
    sent = [json.loads(message) for message in page.evaluate("held.sent")]
    [asked] = [message for message in sent if message["type"] == "agent.instruct"]
    assert "waiter" in asked["instructions"]


def test_a_server_that_stands_still_is_told(page, proxy):
    talking(page)
    proxy.stall()
    wait(page, "quiet")
    proxy.go_on()
    wait(page, "listening", "you", "agent")
    page.wait_for_selector("li.agent")
    assert count(page, "li.rule") == 0


def test_escape_interrupts_the_agent(page):
    """Pressed again and again, for an answer is short and a machine may be slow."""
    talking(page)
    for _ in range(200):
        page.keyboard.press("Escape")
        page.wait_for_timeout(100)
        if "(stopped)" in page.evaluate("turns.textContent"):
            break
    else:
        raise AssertionError("it was never stopped")
    wait(page, "listening", "you")


def test_restarted_server_gets_a_new_session_and_the_words_so_far(page, proxy):
    """The old session is gone; what was said stays on the page and is told to the agent."""
    talking(page)
    page.wait_for_selector("li.agent:not(.open) span:has-text('cho0')")
    with running_server(TinyAgent(1)) as other:
        proxy.target = int(other.split(":")[2].split("/")[0])
        proxy.cut()
        page.wait_for_selector("li.rule:has-text('started again')")
        wait(page, "listening", "you", "agent")
    told = [message for message in page.evaluate("held.sent") if "so far" in message]
    assert "User: word0" in told[0] and "Assistant: echo0" in told[0]


def test_no_server_is_one_sentence(page, proxy):
    proxy.is_closed = True
    page.click("#talk")
    wait(page, "failed")
    assert "No server answers" in page.inner_text("#state")
    assert count(page, "#turns li") == 0


def test_wrong_key_is_told_where_it_is_typed(browser):
    with running_server(TinyAgent(1), Access(api_key="right")) as url:
        context = browser.new_context(permissions=["microphone"])
        page = context.new_page()
        page.set_default_timeout(SOON)
        page.goto(url.replace("ws:", "http:").removesuffix("/v1/duplex"))
        for typed, told in (("", "wants a key"), ("wrong", "key is wrong")):
            page.evaluate(f"document.getElementById('key').value = '{typed}'")
            page.click("#talk")
            wait(page, "failed")
            page.wait_for_selector(f"#state:has-text('{told}')")
            assert page.evaluate("document.activeElement.id") == "key"
            assert "press Enter" in page.inner_text("#way")
        page.fill("#key", "right")
        page.keyboard.press("Enter")
        wait(page, "listening", "you", "agent")
        page.keyboard.press("Enter")
        page.wait_for_timeout(500)
        assert page.inner_text("#talk") == "End"
        context.close()


def test_full_server_is_waited_for(page, proxy):
    with connect(f"ws://127.0.0.1:{proxy.port}/v1/duplex", subprotocols=["duplex"]) as other:
        other.send(json.dumps({"type": "session.start"}))
        other.recv()
        page.click("#talk")
        wait(page, "full")
    wait(page, "listening", "you", "agent")


def test_keys_text_and_settings_in_a_call(page):
    talking(page)
    page.keyboard.press("m")
    wait(page, "muted", "muted_agent")
    page.keyboard.press("m")
    page.keyboard.press("t")
    page.keyboard.type("what time is it")
    page.keyboard.press("Enter")
    page.wait_for_selector("li.you:has-text('What time is it'):has-text('typed')")
    page.keyboard.press("Tab")
    page.evaluate("document.activeElement.blur(); document.getElementById('settings').open = true")
    page.keyboard.press("Escape")
    page.select_option("#persona", "English teacher")
    page.check("#push")
    page.evaluate("document.activeElement.blur()")
    wait(page, "key", "key_agent")
    # The button that ends the call has the focus, and Space does not press it.
    page.evaluate("document.getElementById('talk').focus()")
    page.keyboard.down(" ")
    wait(page, "listening", "you", "agent", "both", "pauses", "waits")
    page.keyboard.up(" ")
    wait(page, "key", "key_agent")
    page.wait_for_timeout(200)
    assert page.inner_text("#talk") == "End"
    types = [json.loads(message)["type"] for message in page.evaluate("held.sent")]
    for kind in ("text", "agent.stop", "agent.voice", "agent.instruct"):
        assert kind in types and kind in kinds(page)


def test_page_of_a_director_waits_in_line_and_goes_on_elsewhere(browser):
    """Two servers of one place each: one dies under a page, and the other takes it."""
    with servers(1, 2, "--origin", "*") as replicas, director(replicas) as front:
        pages = []
        for _ in range(2):
            context = browser.new_context(permissions=["microphone"])
            page = context.new_page()
            page.set_default_timeout(SOON)
            page.goto(front.url)
            pages.append(page)
        first, second = pages
        talking(first)
        [here] = [r for r in replicas if r.ask("GET", "/v1/stats")[1]["sessions"]]
        talking(second)
        third = browser.new_context(permissions=["microphone"]).new_page()
        third.goto(front.url)
        third.click("#talk")
        wait(third, "full")
        assert "Number 1 in the line" in third.inner_text("#way")
        third.context.close()
        second.click("#talk")
        wait(second, "ready")
        here.kill()
        first.wait_for_selector("li.rule:has-text('started again')")
        wait(first, "listening", "you", "agent")
        for page in pages:
            page.context.close()


def test_a_reload_keeps_sound_and_words(page):
    """Also of a call that was going on, and the next call is written behind it."""
    talking(page)
    page.wait_for_selector("li.agent:not(.open) small:has-text(' s')")
    page.reload()
    page.wait_for_selector("li.agent small:has-text(' s')")
    page.wait_for_selector("#keep")
    before, _ = soundfile.read(io.BytesIO(saved(page, "#sound")))
    assert len(before) > SAMPLE_RATE and np.abs(before).max(axis=0).min() > 0.02
    talking(page)
    page.wait_for_timeout(1500)
    page.click("#talk")
    wait(page, "ready")
    after, _ = soundfile.read(io.BytesIO(saved(page, "#sound")))
    np.testing.assert_array_equal(after[: len(before)], before)
    assert len(after) > len(before) + SAMPLE_RATE
    page.click(".play")
    page.wait_for_selector(".play.on")
    page.click("#fresh")
    page.reload()
    page.wait_for_timeout(500)
    assert (
        count(page, "#turns li") == 0 and page.evaluate("getComputedStyle(keep).display") == "none"
    )
