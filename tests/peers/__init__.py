"""Programs that put this server and another one that speaks the same protocol next to each other, by their URLs."""
