"""TLS, authentication and what keeps strangers out."""
