"""The engine: compiled from src_pyx/mosec_cy/_engine."""
