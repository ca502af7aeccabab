PLACES: dict[str, tuple[int, ...]]
