"""Pretrained networks that metrics and losses need: which there are, where each is found, and how it is known.

`catalogue` says which there are, and is open to other packages; `needs`, which of them metrics and losses need.
`locator` finds and fetches them, and `install` takes files that were brought by hand. `tensors` and `package_index`,
one of the sources, import torch, and are imported only where tensors are read.
"""
