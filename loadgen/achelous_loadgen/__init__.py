"""Load for a platform: scenarios, simulated hosts, faults, and a report of what came of it."""
