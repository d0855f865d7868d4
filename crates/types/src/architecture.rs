//! Architectures as images and their field name them (GOARCH and variant), from the names of kernels and compilers.

/// Name and variant of an architecture by any spelling of it; one that is not known is its own name (containerd "platforms", normalization).
pub fn normalized(spelling: &str) -> (&str, Option<&'static str>) {
    match spelling {
        "x86_64" | "x86-64" | "amd64" => ("amd64", None),
        "aarch64" | "arm64" => ("arm64", Some("v8")),
        "armhf" | "arm" => ("arm", Some("v7")),
        "armel" => ("arm", Some("v6")),
        "i386" | "i686" | "x86" => ("386", None),
        "powerpc64" => ("ppc64le", None),
        "loongarch64" => ("loong64", None),
        other => (other, None),
    }
}

/// Those of this host.
pub fn host() -> (&'static str, Option<&'static str>) {
    normalized(std::env::consts::ARCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings() {
        for (spelling, name, variant) in [
            ("x86_64", "amd64", None),
            ("aarch64", "arm64", Some("v8")),
            ("armel", "arm", Some("v6")),
            ("x", "x", None),
        ] {
            assert_eq!(normalized(spelling), (name, variant));
        }
        assert_eq!(normalized(host().0), host());
    }
}
