"""The regression gate: a suite on few images against a recorded baseline."""
