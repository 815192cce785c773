"""One small case of every message; `golden` holds its bytes, and docs/wire.md shows them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from wire.frame import Kind, encode_frame
from wire.messages.blob import Downlink, delta_blob, snapshot_blob
from wire.messages.chain import encode_chain
from wire.messages.golden import encode_golden
from wire.messages.manifest import Manifest, Measured, Variant, encode_manifest, key_id
from wire.messages.plan import RoundPlan, encode_plan
from wire.messages.reports import Ask, DeviceState, Receipt, encode_ask, encode_receipt, encode_state
from wire.messages.rollout import Found, ModelReport, Offer, encode_model_report, encode_offer
from wire.messages.train import TrainSettings
from wire.messages.update import Update, UpdateHeader, encode_update, update_codec
from wire.params import Params, params_digest
from wire.pieces.chunks import encode_chunk
from wire.spec import ModelSpec, TensorSpec, spec_digest

SPEC = ModelSpec("tiny", (3,), 4, 5, (TensorSpec("w", (3, 4), 0.0, 0.5), TensorSpec("b", (4,), 0.25)))
ZERO: Params = {"w": np.zeros((3, 4), np.float32), "b": np.zeros(4, np.float32)}
HELD: Params = {"w": np.arange(-6, 6, dtype=np.float32).reshape(3, 4) / 8, "b": np.full(4, 0.25, np.float32)}
STEP: Params = {"w": np.linspace(-1, 1, 12).astype(np.float32).reshape(3, 4), "b": np.float32([0, 0.5, -0.5, 2])}
WANTED: Params = {name: HELD[name] + STEP[name] for name in HELD}
SNAPSHOT_REF, SNAPSHOT = snapshot_blob(HELD, SPEC)
DOWN = Downlink(({"stage": "levels", "levels": 3},), "tensor")
DELTA_REF, DELTA, REACHED = delta_blob(WANTED, HELD, SPEC, DOWN, (7, "down"))
PLAN = RoundPlan(
    run="run-1",
    round=2,
    seed=7,
    base=params_digest(HELD),
    initial=params_digest(ZERO),
    spec=spec_digest(SPEC),
    spec_bytes=400,
    blobs=(SNAPSHOT_REF,),
    train=TrainSettings("digits"),
    deadline_s=60.0,
    stages=({"stage": "topk", "share": 0.25}, {"stage": "levels", "levels": 7}),
)
SIGNS: list[dict[str, object]] = [{"stage": "topk", "share": 0.25}, {"stage": "signs"}]
HEADER = UpdateHeader("run-1", 2, "pi-4", params_digest(HELD), "delta", 100, {"loss_after": 0.5, "seconds": 1.25})
UPDATE = Update(HEADER, STEP)
STATE = DeviceState("training", 3, "run-1", 2)
ASK = Ask("blob", SNAPSHOT_REF.digest, total=SNAPSHOT_REF.size, spans=((0, 16), (32, 48)))
RECEIPT = Receipt(SNAPSHOT_REF.digest, "run-1", 2, "missing", spans=((0, 1024),))
MODEL_KEY = bytes(range(32))
GOLDEN_INPUTS = np.float32([[0, 0.5, 1], [1, -1, 0.25]])
GOLDEN_OUTPUTS = {"int8-4": np.float32([[0.5, -0.5], [2, 1]])}
MANIFEST = Manifest(
    fleet="home",
    model="digits",
    version=3,
    content=params_digest(HELD),
    created_s=1_800_000_000,
    expires_s=1_831_536_000,
    key=key_id("03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8"),
    input=(3,),
    outputs=2,
    labels=("no", "yes"),
    preprocessing="values / 16",
    lineage={"run": "run-1", "rounds": 10, "devices": 4, "epsilon": None},
    golden=SNAPSHOT_REF.digest,
    golden_bytes=144,
    variants=(
        Variant(
            "int8-4", "int8", 4.0, DELTA_REF.digest, 1234, ("Conv", "Gemm"), "1.16", 0.125, Measured("laptop", 0.9)
        ),
    ),
    parent=2,
)
OFFER = Offer("rollout-3-c0ffee", SNAPSHOT_REF.digest, 900, 3, "pi-4")
FOUND = Found("int8-4", True, "best accuracy that fits", 1.5, 2048, 0.75, "ina219")
MODEL = ModelReport("healthy", 3, 3, 3, 3, "int8-4", 4.0, "best accuracy that fits", found=(FOUND,))


def signed(body: bytes) -> bytes:
    """Returns the signature with the key of the samples; Ed25519 gives the same bytes every time."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(MODEL_KEY).sign(body)


def plan_with(stages: list[dict[str, object]], scope: str = "update") -> RoundPlan:
    return replace(PLAN, stages=tuple(stages), scope=scope)


def update_bytes(stages: list[dict[str, object]] | None = None, scope: str = "update") -> bytes:
    return encode_update(UPDATE, PLAN if stages is None else plan_with(stages, scope), SPEC)


MADE: dict[str, Callable[[], bytes]] = {
    "frame": lambda: encode_frame(Kind.JOB, {"b": [1, 2.5, "é"], "a": None}, b"\x01\x02\x03"),
    "plan": lambda: encode_plan(PLAN),
    "update": update_bytes,
    "signs": lambda: update_codec(plan_with(SIGNS), SPEC).encode(STEP),
    "snapshot": lambda: snapshot_blob(HELD, SPEC)[1],
    "delta": lambda: delta_blob(WANTED, HELD, SPEC, DOWN, (7, "down"))[1],
    "state": lambda: encode_state(STATE),
    "ask": lambda: encode_ask(ASK),
    "receipt": lambda: encode_receipt(RECEIPT),
    "manifest": lambda: encode_manifest(MANIFEST, signed),
    "offer": lambda: encode_offer(OFFER),
    "model": lambda: encode_model_report(MODEL),
    "golden": lambda: encode_golden(GOLDEN_INPUTS, GOLDEN_OUTPUTS),
    "chain": lambda: encode_chain([DELTA_REF]),
    "piece": lambda: encode_chunk(SNAPSHOT_REF.digest, SNAPSHOT_REF.size, 32, SNAPSHOT[32:48]),
}
