"""Simulated hosts: the real agent on a packet path of memory, many of them in one process."""
