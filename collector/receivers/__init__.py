"""OTLP in, over gRPC and HTTP."""
