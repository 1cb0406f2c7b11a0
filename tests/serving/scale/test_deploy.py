"""The manifest against the server: its commands, paths, ports and figures are ours.

Against Kubernetes' own schema: `kubernetes-validate --strict` of the package with this name.
"""

import http.server
import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml

from duplex import cli
from duplex.serving.http import operation
from duplex.serving.metrics import SERVER
from duplex.serving.scale import pod
from tests.helpers import running_server
from tests.tiny_agent import TinyAgent

MANIFEST = Path(operation.__file__).parents[1] / "deploy/kubernetes.yaml"


@pytest.fixture(scope="module")
def found() -> dict[tuple[str, str], dict]:
    """By kind and name."""
    parts = list(yaml.safe_load_all(MANIFEST.read_text(encoding="utf-8")))
    return {(part["kind"], part["metadata"]["name"]): part for part in parts}


def container(found, deployment: str) -> dict:
    return found["Deployment", deployment]["spec"]["template"]["spec"]["containers"][0]


def test_commands_ports_and_probes_are_the_servers(found):
    for deployment in ("duplex", "duplex-director"):
        one = container(found, deployment)
        args = cli._parser().parse_args(one["args"])
        [port] = one["ports"]
        assert port["containerPort"] == args.port and port["name"] == "http"
        probes = [probe for name, probe in one.items() if name.endswith("Probe")]
        assert len(probes) >= 2
        for probe in probes:
            assert (
                probe["httpGet"]["port"] == "http" and probe["httpGet"]["path"] in operation.PATHS
            )
    service = found["Service", "duplex-replicas"]["spec"]
    assert (
        f"dns:duplex-replicas:{service['ports'][0]['port']}"
        in container(found, "duplex-director")["args"]
    )
    # Else the sessions of a full server would count as gone.
    assert service["publishNotReadyAddresses"] and service["clusterIP"] == "None"


def test_no_session_is_cut_by_scaling(found):
    spec = found["Deployment", "duplex"]["spec"]["template"]["spec"]
    args = cli._parser().parse_args(container(found, "duplex")["args"])
    assert spec["terminationGracePeriodSeconds"] >= args.longest + args.grace
    hook = container(found, "duplex")["lifecycle"]["preStop"]["exec"]["command"]
    cost = spec["containers"][1]["command"]
    assert hook[:3] == cost[:3] == ["python", "-m", pod.__name__]
    assert [hook[3], cost[3]] == ["leave", "cost"]
    role = found["Role", "duplex"]["rules"]
    assert role == [{"apiGroups": [""], "resources": ["pods"], "verbs": ["patch"]}]


def test_it_scales_on_places_taken(found):
    scaler = found["HorizontalPodAutoscaler", "duplex"]["spec"]
    [metric] = scaler["metrics"]
    assert metric["pods"]["metric"]["name"] == SERVER["sessions"][1]
    args = cli._parser().parse_args(container(found, "duplex")["args"])
    assert 0.5 < int(metric["pods"]["target"]["averageValue"]) / args.max_sessions < 1
    assert scaler["scaleTargetRef"]["name"] == "duplex"


def test_leaving_waits_until_nobody_talks(monkeypatch):
    monkeypatch.delenv("DUPLEX_API_KEY", raising=False)
    answers = [{"sessions": 2}, {"sessions": 1}, {"sessions": 0}]
    asked = []

    def ask(pod, method, path):
        asked.append((method, path))
        return answers[len(asked) - 1]

    monkeypatch.setattr(pod, "ask", ask)
    pod.leave(pod.Pod(look_s=0))
    assert asked == [("POST", "/drain"), ("GET", "/v1/stats"), ("GET", "/v1/stats")]


def test_leaving_drains_a_real_server_and_a_dead_one_holds_nobody(capsys):
    with running_server(TinyAgent(1)) as url:
        here = pod.Pod(server=url.replace("ws", "http").removesuffix("/v1/duplex"))
        pod.leave(here)
        assert pod.ask(here, "GET", "/v1/stats")["state"] == "draining"
    pod.leave(here)
    assert "does not answer" in capsys.readouterr().err


def test_cost_is_written_to_this_pod(tmp_path, monkeypatch):
    written = []

    class Api(http.server.BaseHTTPRequestHandler):
        def do_PATCH(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            written.append((self.path, self.headers["Authorization"], json.loads(body)))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    (tmp_path / "namespace").write_text("voice")
    (tmp_path / "token").write_text("t0ken")
    monkeypatch.setenv("POD_NAME", "duplex-7")
    with http.server.HTTPServer(("127.0.0.1", 0), Api) as server:
        threading.Thread(target=server.handle_request).start()
        url = f"http://127.0.0.1:{server.server_port}"
        pod.write_cost(pod.Pod(account=tmp_path, kubernetes=url), 5)
    annotations = {"controller.kubernetes.io/pod-deletion-cost": "5"}
    assert written == [
        (
            "/api/v1/namespaces/voice/pods/duplex-7",
            "Bearer t0ken",
            {"metadata": {"annotations": annotations}},
        )
    ]


@pytest.mark.slow  # starts another process
def test_the_process_beside_the_server_ends_when_it_is_told_to():
    """As a container's first process it would otherwise stay for the whole hour of grace."""
    command = [sys.executable, "-m", pod.__name__, "cost"]
    beside = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert "could not be written" in beside.stderr.readline()
    beside.terminate()
    assert beside.wait(60) == 0
