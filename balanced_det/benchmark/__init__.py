"""What the losses cost beside those they replace: time, memory, waits of the host. Run by ``tools/benchmark.py``."""
