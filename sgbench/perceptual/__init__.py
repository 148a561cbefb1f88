"""Pretrained networks as they compute, and the distances between their features, for losses and metrics alike.

`trunks` declares the networks and does not import torch. `network` builds one around its weights, once for a process
and device, whatever uses it. `lpips` and `dists` are the distances that are both trained with and scored by.
"""
