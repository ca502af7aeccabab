"""The backend `sqlite`: everything in one file that anybody can open."""
