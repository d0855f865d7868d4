//! Snapshots: layer directories by chain id and writable layers by container, with one contract for every driver. STUB.
