"""The conformance kit: that Ringtail passes it, and that it can fail."""
