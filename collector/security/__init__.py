"""Who may talk to a listener, and how it is kept from others' ears: secrets, credentials, TLS, browsers' tricks."""
