"""Moving data: backups of a data directory, files of records in and out, and the log played again."""
