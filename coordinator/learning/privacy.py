"""The private mean: clipped updates over a fixed denominator, with Gaussian noise that only the coordinator can make.

With d_k the clipped updates (wire.params.clipped), m = devices.goal, z = privacy.noise, C = privacy.clip:

    change_r = (1/m) sum_k d_k + noise_r

Each device counts the same and m is fixed, so that one device more or less moves the sum by at most C and one device
replaced by another by at most 2 C, whatever it sends. Only the tensors given are clipped and noised: the trainable
ones. Two mechanisms, both with noise of standard deviation z C / m a value:

    gaussian   noise_r = a fresh draw each round
    tree       noise_r = n_r - n_(r-1),  n_r = the sum over the nodes of the binary tree that cover the steps 1..r

`tree` is DP-FTRL (Kairouz et al., Practical and Private (Deep) Learning without Sampling or Shuffling, 2021): there
w_(r+1) = w_0 - eta v_r with v_r = beta v_(r-1) + (S_r + n_r), S_r the sum of the gradients g_1..g_r and g = -change.
It is the server's own step. Heavy-ball momentum on the noised increments is m_r = beta m_(r-1) - (g_r + noise_r), and
for M_r = m_1 + ... + m_r this gives M_r = beta M_(r-1) - (S_r + n_r), so M_r = -v_r and w_(r+1) = w_0 + eta M_r.
With beta = 0 it is plain sgd. Steps are counted from 1 and without a gap: a round that changes nothing is no step.

The noise is a function of (secret, run, step or node, tensor), so that a coordinator which was killed makes it again.
It is drawn from SHAKE-256 keyed by the secret, not from Bits: Philox is no cipher, and who takes part must not be able
to work out the rest of a stream that he has seen parts of. Whoever has the secret can take the noise away. Two
different sums must never get the same noise: their difference would be bare, so a run's name is used once a secret.

Known limit: a Gaussian of floating-point numbers is not quite one (Mironov, On Significance of the Least Significant
Bits for Differential Privacy, 2012): its low bits can tell sums apart that the theory says cannot be told apart. The
sum is added to the noise in float64 and rounded once to float32, which hides part of it and not all. Clipped values
are rounded to float32 as well, which can lengthen an update by about 1e-7 of C.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from coordinator.recipes.sections import Privacy
from wire.errors import StateError
from wire.params import Array, Params
from wire.spec import TensorSpec

__all__ = ["noise_of", "private_mean", "tree_nodes"]

_Wide = npt.NDArray[np.float64]
_LEAST_SECRET_BYTES = 16


def private_mean(sums: Mapping[str, _Wide], noise: Mapping[str, Array], goal: int) -> Params:
    """Returns sums / goal + noise, in float64 and rounded once to float32; a tensor without noise gets none."""
    return {name: (total / goal + noise.get(name, np.float32(0))).astype(np.float32) for name, total in sums.items()}


def noise_of(  # noqa: PLR0917 - what names the noise, from the whole recipe down to the step
    order: Iterable[TensorSpec], privacy: Privacy, secret: bytes, run: str, step: int, goal: int
) -> Params:
    """Returns the noise of a step's mean; no tensors if the recipe has no noise."""
    if not privacy.noise:
        return {}
    _check(secret, goal)
    deviation = privacy.noise * privacy.clip / goal
    parts = {(step,): 1} if privacy.mechanism == "gaussian" else tree_nodes(step)
    named = {(privacy.mechanism, run, *part): sign for part, sign in parts.items()}
    return {tensor.name: (deviation * _summed(tensor, named, secret)).astype(np.float32) for tensor in order}


def tree_nodes(step: int) -> dict[tuple[int, int], int]:
    """Returns the nodes (level, index) that a step adds to the tree's noise (1) or takes back out of it (-1).

    Node (l, i) stands for the steps i 2^l + 1 .. (i + 1) 2^l. The steps 1..r are covered by one node for each 1 among
    the bits of r. From r - 1 to r one node comes, and those go whose steps it covers.
    """
    if step < 1:
        raise StateError(f"step {step} of the noise tree", remedy="count the rounds that changed the model, from 1")
    after, before = _cover(step), _cover(step - 1)
    return dict.fromkeys(after - before, 1) | dict.fromkeys(before - after, -1)


def _cover(step: int) -> set[tuple[int, int]]:
    return {(level, (step >> level) - 1) for level in range(step.bit_length()) if step >> level & 1}


def _check(secret: bytes, goal: int) -> None:
    if len(secret) < _LEAST_SECRET_BYTES:
        raise StateError(
            f"a noise secret of {len(secret)} bytes, at least {_LEAST_SECRET_BYTES} are needed",
            remedy="derive it from the coordinator's private key: who can guess it can take the noise away",
        )
    if goal < 1:
        raise StateError(f"a private mean over {goal} devices")


def _summed(tensor: TensorSpec, parts: Mapping[tuple[object, ...], int], secret: bytes) -> _Wide:
    total = np.zeros(tensor.shape, np.float64)
    for part, sign in parts.items():
        total += sign * _normal(tensor.count, secret, *part, tensor.name).reshape(tensor.shape)
    return total


def _normal(count: int, secret: bytes, *parts: object) -> _Wide:
    """Returns `count` standard normal values (Box and Muller, 1958): two for two words of 53 bits."""
    pairs = (count + 1) // 2
    uniform = (_words(2 * pairs, secret, *parts) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    radius = np.sqrt(-2.0 * np.log1p(-uniform[:pairs]))  # 1 - u is in (0, 1]: no logarithm of zero
    angle = 2.0 * np.pi * uniform[pairs:]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]


def _words(count: int, secret: bytes, *parts: object) -> npt.NDArray[np.uint64]:
    """Returns words of the stream that `secret` and `parts` name; lengths go first, so that no two names read alike."""
    texts = [secret, *(str(part).encode() for part in parts)]
    name = b"".join(len(text).to_bytes(8, "little") + text for text in texts)
    return np.frombuffer(hashlib.shake_256(name).digest(8 * count), dtype="<u8").astype(np.uint64, copy=False)
