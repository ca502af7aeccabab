"""What leaves Ringtail: a cursor in each log, and destinations that take batches from it."""
