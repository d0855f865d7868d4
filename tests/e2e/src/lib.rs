//! End-to-end tests live in `tests/`: every one drives a private daemon through its clients.
