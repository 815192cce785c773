"""One offer, from its digest to a model that is staged, or to a refusal with a code and a reason.

manifest  its blob is fetched, then checked: accept.py
files     the variant to try next and the golden answers are fetched; of a bundle a portion, and the child cuts the file
probe     the child tries the file; if it does not fit, the next best variant is fetched
ready     the chosen file is known to be right here: it can be staged

Every step can be done again after a kill: files stand under their digests, findings are written down.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from edge_agent.config import AgentConfig
from edge_agent.fetch import Fetch, fetch_blobs, prune
from edge_agent.gate import disk_failure, read_board
from edge_agent.info import runtime_version
from edge_agent.serving.accept import accept_manifest, load_floors, save_floors
from edge_agent.serving.nested.cutting import cut_header
from edge_agent.serving.nested.portion import Portion, bundles_of, portion_of
from edge_agent.serving.outcome import basis_of
from edge_agent.serving.policy import Choice, Finding, choose
from edge_agent.serving.probe import Probe, probe_header
from edge_agent.serving.trial.barred import out_of
from edge_agent.serving.trial.findings import load_failures, load_findings, save_findings
from edge_agent.serving.trial.lending import lend, serving_digest
from edge_agent.serving.trial.measuring import next_unmeasured
from edge_agent.serving.trial.refusing import refused
from edge_agent.serving.trial.shortage import SHORT, Shortage, named
from wire.errors import Declined, WireError
from wire.events import log_event
from wire.messages.manifest import Manifest, Variant
from wire.messages.rollout import ModelReport, Offer

__all__ = ["Installation", "Means"]

_MOST_TIMES = 3  # a file is fetched at most so often, whatever is wrong with it
_MOST_CUTS = 2  # of bundles that give something else; after that the files themselves are fetched
_MOST_YIELDS = 3
_PASSING = ("E-BLOB", "E-DISK", "E-INSTALL")  # say nothing of the file itself


@dataclass(frozen=True, slots=True)
class Means:
    """What an installation works with. `folder` is the device's folder of models, `wall_s` the time of day."""

    config: AgentConfig
    folder: Path
    probe: Probe
    wall_s: Callable[[], float]
    free_memory_bytes: Callable[[], int | None]

    @property
    def store(self) -> Path:
        """Returns where fetched files stand under their digests."""
        return self.folder / "store"


@dataclass(slots=True)
class Installation:
    """The state of one offer. `all_of_them` measures every variant that can run here anew before it chooses.

    `keep` are files of the store that the model in service needs; `slot` is where the new one was staged. `cutting` is
    the variant whose file is to be cut from its bundle, `miscut` how often a bundle gave something else.
    """

    offer: Offer
    means: Means
    all_of_them: bool = False
    keep: frozenset[str] = frozenset()
    phase: str = "fetching"
    manifest: Manifest | None = None
    fetch: Fetch | None = None
    asked: tuple[str, ...] = ()
    cutting: Variant | None = None
    miscut: int = 0
    candidate: Variant | None = None
    choice: Choice | None = None
    findings: dict[str, Finding] = field(default_factory=dict)
    options: dict[str, dict[str, str]] = field(default_factory=dict)
    short: Shortage = field(default_factory=Shortage)
    lacking: int = 0
    fetched_before: int = 0
    ready: bool = False
    slot: str = ""
    times: int = 0
    yields: int = 0

    def begin(self) -> None:
        """Starts, or starts again after the files turned out wrong."""
        self._want({self.offer.manifest: self.offer.size})

    def step(self, now_s: float, training: bool) -> None:
        """Goes on as far as it can without waiting; raises BitfleetError when the offer is refused."""
        try:
            if self.fetch is not None:
                self._look_at_fetch(self.fetch)
            if self.fetch is None and self.manifest is None:
                self._accept()
            if self.fetch is None and self.manifest is not None and not self.ready:
                self._try(self.manifest, now_s, training)
        except OSError as exc:
            raise disk_failure(exc) from exc

    def damaged(self) -> None:
        """Notes that the chosen file does not hold what its name says: it is fetched anew."""
        if self.choice and self.choice.variant:
            self.ready = False
            self._again(self.means.store / self.choice.variant.digest)

    @property
    def fetched_bytes(self) -> int:
        """Returns how many bytes came for this offer."""
        return self.fetched_before + (self.fetch.fetched_bytes if self.fetch else 0)

    @property
    def report(self) -> ModelReport:
        """Returns how far it is."""
        return ModelReport(self.phase, self.offer.version, found=self.choice.found if self.choice else ())

    @property
    def _serving(self) -> str:
        return serving_digest(self.means.folder, self.offer.manifest)

    def due_s(self, now_s: float, training: bool, online: bool) -> float:
        """Returns how long nothing is to be done here."""
        if self.fetch is not None:
            return self.fetch.overdue_s(now_s) if online else float("inf")
        if self.means.probe.busy:
            return self.means.probe.due_s(now_s)
        if self.candidate is None or self.cutting:
            return 0.0
        return float("inf") if training else max(0.0, self.short.rest_s - now_s)

    def _want_variant(self, manifest: Manifest, variant: Variant) -> None:
        """Fetches a variant's file, or the portion to cut it from, and the golden answers, as far as they lack."""
        lend(self.means.folder, self.offer.manifest, self.means.store / variant.digest, self.means.config.durable)
        sizes = {variant.digest: variant.size, manifest.golden: manifest.golden_bytes}
        portion = portion_of(variant, manifest, self.means.store) if self.miscut < _MOST_CUTS else None
        if portion and self._short_bytes(self._lacking(sizes), portion):
            portion = None
        self.cutting = variant if portion else None
        self._want(sizes, portion, cut=variant.digest if portion else "")

    def _want(self, sizes: Mapping[str, int], portion: Portion | None = None, cut: str = "") -> None:
        if short := self._short_bytes(self._lacking(sizes), portion):
            raise Declined(f"{short} bytes more of the disk have to be free", code="E-DISK-SPACE", remedy="make room")
        sizes = {digest: size for digest, size in sizes.items() if digest != cut}
        fetch = fetch_blobs(self.means.store, sizes, {portion.digest: portion.size} if portion else None)
        self.fetch = None if fetch.complete else fetch
        self.asked += tuple(fetch.wanted)
        self.lacking = sum(part.total for part in fetch.wanted.values())
        self.phase = "fetching" if self.fetch else self.phase

    def _lacking(self, sizes: Mapping[str, int]) -> int:
        return sum(size for digest, size in sizes.items() if not (self.means.store / digest).exists())

    def _short_bytes(self, lacking: int, portion: Portion | None) -> int:
        """Returns how many bytes of the disk are missing for files of `lacking` bytes and a portion."""
        free = read_board(self.means.folder).free_disk_bytes
        # Where a file cannot have two names it is there twice.
        need = 2 * lacking + (portion.lacking if portion else 0)
        floor = round(self.means.config.limits.min_free_disk_mb * 1e6)
        return max(0, need + floor - free) if need and free is not None else 0

    def _look_at_fetch(self, fetch: Fetch) -> None:
        if fetch.complete:
            self.fetched_before += fetch.fetched_bytes
            self.fetch = None
            log_event("model-fetched", version=self.offer.version, bytes=self.fetched_before)
        elif fetch.fetched_bytes > (1 + _MOST_TIMES) * self.lacking:
            raise WireError(f"blob {next(iter(fetch.wanted))[:12]} comes again and again with other bytes",
                            code="E-BLOB", remedy="publish the model again")  # fmt: skip

    def _accept(self) -> None:
        path = self.means.store / self.offer.manifest
        data = path.read_bytes()
        if sha256(data).hexdigest() != self.offer.manifest:
            self._again(path)
            return
        folder, config = self.means.folder, self.means.config
        manifest, floors = accept_manifest(data, config, load_floors(folder), self.means.wall_s())
        if manifest.version != self.offer.version:
            raise WireError(f"the offer says version {self.offer.version}, its manifest {manifest.version}")
        save_floors(folder, floors, config.durable)
        self.manifest = manifest
        load = load_failures if self.all_of_them else load_findings
        before = load(folder, self.offer.manifest, basis_of(config))
        out = out_of(folder, self.offer.manifest, manifest.variants)
        self.findings = {name: found for name, (found, _) in before.items()} | out
        self.options = {name: options for name, (_, options) in before.items()}

    def _try(self, manifest: Manifest, now_s: float, training: bool) -> None:
        if self.cutting is not None:
            self._cut(self.cutting, now_s)
            return
        if self.candidate is None:
            self._choose(manifest)
            return
        probe = self.means.probe
        if probe.busy and training and self.yields < _MOST_YIELDS:
            probe.stop()
            self.yields += 1
        if probe.busy:
            found = probe.poll(now_s)
            if found is not None:
                self._note(self.candidate, named(found), now_s)
        elif now_s >= self.short.rest_s and (not training or self.yields >= _MOST_YIELDS):
            self.phase = "checking"
            probe.start(self._header(manifest, self.candidate), now_s)

    def _cut(self, variant: Variant, now_s: float) -> None:
        """Has the child cut the file. It is short work, so that it does not wait for training."""
        probe, store = self.means.probe, self.means.store
        if not probe.busy:
            self.phase = "checking"
            probe.start(cut_header(self.means.config, variant, store), now_s)
            return
        found = probe.poll(now_s)
        if found is None:
            return
        self.cutting = None
        if found.code in _PASSING:
            raise Declined(found.reason, code=found.code)
        if found.code:  # also if the child died of it: only wrong bytes do that
            log_event("bundle-wrong", bundle=variant.bundle[:12], code=found.code, reason=found.reason)
            self.candidate = None
            self.miscut += 1
            self._again(*(store / f"{variant.bundle}.{kind}" for kind in ("part", "spans")))

    def _header(self, manifest: Manifest, variant: Variant) -> dict[str, Any]:
        return probe_header(
            self.means.config,
            manifest,
            variant,
            path=self.means.store / variant.digest,
            golden=self.means.store / manifest.golden,
            free_bytes=self.means.free_memory_bytes(),
        )

    def _choose(self, manifest: Manifest) -> None:
        runtime = runtime_version()
        if runtime is None:
            raise Declined("onnxruntime is not installed", code="E-INSTALL", remedy="install the extra `infer`")
        known = manifest.variants, self.findings, self.means.config.model, self.means.free_memory_bytes(), runtime
        serving = self._serving
        choice = self.choice = choose(*known, serving=serving)
        following = (self.all_of_them and next_unmeasured(*known, serving=serving)) or choice.variant
        if following is None:
            raise refused(choice, self.findings)
        if following.name not in self.findings:
            self.candidate = following
            prune(self.means.store, self._useful(manifest, following))
        try:
            self._want_variant(manifest, following)
        except Declined as exc:  # that one of many finds no room on the disk says nothing of the others
            if not self.all_of_them or following.name in self.findings:
                raise
            self.candidate, self.findings[following.name] = None, Finding(code=exc.code, reason=exc.message)
            return
        self.ready = self.candidate is None and self.fetch is None and self.cutting is None

    def _useful(self, manifest: Manifest, variant: Variant) -> set[str]:
        kept = {*self.keep, self.offer.manifest, manifest.golden, variant.digest} | bundles_of(manifest)
        fitting = {one.variant for one in self.choice.found if one.fits} if self.choice else set()
        return kept | {one.digest for one in manifest.variants if one.name in fitting & set(self.findings)}

    def _note(self, variant: Variant, found: Finding, now_s: float) -> None:
        """Keeps what a probe found. What is wrong with the file's copy, or the disk, says nothing of the variant."""
        self.candidate = None
        if found.code == "E-BLOB":
            manifest = self.manifest
            self._again(self.means.store / variant.digest, *([self.means.store / manifest.golden] if manifest else []))
            return
        if found.code in _PASSING:
            raise Declined(found.reason, code=found.code)
        if found.code == SHORT:
            log_event("memory-short", version=self.offer.version, variant=variant.name, reason=found.reason)
            if not self.short.again(variant.name, now_s):  # not on the disk: another time there may be more
                self.findings[variant.name] = Finding() if variant.digest == self._serving else found
            return
        self.findings[variant.name], self.options[variant.name] = found, dict(self.means.probe.options)
        lasting = {name: one for name, one in self.findings.items() if name in self.options and one.code != SHORT}
        save_findings(self.means.config, self.means.folder, self.offer.manifest, lasting, self.options)

    def _again(self, *paths: Path) -> None:
        """Drops files that do not hold what their names say, so that they are fetched anew."""
        self.times += 1
        for path in paths:
            path.unlink(missing_ok=True)
        if self.times > _MOST_TIMES:
            remedy = "look at the disk, or publish the model again"
            raise WireError(f"{paths[0].name[:12]} is damaged again and again", code="E-BLOB", remedy=remedy)
        if self.manifest is None:
            self.begin()
