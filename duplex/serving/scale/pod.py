"""A server's pod in Kubernetes: it leaves when its last session has, and the emptier leaves first.

    python -m duplex.serving.scale.pod leave    preStop: drain, then wait until nobody talks
    python -m duplex.serving.scale.pod cost     beside the server: keep pod-deletion-cost = sessions

Both speak to the server of this pod, http://localhost:8765, with the key $DUPLEX_API_KEY. `cost`
writes the annotation of the pod $POD_NAME, for which its service account must be allowed to patch
pods. See duplex/serving/deploy/kubernetes.yaml, which uses both.
"""

import argparse
import json
import os
import signal
import ssl
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

COST = "controller.kubernetes.io/pod-deletion-cost"


@dataclass(frozen=True)
class Pod:
    """Where this pod's server is, and Kubernetes' own."""

    server: str = "http://localhost:8765"
    # Seconds from one look to the next.
    look_s: float = 10.0
    # Where Kubernetes puts a service account's token, certificate and namespace.
    account: Path = Path("/var/run/secrets/kubernetes.io/serviceaccount")
    kubernetes: str = "https://kubernetes.default.svc"


def ask(pod: Pod, method: str, path: str) -> dict:
    """What the server answers. Raises OSError where it does not."""
    key = os.environ.get("DUPLEX_API_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    request = urllib.request.Request(pod.server + path, headers=headers, method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=10) as answer:
        return json.load(answer)


def leave(pod: Pod) -> None:
    """Drain, and return when no session is left, or no server."""
    try:
        left = ask(pod, "POST", "/drain")["sessions"]
        while left:
            time.sleep(pod.look_s)
            left = ask(pod, "GET", "/v1/stats")["sessions"]
    except OSError as error:
        print(f"the server does not answer ({error}); nothing is left to wait for", file=sys.stderr)


def write_cost(pod: Pod, sessions: int) -> None:
    """Tell Kubernetes what deleting this pod would cost. Raises OSError."""
    namespace = (pod.account / "namespace").read_text().strip()
    url = f"{pod.kubernetes}/api/v1/namespaces/{namespace}/pods/{os.environ['POD_NAME']}"
    patch = {"metadata": {"annotations": {COST: str(sessions)}}}
    headers = {
        "Authorization": f"Bearer {(pod.account / 'token').read_text().strip()}",
        "Content-Type": "application/merge-patch+json",
    }
    request = urllib.request.Request(url, json.dumps(patch).encode(), headers, method="PATCH")
    is_tls = url.startswith("https")
    context = ssl.create_default_context(cafile=pod.account / "ca.crt") if is_tls else None
    urllib.request.urlopen(request, timeout=10, context=context).close()


def keep_cost(pod: Pod) -> None:
    """Write the cost whenever it has changed, for ever."""
    written = None
    while True:
        try:
            sessions = ask(pod, "GET", "/v1/stats")["sessions"]
            if sessions != written:
                write_cost(pod, sessions)
                written = sessions
        except OSError as error:
            # The server may still be loading, or Kubernetes be busy: the next look is soon.
            print(f"the cost could not be written ({error})", file=sys.stderr, flush=True)
        time.sleep(pod.look_s)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["leave", "cost"])
    # The first process of a container has no handler of its own: it would stay for the whole grace.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    {"leave": leave, "cost": keep_cost}[parser.parse_args(arguments).what](Pod())


if __name__ == "__main__":
    main()
