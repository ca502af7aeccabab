# For other compiled modules only: see queue.pxd.
