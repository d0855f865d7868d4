//! The containerd face: its gRPC services over the core; wire types stop here.
