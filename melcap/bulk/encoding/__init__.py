"""Windows of many clips packed into batches, encoded by threads, and put together again."""
