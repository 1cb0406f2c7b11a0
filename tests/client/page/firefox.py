"""Debian's Firefox for tests of the page, headless, over WebDriver BiDi: no driver of its own.

It has the few methods of playwright's browser, context and page that tests/client/page/test_page.py
uses. Its microphone is Firefox's own fake, a tone of 1 kHz, which MICROPHONE lets through for a
second of every four and a half. Its loudspeaker is a null sink of a PulseAudio that is started for
it: without a sound device Firefox runs no AudioContext.
"""

import contextlib
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from websockets.sync.client import connect

from tests.client.pulse import is_there as pulse_is_there
from tests.client.pulse import pulse, running

PREFERENCES = {
    "media.navigator.permission.disabled": True,
    "media.navigator.streams.fake": True,
    "media.autoplay.default": 0,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "app.normandy.enabled": False,
}
MICROPHONE = """
const fake = navigator.mediaDevices?.getUserMedia.bind(navigator.mediaDevices);
if (fake) navigator.mediaDevices.getUserMedia = async (wanted) => {
  const context = new AudioContext(), gate = new GainNode(context, { gain: 0 });
  const out = context.createMediaStreamDestination();
  context.createMediaStreamSource(await fake(wanted)).connect(gate).connect(out);
  for (let at = 0.5; at < 600; at += 4.54) {
    gate.gain.setValueAtTime(0.5, at);
    gate.gain.setValueAtTime(0, at + 1.04);
  }
  return out.stream;
};
"""
KEYS = {"Enter": "\ue007", "Tab": "\ue004", "Escape": "\ue00c", "ArrowUp": "\ue013"}
# Elements of a selector whose texts are playwright's :has-text('...'), at its end.
FIND = """(selector) => selector.split(/,(?![^(]*\\))/).flatMap((one) => {
  const mark = /:has-text\\('([^']*)'\\)/g;
  const texts = [...one.matchAll(mark)].map(([, text]) => text.toLowerCase());
  return [...document.querySelectorAll(one.replace(mark, ""))]
    .filter((it) => texts.every((text) => it.textContent.toLowerCase().includes(text)));
})"""


def is_there() -> bool:
    """Whether this machine has all that it takes."""
    return shutil.which("firefox") is not None and pulse_is_there()


@contextlib.contextmanager
def launched(folder: Path) -> Iterator["Firefox"]:
    """Firefox; folder: an empty one for all its files."""
    with pulse(folder) as environment, contextlib.ExitStack() as stack:
        profile = folder / "profile"
        profile.mkdir()
        lines = [f"user_pref({json.dumps(n)}, {json.dumps(v)});" for n, v in PREFERENCES.items()]
        (profile / "user.js").write_text("\n".join(lines))
        command = ["firefox", "--headless", "--no-remote", "--profile", str(profile)]
        command += ["--remote-debugging-port", "0"]
        process = stack.enter_context(running(command, environment, folder / "firefox.log"))
        url = _said(folder / "firefox.log", "WebDriver BiDi listening on ", process)
        socket = stack.enter_context(connect(f"{url}/session", max_size=None))
        yield Firefox(socket)


def _said(log: Path, words: str, process: subprocess.Popen, patience_s: float = 90) -> str:
    """The rest of the line of a log that begins with these words."""
    until = time.monotonic() + patience_s
    while words not in log.read_text():
        assert time.monotonic() < until and process.poll() is None, log.read_text()
        time.sleep(0.1)
    return log.read_text().partition(words)[2].splitlines()[0]


class Firefox:
    """A browser; each context is a container of its own, as private as a profile."""

    # The tone of its microphone.
    HERTZ = 1000

    def __init__(self, socket):
        self._socket = socket
        self._number = 0
        # Errors of scripts, by browsing context.
        self.faults: list[str] = []
        self.call("session.new", capabilities={})
        self.call("session.subscribe", events=["log.entryAdded"])

    def call(self, method: str, **parameters: Any) -> dict:
        """One command of WebDriver BiDi and its result."""
        self._number += 1
        asked = {"id": self._number, "method": method, "params": parameters}
        self._socket.send(json.dumps(asked))
        while True:
            answer = json.loads(self._socket.recv(timeout=60))
            if answer.get("method") == "log.entryAdded":
                self._note(answer["params"])
            if answer.get("id") == self._number:
                assert answer["type"] == "success", answer
                return answer["result"]

    def _note(self, entry: dict) -> None:
        """Errors of scripts; that a connection was cut is no error of theirs."""
        if entry["type"] == "javascript" and "ws://" not in entry["text"]:
            self.faults.append(entry["text"])

    def new_context(self, viewport: dict | None = None, **_) -> "Context":
        """A context; permissions are given by the profile."""
        return Context(self, viewport)


class Context:
    """What shares storage; `with` it is open."""

    def __init__(self, browser: Firefox, viewport: dict | None):
        self._browser = browser
        self._viewport = viewport
        self._name = browser.call("browser.createUserContext")["userContext"]

    def __enter__(self) -> "Context":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def new_page(self) -> "Page":
        """A tab in it."""
        made = self._browser.call("browsingContext.create", type="tab", userContext=self._name)
        page = Page(self._browser, made["context"], self)
        page.add_init_script(MICROPHONE)
        if self._viewport:
            page.call("browsingContext.setViewport", viewport=self._viewport)
        return page

    def close(self) -> None:
        self._browser.call("browser.removeUserContext", userContext=self._name)


class Page:
    """A tab."""

    def __init__(self, browser: Firefox, context: str, container: "Context"):
        self.context = container
        self._browser = browser
        self._context = context
        self._patience_ms = 30_000
        self.keyboard = Keyboard(self)

    def call(self, method: str, **parameters: Any) -> dict:
        """A command for this tab."""
        return self._browser.call(method, context=self._context, **parameters)

    def set_default_timeout(self, milliseconds: int) -> None:
        self._patience_ms = milliseconds

    def on(self, event: str, act) -> None:
        """Errors of scripts are kept by the browser: see Firefox.faults."""

    def add_init_script(self, text: str) -> None:
        self._browser.call(
            "script.addPreloadScript",
            functionDeclaration=f"() => {{ {text} }}",
            contexts=[self._context],
        )

    def goto(self, url: str) -> None:
        self.call("browsingContext.navigate", url=url, wait="complete")

    def reload(self) -> None:
        self.call("browsingContext.reload", wait="complete")

    def evaluate(self, script: str, argument: Any = None) -> Any:
        """What a script ends with; or a function of the argument gives."""
        target = {"context": self._context}
        options = {"target": target, "awaitPromise": True, "userActivation": True}
        if argument is None:
            text = f"{{ {script} }}"
            found = self._browser.call("script.evaluate", expression=text, **options)
        else:
            given = [{"type": "string", "value": json.dumps(argument)}]
            text = f"async (given) => ({script})(JSON.parse(given))"
            found = self._browser.call(
                "script.callFunction", functionDeclaration=text, arguments=given, **options
            )
        assert found["type"] == "success", found
        return _plain(found["result"])

    def _first(self, selector: str, then: str) -> Any:
        """What `then` gives of the first element `it`, once there is one."""
        until = time.monotonic() + self._patience_ms / 1000
        act = f"(it) => {{ {then} }}"
        text = f"(s) => {{ const it = ({FIND})(s)[0]; return it ? [({act})(it)] : null; }}"
        while (found := self.evaluate(text, selector)) is None:
            shown = "document.body.innerText"
            assert time.monotonic() < until, f"no {selector} in: {self.evaluate(shown)}"
            time.sleep(0.05)
        return found[0]

    def wait_for_selector(self, selector: str, timeout: int | None = None) -> None:
        self._first(selector, "return true")

    def wait_for_timeout(self, milliseconds: int) -> None:
        time.sleep(milliseconds / 1000)

    def inner_text(self, selector: str) -> str:
        return self._first(selector, "return it.innerText")

    def click(self, selector: str) -> None:
        # A microphone is given to the tab that has the focus.
        self.call("browsingContext.activate")
        press = "it.dispatchEvent(new PointerEvent('pointerdown', { bubbles: true }))"
        self._first(selector, f"{press}; it.click(); return true")

    def select_option(self, selector: str, value: str) -> None:
        self._change(selector, f"it.value = {json.dumps(value)}")

    def check(self, selector: str) -> None:
        self._change(selector, "it.checked = true")

    def _change(self, selector: str, act: str) -> None:
        self._first(selector, f"{act}; it.dispatchEvent(new Event('change')); return true")

    def fill(self, selector: str, text: str) -> None:
        self._first(selector, f"it.value = {json.dumps(text)}; it.focus(); return true")

    def count(self, selector: str) -> int:
        return self.evaluate(f"(s) => ({FIND})(s).length", selector)


def _plain(value: dict) -> Any:
    """A value of the browser's as one of ours."""
    if value["type"] == "array":
        return [_plain(item) for item in value["value"]]
    if value["type"] == "object":
        return {name: _plain(item) for name, item in value["value"]}
    return value.get("value")


class Keyboard:
    """Keys as a hand presses them."""

    def __init__(self, page: Page):
        self._page = page

    def _do(self, *actions: tuple[str, str]) -> None:
        keys = [{"type": kind, "value": KEYS.get(key, key)} for kind, key in actions]
        source = {"type": "key", "id": "keys", "actions": keys}
        self._page.call("input.performActions", actions=[source])

    def down(self, key: str) -> None:
        self._do(("keyDown", key))

    def up(self, key: str) -> None:
        self._do(("keyUp", key))

    def press(self, key: str) -> None:
        self._do(("keyDown", key), ("keyUp", key))

    def type(self, text: str) -> None:
        self._do(*[(kind, key) for key in text for kind in ("keyDown", "keyUp")])
