"""Healthy runs varied at random, of which there are as many as one asks for.

In: a number. Out: a labelled training without a fault, in which that number decides everything. A
detector that alarms in few of these bounds its rate of false alarms.

That a run is healthy is shown by training alone, by one rule, `skill`: at its end it must have
gone six tenths of the way to what a small sound model reaches on its task, from where it began, or
from the best constant answer if that is better. A run that has not is no healthy run: whoever uses
the population leaves it out, for this reason only.
"""

from benchmarks.detection.population.members import member
from benchmarks.detection.population.rule import LEVEL, skill

__all__ = ["LEVEL", "member", "skill"]
