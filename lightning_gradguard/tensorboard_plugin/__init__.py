"""The TensorBoard tab "Gradient health".

TensorBoard imports this package whenever it starts, so nothing is imported here: `loader` is what
it is pointed at, and `plugin` is imported only once a tab is really made.
"""
