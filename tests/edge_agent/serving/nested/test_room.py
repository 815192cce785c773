"""Portions of bundles and the room on the disk: counted before, and given back when it runs out."""

from __future__ import annotations

from dataclasses import replace

from edge_agent.serving import install, offers
from tests.edge_agent.serving.stage.bundles import nested, part, policy
from wire.pieces.assembly import Assembly


def free_bytes(one, monkeypatch, free):
    """Sets what the disk has free beyond the floor, as it is before anything is fetched."""
    real = install.read_board
    floor = one.agent.config.limits.min_free_disk_mb * 1e6
    monkeypatch.setattr(install, "read_board", lambda path: replace(real(path), free_disk_bytes=floor + free))


def test_the_portion_counts_on_the_disk(side, monkeypatch):
    one, made = side(model=policy(8)), nested()
    manifest = made.manifest(one.publisher, 1)
    file = 2 * (manifest.variants[0].size + manifest.golden_bytes)
    free_bytes(one, monkeypatch, file - 1)
    report = one.bring(manifest)
    assert (report.phase, report.code, one.live) == ("refused", "E-DISK-SPACE", 0)
    assert made.digest not in one.asked
    free_bytes(one, monkeypatch, file + made.need[8])
    one.now_s += offers._AGAIN_S
    assert one.until("healthy").variant == "float-8"
    assert part(one).stat().st_size == made.need[8]


def test_where_the_portion_has_no_room_the_file_is_fetched(side, monkeypatch):
    one, made = side(model=policy(8)), nested()
    manifest = made.manifest(one.publisher, 1)
    free_bytes(one, monkeypatch, 2 * (manifest.variants[0].size + manifest.golden_bytes) + made.need[8] - 1)
    assert one.bring(manifest).variant == "float-8"
    assert made.digest not in one.asked
    assert not part(one).exists()


def test_a_disk_that_fills_while_the_portion_comes(side, monkeypatch):
    one, made = side(model=policy(8)), nested()

    def full(self, chunk):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        one.offer(made.manifest(one.publisher, 1))
        one.wait(lambda: part(one).exists())
        patch.setattr(Assembly, "put", full)
        report = one.until("refused")
    assert (report.code, part(one).exists()) == ("E-DISK-SPACE", False)
    one.now_s += offers._AGAIN_S
    assert one.until("healthy").variant == "float-8"
