"""Naive references: float64, plain Python loops over samples, written from the papers' equations alone."""
