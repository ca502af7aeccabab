FAILURES: dict[int, str]
