"""Random changes of training data that leave its labels as they are."""
