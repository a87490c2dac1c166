"""IngestJob: what is (`view`), what follows from it (`decide`), the child Job (`job`), and the doing (`reconcile`)."""
