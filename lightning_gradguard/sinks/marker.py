"""The record in an event file by which TensorBoard lists the tab "Gradient health".

In: a writer that has written something. Out: one record of a few bytes, which no dashboard draws.
It says that there is a run of ours, also where the log directory is out of reach of the tab, so
that the tab can say why.
"""

from __future__ import annotations

from typing import Any, Final

__all__ = ["PLUGIN_NAME", "write_marker"]

PLUGIN_NAME: Final = "gradguard"
_TAG: Final = "gradguard/tab"


def write_marker(writer: Any) -> None:  # noqa: ANN401 - torch's or tensorboardX's SummaryWriter
    """Mark a run's event file, where its writer takes records of our own."""
    file_writer = getattr(writer, "file_writer", None)
    if file_writer is None:
        return
    from tensorboard.compat.proto.summary_pb2 import DATA_CLASS_TENSOR, Summary, SummaryMetadata
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.types_pb2 import DT_STRING

    # Without a data class neither of TensorBoard's loaders lists the record.
    metadata = SummaryMetadata(
        plugin_data=SummaryMetadata.PluginData(plugin_name=PLUGIN_NAME),
        data_class=DATA_CLASS_TENSOR,
    )
    tensor = TensorProto(dtype=DT_STRING, string_val=[b"gradguard/history.sqlite"])
    value = Summary.Value(tag=_TAG, metadata=metadata, tensor=tensor)
    try:
        file_writer.add_summary(Summary(value=[value]), global_step=0)
    except TypeError:
        return  # tensorboardX takes records of its own class only
