"""Comparison of mosec_cy with its peers: the same work, the same load, servers started in turn."""
