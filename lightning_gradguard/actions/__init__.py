"""The only writers to gradients, learning rates, buffers and the optimizer's step.

In: decisions. Out: changes. Functions that write end in an underscore.
"""
