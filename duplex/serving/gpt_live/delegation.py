"""Delegation to a backend, which here is the mind that thinks for the agent: it calls functions.

What the API's clients know as a response of a backend is one round of calls. The client queues the
results and asks to go on once all of them are there; then the agent speaks of them.
"""

from duplex.audio import TICK_MS
from duplex.events import ToolCall
from duplex.serving.commands import GiveResult, SetTools
from duplex.serving.openai.config import MAX_TEXT
from duplex.serving.openai.events import Refused, event, is_text, new_id, object_at
from duplex.serving.openai.items import call
from duplex.serving.tools import read_choice, read_tools

KINDS = ("client", "responses", "decisions")
WHERE = "session.delegation"


class Delegation:
    """Of one session. takes_tools: whether there is a mind that can call functions."""

    def __init__(self, takes_tools: bool):
        self._takes_tools = takes_tools
        # Whether the client has chosen functions of its own, and which.
        self.is_in_force = False
        self._tools = SetTools(())
        # The round of calls: its id, calls whose results are to come, and the results queued.
        self._id = ""
        self._open: set[str] = set()
        self._results: list[GiveResult] = []

    def read(self, session: dict) -> SetTools | None:
        """The command that a session's delegation comes to, if any. Raises Refused."""
        wanted = object_at(session, "delegation")
        if wanted and wanted.get("type") not in KINDS:
            raise Refused("invalid_value", f"type is one of {', '.join(KINDS)}", f"{WHERE}.type")
        if wanted.get("type") != "responses" or not self._takes_tools:
            return None
        backend = object_at(wanted, "responses")
        try:
            offered = self._tools.tools
            if backend.get("tools") is not None:
                offered = read_tools(backend["tools"])
            choice = self._tools.choice
            if backend.get("tool_choice") is not None:
                choice = read_choice(backend["tool_choice"], offered)
        except (ValueError, AttributeError) as error:
            raise Refused("invalid_value", str(error), f"{WHERE}.responses.tools") from None
        self.is_in_force = True
        self._tools = SetTools(offered, choice)
        return self._tools

    def is_missed(self, session: dict) -> bool:
        """Whether a client counts on a backend or on triggers that there are not."""
        kind = (session.get("delegation") or {}).get("type")
        has_none = kind == "decisions" or kind == "responses" and not self.is_in_force
        return has_none or bool(session.get("triggers"))

    def report(self) -> dict | None:
        """As clients see it."""
        if not self.is_in_force:
            return None
        tools = [{"type": "function", **tool} for tool in self._tools.tools]
        choice = self._tools.choice
        if choice not in ("auto", "none", "required"):
            choice = {"type": "function", "name": choice}
        backend = {"model": "duplex", "tools": tools, "tool_choice": choice}
        return {"type": "responses", "responses": backend}

    def called(self, calls: list[ToolCall]) -> list[str]:
        """The events of a round of calls, all of one tick."""
        if not calls or not self.is_in_force:
            return []
        self._id = new_id("deleg")
        response = new_id("resp")
        about = {"id": self._id, "type": "delegation", "target": "responses"}
        offset_ms = calls[0].tick * TICK_MS
        created = event(
            "session.delegation.created",
            offset_ms=offset_ms,
            delegation={**about, "response_id": response},
        )
        messages = [created, self._snapshot("created", response)]
        for number, told in enumerate(calls):
            self._open.add(told.call_id)
            item = call(told.call_id, told.name, told.arguments)
            del item["object"]
            done = {"type": "response.output_item.done", "output_index": number, "item": item}
            messages.append(self._wrapped(done))
        return [*messages, self._snapshot("completed", response)]

    def queue(self, fields: dict) -> None:
        """A result waits until the client wants to go on. Raises Refused."""
        self._check()
        item = object_at(fields, "item")
        if item.get("type") != "function_call_output":
            text = "only results of calls are taken; say the rest by session.thinking.append"
            raise Refused("unsupported", text, "item.type")
        call_id = item.get("call_id")
        if not isinstance(call_id, str) or call_id not in self._open:
            text = f"there is no call {call_id!r:.80} whose result is to come"
            raise Refused("invalid_value", text, "item.call_id")
        if not is_text(item.get("output"), 0, MAX_TEXT):
            text = f"output is a text of at most {MAX_TEXT} characters"
            raise Refused("invalid_value", text, "item.output")
        self._open.discard(call_id)
        self._results.append(GiveResult(call_id, item["output"]))

    def go_on(self) -> tuple[list[GiveResult], list[str]]:
        """The results that the agent gets, and the round that follows. Raises Refused."""
        self._check()
        if self._open or not self._results:
            text = f"results of {len(self._open)} calls are to come"
            raise Refused("function_call_outputs_required", text)
        results, self._results = self._results, []
        response = new_id("resp")
        return results, [self._snapshot(kind, response) for kind in ("created", "completed")]

    def _check(self) -> None:
        if not self.is_in_force:
            text = "nothing is delegated: this agent answers by itself, without functions"
            raise Refused("unsupported", text, "type")

    def _snapshot(self, kind: str, response: str) -> str:
        status = "completed" if kind == "completed" else "in_progress"
        shown = {"id": response, "object": "response", "status": status, "model": "duplex"}
        return self._wrapped({"type": f"response.{kind}", "response": {**shown, "output": []}})

    def _wrapped(self, inner: dict) -> str:
        return event("response.event", delegation_id=self._id, event=inner)
