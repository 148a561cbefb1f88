"""Pretrained networks that metrics and losses need: the catalogue, where they are found, and how they are checked.

`catalogue` lists them and is open to other packages; `needs` says which of them metrics and losses need. `locator`
finds and downloads them, `install` takes files that were brought by hand, and `bundle` puts several into one file.
`tensors` and `package_index`, one of the sources, import torch, and are imported only where tensors are read.
"""
