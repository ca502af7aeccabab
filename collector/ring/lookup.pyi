# For other compiled modules only: see lookup.pxd.
