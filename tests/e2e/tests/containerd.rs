//! containerd's API with containerd's own client: Debian's `ctr` against a daemon of ours, nothing of either changed.

mod containerd {
    mod metadata;
}
