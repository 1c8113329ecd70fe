"""Paper B, Eq. 12, alpha, gamma and margin of the paper."""
harmonic_det = dict(type='HarmonicDetLoss', alpha=1.5, gamma=0.8, margin=0.2)
