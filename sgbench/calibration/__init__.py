"""How far the values of metrics are from those of the code that others use, on the same images.

`references` is the only place that calls that code, `pictures` has the images, `networks` lends both sides the same
weights, and `comparison` computes the table that ``sgbench metrics calibrate`` prints. `variants` are the ways in
which what has one name is computed.
"""
