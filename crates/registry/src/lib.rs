//! The distribution client: images and blobs from and to registries (distribution-spec 1.1), and a small registry over the content store.
