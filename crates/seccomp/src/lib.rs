//! Seccomp profiles compiled to classic BPF by an emitter of our own. STUB: see the owner's work.
