"""What a hop costs, measured at a real server."""

from duplex.bench.serving.hop import measure
from duplex.serving.native import messages as native
from tests.helpers import drive_server
from tests.tiny_agent import TinyAgent


def test_every_way_is_asked_in_every_round():
    async def test(url, engine):
        base = url.removesuffix(native.PATH)
        times = await measure([base, base], rounds=3, pause_s=0)
        assert times.shape == (3, 2) and (times > 0).all()

    drive_server(test, TinyAgent(2))
