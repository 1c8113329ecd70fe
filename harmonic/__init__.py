"""HarmonicDet losses; empty until built."""
