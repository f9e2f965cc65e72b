"""Keeping route tables of VPCs in step with the controller, by snapshots and deltas.

Gateways hold all VPCs so, vSwitches those that are programmed ahead.
"""
