# For other compiled modules only: see emit.pxd.
