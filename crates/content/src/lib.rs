//! The content store: blobs by digest, verified when written, ingests by reference. STUB.
