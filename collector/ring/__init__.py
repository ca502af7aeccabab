"""The newest records in memory, with exact indexes."""
