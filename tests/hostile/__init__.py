"""What a hostile client can send, through the real daemon or the real application; see docs/security.md."""
