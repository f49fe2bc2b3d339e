"""What TripleDataModule is made of: where sentences come from, their arrays, the batches."""
