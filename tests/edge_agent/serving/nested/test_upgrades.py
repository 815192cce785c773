"""Bundles on the device: only the bytes that a width needs are fetched, once, and only what is cut is believed."""

from __future__ import annotations

from hashlib import sha256

import pytest

from edge_agent.serving.probe import CHILD
from edge_agent.serving.slots import read_pointer, read_slot
from tests.edge_agent.serving.stage.bundles import nested, part, policy, serving, spans
from tests.edge_agent.serving.stage.files import file_bytes, outputs_of
from wire.pieces.chunks import Chunk


def test_only_the_prefix_is_fetched_and_the_file_is_cut(side):
    one, made = side(model=policy(4)), nested()
    one.serving.probe.module = CHILD
    manifest = made.manifest(one.publisher, 1)
    assert one.bring(manifest).variant == "float-4"
    assert serving(one) == made.files[4]
    assert spans(one, made.digest) == [((0, made.need[4]),)]
    assert not {variant.digest for variant in manifest.variants} & set(one.asked)
    known = len(one.publisher.signed(manifest)) + manifest.golden_bytes
    assert one.serving.fetched_bytes == made.need[4] + known
    assert part(one).stat().st_size == made.need[4]


def grown(side) -> None:
    """Starts the agent of a board that may take 8 bits from now on, and waits until it serves them."""
    side.changes["model"] = policy(8)
    side.start()
    side.wait(lambda: (side.last.variant, side.last.phase) == ("float-8", "healthy"))


def test_eight_bits_after_four_fetch_the_rest_and_no_more(four):
    made = nested()
    grown(four)
    assert serving(four) == made.files[8]
    assert spans(four, made.digest) == [((0, made.need[4]),), ((made.need[4], made.need[8]),)]
    assert four.sent[made.digest] == made.need[8]
    assert four.serving.fetched_bytes == made.need[8] - made.need[4]


def test_a_later_version_of_the_same_content_fetches_nothing_of_the_bundle(four):
    made = nested()
    assert four.bring(made.manifest(four.publisher, 2)).variant == "float-4"
    assert four.bring(made.manifest(four.publisher, 3, plain=(6,))).variant == "float-4"
    assert four.sent[made.digest] == made.need[4]
    grown(four)
    assert four.last.healthy == 3
    assert four.sent[made.digest] == made.need[8]


def test_fewer_bits_than_are_here_fetch_nothing(side):
    one, made = side(model=policy(8)), nested()
    one.bring(made.manifest(one.publisher, 1))
    sent = one.sent[made.digest]
    one.changes["model"] = policy(6)
    one.start()
    assert one.until("healthy").variant == "float-8"
    assert one.until("healthy").variant == "float-6"
    assert (one.sent[made.digest], sent) == (made.need[8], made.need[8])
    assert serving(one) == made.files[6]
    assert part(one).stat().st_size == made.need[8]


def test_all_widths_are_measured_from_one_fetch(four):
    made = nested()
    four.changes["model"] = policy(8)
    (four.models / "bench.wish").touch()
    four.start()
    four.until("healthy")
    report = four.until("healthy")
    assert [found.variant for found in report.found if found.latency_ms] == ["float-8", "float-6", "float-4"]
    assert four.sent[made.digest] == made.need[8]
    assert set(four.asked) & {variant.digest for variant in made.manifest(four.publisher, 9).variants} == set()


def test_an_agent_that_is_gone_between_pieces_asks_for_what_is_missing(side):
    one, made, kills, kept = side(model=policy(8)), nested(), 0, 0
    one.offer(made.manifest(one.publisher, 1))

    def held():
        return part(one).stat().st_size if part(one).exists() else 0

    while kept + 5000 < made.need[8]:
        one.wait(lambda least=kept + 5000: held() >= least)
        kept, kills = held(), kills + 1
        one.start()
    assert kills > 1
    assert one.until("healthy").variant == "float-8"
    asked = [each[0] for each in spans(one, made.digest)]
    assert [end for _, end in asked] == [made.need[8]] * (kills + 1)
    starts = [start for start, _ in asked]
    assert starts == sorted({0, *starts})
    assert asked[-1][0] == kept, "what was here is not fetched again"
    assert serving(one) == made.files[8]


def test_a_cut_link_costs_what_was_on_its_way(four):
    made = nested()
    four.changes["model"] = policy(8)
    four.start()
    four.wait(lambda: part(four).stat().st_size > made.need[4])
    held = part(four).stat().st_size
    four.serving.cut()
    four.serving.greet()
    four.wait(lambda: (four.last.variant, four.last.phase) == ("float-8", "healthy"))
    assert spans(four, made.digest)[1:] == [((made.need[4], made.need[8]),), ((held, made.need[8]),)]
    assert serving(four) == made.files[8]


def spoiled(made, place) -> bytes:
    wrong = bytearray(made.bundle)
    wrong[place] ^= 1
    return bytes(wrong)


def test_wrong_bytes_in_the_prefix_are_fetched_anew_and_then_the_file_itself_is(four):
    made = nested()
    four.changes["model"] = policy(8)
    four.spoil[made.digest] = spoiled(made, made.need[6])
    four.start()
    four.wait(lambda: (four.last.variant, four.last.phase) == ("float-8", "healthy"))
    assert serving(four) == made.files[8]
    assert not part(four).exists()
    assert spans(four, made.digest)[1:] == [((made.need[4], made.need[8]),), ((0, made.need[8]),)]
    assert sha256(made.files[8]).hexdigest() in four.asked


@pytest.mark.parametrize("place", [0, 5, 100])
def test_wrong_bytes_in_the_header_are_dropped(side, place):
    one, made = side(model=policy(4)), nested()
    one.spoil[made.digest] = spoiled(made, place)
    report = one.bring(made.manifest(one.publisher, 1))
    assert (report.phase, report.variant, one.live) == ("healthy", "float-4", 1)
    assert serving(one) == made.files[4]
    assert not part(one).exists()


def test_a_bundle_and_a_file_that_are_both_wrong_are_refused(side):
    one, made = side(model=policy(4)), nested()
    file = sha256(made.files[4]).hexdigest()
    one.spoil[made.digest], one.spoil[file] = spoiled(made, 100), bytes(len(made.files[4]))
    report = one.bring(made.manifest(one.publisher, 1))
    assert (report.phase, report.code, one.live) == ("refused", "E-BLOB", 0)
    assert not part(one).exists()


def test_a_part_that_a_power_cut_tore_is_fetched_again(four):
    made = nested()
    torn = bytearray(part(four).read_bytes())
    torn[made.need[4] - 200 :] = bytes(200)
    part(four).write_bytes(torn)
    grown(four)
    assert spans(four, made.digest)[1:] == [((made.need[4], made.need[8]),), ((0, made.need[8]),)]


def test_a_bundle_that_is_shorter_than_the_prefix(side):
    one, made = side(model=policy(8)), nested()
    report = one.bring(made.manifest(one.publisher, 1, bundle=made.bundle[:-1000]))
    assert (report.phase, report.code, one.live) == ("refused", "E-BLOB", 0)
    assert f"a payload of {made.need[8] - 1000} bytes, {made.need[8]} of it are wanted" in report.reason


def test_a_prefix_that_is_too_short_for_its_width(side):
    one, made = side(model=policy(8)), nested()
    report = one.bring(made.manifest(one.publisher, 1, longer=-1))
    assert (report.phase, report.variant, serving(one)) == ("healthy", "float-8", made.files[8])


def test_a_bundle_of_other_files_gives_nothing(side):
    one, other = side(model=policy(8)), nested(seed=4)
    report = one.bring(nested().manifest(one.publisher, 1, bundle=other.bundle))
    assert (report.phase, report.code, one.live) == ("refused", "E-BLOB", 0)
    assert not part(one, other.digest).exists()


def test_bundle_and_plain_variants_in_one_manifest(side):
    one, made = side(model=policy(8)), nested()
    manifest = made.manifest(one.publisher, 1, plain=(6,))
    (one.models).mkdir(parents=True)
    (one.models / "bench.wish").touch()
    report = one.bring(manifest)
    assert report.variant == "float-8"
    assert [found.variant for found in report.found if found.latency_ms] == ["float-8", "float-6", "float-4"]
    digests = {variant.name: variant.digest for variant in manifest.variants}
    assert {name for name, digest in digests.items() if digest in one.asked} == {"float-6"}
    assert one.sent[made.digest] == made.need[8]


def test_the_part_goes_when_no_manifest_in_use_names_it(four):
    made = nested()
    four.bring(four.publisher.manifest(2, {"float-4": file_bytes()}))
    assert four.last.healthy == 2
    assert not part(four).exists()
    four.bring(made.manifest(four.publisher, 3))
    assert part(four).stat().st_size == made.need[4]
    names = {path.name.split(".")[0] for path in (four.models / "store").iterdir()}
    slot = read_slot(four.models, read_pointer(four.models).serving)
    assert names >= {made.digest, slot.facts["manifest"]}
    assert len(names) == 3


def test_pieces_that_another_device_asked_for_are_not_counted_and_not_kept(four):
    """They come on the same topic: what is here already, and what lies past the portion."""
    made = nested()
    four.changes["model"] = policy(6)
    four.start()
    four.until("fetching")
    four.wait(lambda: four.serving.installation.fetch and made.digest in four.serving.installation.fetch.wanted)
    fetch = four.serving.installation.fetch
    total, before = len(made.bundle), fetch.fetched_bytes
    for start in (0, 10, made.need[6], made.need[6] + 500):
        fetch.take(Chunk(made.digest, total, start, memoryview(made.bundle)[start : start + 400]), 0.0)
    assert fetch.fetched_bytes == before
    start = made.need[6] - 100
    fetch.take(Chunk(made.digest, total, start, memoryview(made.bundle)[start : start + 400]), 0.0)
    assert fetch.fetched_bytes == before + 100
    assert part(four).stat().st_size == made.need[6]


@pytest.mark.parametrize("death", ["SIGKILL", "SIGSEGV"])
def test_a_child_that_dies_of_cutting_says_nothing_of_the_variant(four, monkeypatch, death):
    made = nested()
    four.changes["model"] = policy(8)
    four.start()
    monkeypatch.setenv("BITFLEET_TEST_DEATH", death)
    four.serving.probe.module = "tests.edge_agent.serving.stage.failing_cut"
    four.wait(lambda: (four.last.variant, four.last.phase) == ("float-8", "healthy"))
    assert serving(four) == made.files[8]
    assert all("E-" not in found.why for found in four.last.found)


def test_the_bundle_of_what_serves_outlasts_an_offer_that_is_refused(four):
    made = nested()
    wrong = {"float-4": outputs_of(file_bytes())}
    assert four.bring(four.publisher.manifest(2, {"float-4": file_bytes(7)}, answers=wrong)).phase == "refused"
    assert part(four).stat().st_size == made.need[4]


def test_the_bundle_of_a_refused_offer_stays_for_the_next_version(side):
    one, made = side(model=policy(4)), nested()
    wrong = {f"float-{bits}": outputs_of(file_bytes()) for bits in made.files}
    assert one.bring(made.manifest(one.publisher, 1, answers=wrong)).code == "E-MODEL-GOLDEN"
    assert one.bring(made.manifest(one.publisher, 2)).variant == "float-4"
    assert one.sent[made.digest] == made.need[4]


def test_cutting_does_not_wait_for_training_but_probing_does(side):
    one, made = side(model=policy(8)), nested()
    manifest = made.manifest(one.publisher, 1)
    real = one.serving.step
    one.serving.step = lambda now_s, training: real(now_s, True)
    one.offer(manifest)
    one.wait((one.models / "store" / manifest.variants[0].digest).exists)
    for _ in range(50):
        one.turn()
    assert one.live == 0
    one.serving.step = real
    assert one.until("healthy").variant == "float-8"


def test_a_cut_file_that_is_lost_is_cut_again(side):
    one, made = side(model=policy(8)), nested()
    manifest = made.manifest(one.publisher, 1)
    one.offer(manifest)
    one.wait(lambda: one.serving.installation and one.serving.installation.findings)
    (one.models / "store" / manifest.variants[0].digest).unlink()
    assert one.until("healthy").variant == "float-8"
    assert one.sent[made.digest] == made.need[8]
    assert "refused" not in {report.phase for report in one.reports}
