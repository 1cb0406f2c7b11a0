"""What OpenAI's API answers over HTTP, as far as it is about spoken sessions. No sockets here.

GET  /v1/models                    the one model
POST /v1/realtime/client_secrets   a key for one session's configuration, for a browser
POST /v1/realtime/sessions, /v1/realtime/transcription_sessions   the same, as the beta had it
"""

import http
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from duplex.serving.openai import beta
from duplex.serving.openai import config as openai_config
from duplex.serving.openai.events import Refused, is_whole, object_at

MODELS = "/v1/models"
CLIENT_SECRETS = "/v1/realtime/client_secrets"
# Of the beta: where its keys were made, and for which kind of session.
BETA_SECRETS = {
    "/v1/realtime/sessions": "realtime",
    "/v1/realtime/transcription_sessions": "transcription",
}
MODEL = {"id": "duplex", "object": "model", "created": 0, "owned_by": "duplex"}
# Seconds that a client's key is valid: at least and at most.
SHORTEST_S = 10
LONGEST_S = 7_200

# Where sessions are that this server speaks over websockets alone.
SESSIONS = {"/v1/realtime": "/v1/realtime", "/v1/live": "/v1/live/sessions"}

Answer = tuple[http.HTTPStatus, dict]


@dataclass(frozen=True)
class ClientSecret:
    """A key that was given to a client, and what its sessions begin with."""

    expires_at: float
    session: dict


class ClientSecrets:
    """Keys for clients, each valid for a while; the oldest go beyond `max_secrets`."""

    def __init__(self, now: Callable[[], float], max_secrets: int = 1_000):
        """now: seconds since 1970."""
        self._now = now
        self._max_secrets = max_secrets
        self._secrets: dict[str, ClientSecret] = {}

    def find(self, keys: list[str]) -> ClientSecret | None:
        """The one of these keys that is valid."""
        for key in keys:
            secret = self._secrets.get(key)
            if secret and secret.expires_at > self._now():
                return secret
        return None

    def create(self, body: bytes) -> Answer:
        """A new key, as the API asks for it and answers."""
        try:
            wanted = _object(body)
            usual_s = 600
            seconds = object_at(wanted, "expires_after").get("seconds", usual_s)
            if not is_whole(seconds, SHORTEST_S, LONGEST_S):
                text = f"seconds is a whole number from {SHORTEST_S} to {LONGEST_S}"
                raise Refused("invalid_value", text, "expires_after.seconds")
            session = object_at(wanted, "session")
            is_transcription = session.get("type") == "transcription"
            config = openai_config.updated(openai_config.initial(is_transcription), session)
        except Refused as refused:
            return http.HTTPStatus.BAD_REQUEST, error(refused.code, str(refused), refused.param)
        value = f"ek_{secrets.token_hex(16)}"
        expires_at = self._now() + int(seconds)
        self._secrets[value] = ClientSecret(expires_at, session)
        if len(self._secrets) > self._max_secrets:
            del self._secrets[next(iter(self._secrets))]
        report = openai_config.report(config, f"sess_{secrets.token_hex(6)}")
        told = {"value": value, "expires_at": int(expires_at), "session": report}
        return http.HTTPStatus.OK, told


def is_api(path: str) -> bool:
    """Whether a path belongs to the API, apart from its websockets."""
    return path in SESSIONS or path.startswith((MODELS, *(f"{begin}/" for begin in SESSIONS)))


def answer(method: str, path: str, body: bytes, client_secrets: ClientSecrets) -> Answer | None:
    """Status and object of a path; None where it is not of this API."""
    if path in (CLIENT_SECRETS, *BETA_SECRETS):
        if method != "POST":
            return http.HTTPStatus.METHOD_NOT_ALLOWED, error("method", "a key is made by POST")
        if path == CLIENT_SECRETS:
            return client_secrets.create(body)
        return _create_as_in_beta(body, BETA_SECRETS[path], client_secrets)
    if path == MODELS:
        return http.HTTPStatus.OK, {"object": "list", "data": [MODEL]}
    if path.startswith(f"{MODELS}/"):
        return http.HTTPStatus.OK, {**MODEL, "id": path.removeprefix(f"{MODELS}/")}
    for begin, sessions in SESSIONS.items():
        if path == begin or path.startswith(f"{begin}/"):
            text = f"this is not offered: sessions are websockets at {sessions}, of no call"
            return http.HTTPStatus.NOT_FOUND, error("unsupported", text)
    return None


def _create_as_in_beta(body: bytes, kind: str, client_secrets: ClientSecrets) -> Answer:
    """A new key, where the body is the session and the answer is the session with the key."""
    try:
        session = _object(body) | {"type": kind}
    except Refused as refused:
        return http.HTTPStatus.BAD_REQUEST, error(refused.code, str(refused))
    status, told = client_secrets.create(json.dumps({"session": session}).encode())
    if status != http.HTTPStatus.OK:
        return status, told
    secret = {"value": told["value"], "expires_at": told["expires_at"]}
    return status, beta.session(told["session"]) | {"client_secret": secret}


def error(code: str, text: str, param: str | None = None) -> dict:
    """An error of the API."""
    kind = "invalid_request_error"
    return {"error": {"type": kind, "code": code, "message": text, "param": param}}


def _object(body: bytes) -> dict:
    """The JSON object of a body; an empty body is an empty object. Raises Refused."""
    try:
        found = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Refused("invalid_json", "the body is a JSON object")
    return found
