"""Where findings and numbers go."""

from lightning_gradguard.sinks.base import Sink
from lightning_gradguard.sinks.console import ConsoleSink
from lightning_gradguard.sinks.history import HistorySink
from lightning_gradguard.sinks.loggers import LoggerSink
from lightning_gradguard.sinks.tensorboard import TensorBoardSink

__all__ = ["ConsoleSink", "HistorySink", "LoggerSink", "Sink", "TensorBoardSink"]
