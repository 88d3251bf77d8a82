"""Buffers as they were before a step that is left out.

In: a model. Out: its buffers put back. One batch of NaN makes BatchNorm's running statistics NaN
for ever, even when its step is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer

from lightning_gradguard.actions.writing import write_
from lightning_gradguard.writes import num_writes

__all__ = ["Buffers"]

_MOST_KEPT: Final = 1 << 24
"""Entries of one buffer that are copied at each step; larger ones hardly ever change."""

_FIRST_LOOKS: Final = 3
"""Steps before which all are copied, since nobody knows yet which of them change."""


@dataclass(eq=False)
class _Kept:
    """A buffer and where it belongs.

    Attributes:
        module: Its module.
        key: Its name there.
        buffer: The tensor that it was.
        version: How often that had been written to, as autograd counts; 0 for one that was made
            in inference mode, to which nobody can write.
        copy: What was in it, or None where it is not thought to change.
    """

    module: nn.Module
    key: str
    buffer: Tensor
    version: int
    copy: Tensor | None


class Buffers:
    """Keep what a forward pass may change, and put it back.

    After the first steps only buffers that change are copied: those of modules with running
    statistics, and any that was ever seen to change.

    Args:
        model: The model.

    Cost:
        Per step, one copy of the buffers that change; no host sync.

    Example:
        >>> norm = nn.BatchNorm1d(1)
        >>> buffers = Buffers(norm)
        >>> buffers.remember()
        >>> _ = norm(torch.full((2, 1), torch.nan))
        >>> buffers.restore_(torch.tensor(True)), norm.running_mean.tolist()
        ([], [0.0])
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._kept: dict[str, _Kept] = {}
        self._changing: set[str] = set()
        self._looks = 0

    @torch.no_grad()
    def remember(self) -> None:
        """Keep the buffers as they are now."""
        self._note_changes()
        self._looks += 1
        before, self._kept = self._kept, {}
        sources, copies = [], []
        for prefix, module in self._model.named_modules():
            for key, buffer in module._buffers.items():
                if buffer is None or isinstance(buffer, UninitializedBuffer):
                    continue
                name = f"{prefix}.{key}" if prefix else key
                kept = _Kept(module, key, buffer, num_writes(buffer), None)
                if self._may_change(name, module, buffer):
                    old = before[name].copy if name in before else None
                    kept.copy = _fitting(old, buffer)
                    sources.append(buffer)
                    copies.append(kept.copy)
                self._kept[name] = kept
        if sources:
            torch._foreach_copy_(copies, sources)

    @torch.no_grad()
    def restore_(self, flag: bool | Tensor) -> list[str]:  # noqa: FBT001 - known, or on the device
        """Put back what was kept, if a flag says so.

        Args:
            flag: On the host, or on the device with shape ``()``.

        Returns:
            Names of buffers that changed but of which no copy was kept.
        """
        if flag is False:
            return []
        self._note_changes()
        lost = []
        for name, kept in self._kept.items():
            if kept.copy is not None:
                _put_back_(kept, flag)
            elif _has_changed(kept):
                lost.append(name)
        return lost

    def _may_change(self, name: str, module: nn.Module, buffer: Tensor) -> bool:
        if buffer.numel() > _MOST_KEPT:
            return False
        is_unknown = self._looks <= _FIRST_LOOKS
        return is_unknown or name in self._changing or _has_running_statistics(module)

    def _note_changes(self) -> None:
        self._changing.update(name for name, kept in self._kept.items() if _has_changed(kept))


def _has_changed(kept: _Kept) -> bool:
    now = _now(kept)
    return now is not kept.buffer or num_writes(now) != kept.version


def _now(kept: _Kept) -> Tensor | None:
    """Return what is there now."""
    # Not by `get`, which the buffers of scripted modules do not have.
    return dict(kept.module._buffers.items()).get(kept.key)


def _put_back_(kept: _Kept, flag: bool | Tensor) -> None:  # noqa: FBT001 - as `Buffers.restore_`
    """Put one buffer back; another tensor in its place is nobody's to write to."""
    assert kept.copy is not None  # noqa: S101 - asked for those that have one
    now = _now(kept)
    is_other = now is not kept.buffer
    if is_other and (now is None or now.shape != kept.copy.shape):
        flag = bool(flag)
    if flag is True or now is None:
        if flag and (not is_other or num_writes(kept.buffer) != kept.version):
            write_(kept.buffer, kept.copy)
        if flag:
            kept.module._buffers[kept.key] = kept.buffer
    elif isinstance(flag, Tensor):
        chosen = torch.where(flag.to(now.device), kept.copy, now)
        if is_other:
            kept.module._buffers[kept.key] = chosen
        else:
            write_(now, chosen)
    kept.version = num_writes(kept.buffer)


def _has_running_statistics(module: nn.Module) -> bool:
    """Whether torch's own kernels write to the buffers, which autograd does not count."""
    return bool(getattr(module, "track_running_stats", False)) and module.training


def _fitting(old: Tensor | None, buffer: Tensor) -> Tensor:
    """Return memory for a copy: that of the last one, where it has the same form."""
    if old is None or (old.shape, old.dtype, old.device) != (
        buffer.shape,
        buffer.dtype,
        buffer.device,
    ):
        return torch.empty_like(buffer)
    return old
