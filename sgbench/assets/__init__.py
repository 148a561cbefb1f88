"""Pretrained networks: which there are, where each is found, and proof that it is the right one."""
