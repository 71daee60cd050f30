"""What looks on while a model trains. A writer is passed in, and used by its public methods."""
