"""Slots that hold models of a few words, and which of them serves."""

from __future__ import annotations

from edge_agent.serving import slots
from edge_agent.serving.slots import file_digest, read_pointer, read_slot


def facts(version, path):
    return {"version": version, "digest": file_digest(path), "variant": "float-32", "manifest": f"{version}" * 64}


def staged(folder, version):
    source = folder / "source"
    source.unlink(missing_ok=True)  # a slot's file is the same file under another name
    source.write_bytes(f"model {version}".encode() * 100)
    return slots.stage(folder, source, facts(version, source))


def served(folder, version):
    slots.switch(folder, staged(folder, version))
    return slots.commit(folder)


def serving(folder):
    """Returns the version that an application would find now, with its file right; None without one."""
    pointer = read_pointer(folder)
    slot = read_slot(folder, pointer.serving) if pointer else None
    if slot is None or file_digest(slot.path) != slot.facts["digest"]:
        return None
    return slot.version


def rot(folder, name):
    """Damages the model in a slot, and no other file that has the same bytes."""
    (folder / name / "model.onnx").unlink()
    (folder / name / "model.onnx").write_bytes(b"rot")
