from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from simulation.crowd import Crowd, Seat, device_name
from simulation.executor import InlineExecutor
from simulation.jobs import Jobs
from simulation.pool import Pool
from simulation.run import Clock, simulate
from tests.simulation.orders import echoes, order
from wire.messages.reports import DeviceState, encode_state
from wire.transport import Hub, MemoryTransport


def crowd(tmp_path, *settings, devices=4):
    recipe = order(tmp_path, *settings).recipe
    return Crowd(recipe, devices, tmp_path, "", Hub(), Jobs(InlineExecutor()), Clock(), 1 << 20)


def test_a_device_is_configured_as_in_the_demo(tmp_path):
    made = crowd(tmp_path, "split.rule=dirichlet:0.5", "split.seed=3", "split.examples=100", devices=12).config(11)
    data = made.data
    assert (made.device, data.part, data.parts, data.split) == ("device-11", 11, 12, "dirichlet:0.5")
    assert (data.seed, data.examples, made.durable) == (3, 100, False)


def test_personal_settings_are_mixed_over_the_devices(tmp_path):
    mix = "personal.mix=[{ centres = 0 }, { centres = 4 }]"
    made = crowd(tmp_path, mix, "personal.skip=[]")
    assert [made.config(at).personal for at in range(3)] == [{"centres": 0}, {"centres": 4}, {"centres": 0}]


def test_nobody_is_there_but_who_was_invited_and_nothing_is_left_behind(tmp_path):
    most, handles, members = [0], [], []

    def watch(world):
        most[0] = max(most[0], len(world.crowd.live))
        if not world.crowd.live:
            handles.append(len(list(Path("/proc/self/fd").iterdir())))
            members.append(len(world.crowd.hub.members))

    simulate(echoes(tmp_path, "rounds=6", "devices.goal=3", devices=60), watch)
    assert most[0] <= 2 * 3
    assert members[-1] == members[0] == 2
    assert handles[-1] <= handles[0]
    assert len(list((tmp_path / "devices").glob("device-*"))) <= 18


def test_equal_files_are_kept_once(tmp_path):
    simulate(echoes(tmp_path, "rounds=2"))
    stores = list((tmp_path / "devices").glob("device-*/store/*"))
    copies = Counter(path.name for path in stores)
    assert set(copies.values()) == {4}
    assert len({path.stat().st_ino for path in stores}) == len(copies)
    assert {path.name for path in (tmp_path / "devices" / "pool").iterdir()} == set(copies)


def test_the_pool_forgets_what_nobody_holds(tmp_path):
    stores = [tmp_path / "a", tmp_path / "b"]
    pool = Pool(tmp_path / "pool")
    for store in stores:
        store.mkdir()
        (store / ("0" * 64)).write_bytes(b"one")
        (store / f"{'1' * 64}.part").write_bytes(b"half")
        pool.share(store)
    assert [path.name for path in pool.folder.iterdir()] == ["0" * 64]
    assert len({(store / ("0" * 64)).stat().st_ino for store in stores}) == 1
    for store in stores:
        pool.sweep()
        assert [path.name for path in pool.folder.iterdir()] == ["0" * 64]
        (store / ("0" * 64)).unlink()
    pool.sweep()
    assert not list(pool.folder.iterdir())
    (stores[0] / ("0" * 64)).write_bytes(b"one")
    pool.share(stores[0])
    assert [path.name for path in pool.folder.iterdir()] == ["0" * 64]


@pytest.fixture
def seat():
    hub = Hub()
    listener = MemoryTransport(hub)
    listener.subscribe("fl/1/sim/d/+/state", "fl/1/sim/d/+/info")
    listener.inbox.clear()
    return Seat(MemoryTransport(hub), Clock()), listener


def test_a_device_says_only_what_is_new(seat):
    place, listener = seat
    topic = "fl/1/sim/d/device-00/state"
    place.publish("fl/1/sim/d/device-00/info", b"whatever", retain=True)
    place.publish(topic, encode_state(DeviceState("ready", 7)), retain=True)
    assert not listener.inbox
    for state in (DeviceState("idle", 8, code="E-HOT"), DeviceState("idle", 9, code="E-HOT"), DeviceState("ready", 9)):
        place.publish(topic, encode_state(state), retain=True)
    assert [message.payload for message in listener.inbox] == [
        encode_state(DeviceState("idle", 8, code="E-HOT")),
        encode_state(DeviceState("ready", 9)),
    ]


def test_a_seat_notes_how_long_its_owner_would_wait(seat):
    place, _ = seat
    place.clock.now_s = 5.0
    place.receive(2.5)
    assert place.due_s == 7.5


def test_names_are_those_of_the_demo():
    assert [device_name(at) for at in (0, 12, 1234)] == ["device-00", "device-12", "device-1234"]
