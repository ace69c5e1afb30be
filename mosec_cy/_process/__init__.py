"""What a process that the master has started does: a worker, core, the guard."""
