//! The runtime conformance suite: drives any OCI runtime binary and says where it leaves the specification.
