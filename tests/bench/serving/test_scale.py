"""A simulated day: nobody is lost on the way, and more servers run where more people come."""

import pytest

from duplex.bench.serving.scale import DAY_S, Day, Fleet, Server, main, rate, simulate


def test_everybody_is_placed_or_refused():
    found = simulate(Day(minutes=2_000, places=4, rush=10))
    assert found.came > 300
    assert len(found.waits) + found.refused == found.came
    assert found.talked_s <= found.server_s * 4


def test_too_few_servers_refuse_and_enough_do_not():
    few = simulate(Day(minutes=10_000, places=4, least=1, most=2))
    assert few.refused > 0.2 * few.came and max(few.waits) <= 120 + 1
    assert few.most_servers <= 2 + 1  # one may be draining
    enough = simulate(Day(minutes=10_000, places=4, least=20, most=20))
    assert enough.refused == 0 and enough.server_s >= 20 * DAY_S


def test_the_day_swings_tenfold_and_has_its_minutes():
    day = Day(minutes=10_000, places=8)
    rates = [rate(day, at) for at in range(0, DAY_S, 60)]
    assert max(rates) / min(rates) == pytest.approx(10, rel=1e-3)
    assert sum(rates) * 60 * day.mean_s / 60 == pytest.approx(10_000, rel=1e-3)


def test_the_emptiest_goes_first_and_only_when_it_is_empty():
    day = Day(minutes=0, places=4, least=1, quiet_s=0)
    fleet = Fleet(day)
    fleet.servers = [Server(0.0, taken=3), Server(0.0, taken=1)]
    fleet.look(0.0)
    assert not fleet.servers[0].is_draining
    kept = [server.taken for server in fleet.servers]
    assert kept == [3, 1]
    fleet.servers[0].taken = 2
    fleet.look(60.0)
    assert fleet.servers[1].is_draining
    fleet.come(61.0, 10.0, [])
    assert fleet.servers[0].taken == 3 and fleet.servers[1].taken == 1
    fleet.end(fleet.servers[1])
    fleet.look(75.0)
    assert len(fleet.servers) == 1


def test_the_table_says_what_it_costs(capsys):
    main(["--minutes", "100", "--places", "4", "--price", "2"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and "| 48 |" not in lines[2] and lines[3].startswith("| 100, rush 10 |")
    assert float(lines[2].split("|")[7].split(";")[0]) == pytest.approx(2 * 2 * 24, rel=0.02)
