//! The platform of this host, and which of several an image offers suits it best.

use crate::document::Platform;

/// GOARCH name and variant of this host.
pub(crate) fn host() -> Platform {
    let (architecture, variant) = berth_types::architecture::host();
    Platform { architecture: architecture.to_owned(), os: "linux".to_owned(), variant: variant.map(str::to_owned) }
}

/// How well `offered` suits `host`: `None` not at all, else lower is better.
pub(crate) fn rank(host: &Platform, offered: &Platform) -> Option<u32> {
    if offered.os != host.os || offered.architecture != host.architecture {
        return None;
    }
    let level = |variant: &Option<String>| variant.as_deref().unwrap_or("").trim_start_matches('v').parse::<u32>().ok();
    match (level(&host.variant), level(&offered.variant)) {
        // Without a variant it is made for every machine of the architecture; of amd64 we only take that baseline.
        (_, None) if offered.variant.as_deref().unwrap_or("").is_empty() => Some(1),
        (None, Some(1)) => Some(0),
        (Some(ours), Some(theirs)) if theirs <= ours => Some(if theirs == ours { 0 } else { 1 + ours - theirs }),
        _ => None,
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match self.variant.as_deref() {
            Some(variant) if !variant.is_empty() => write!(f, "/{variant}"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        let mut parts = text.split('/').map(str::to_owned);
        Platform { os: parts.next().unwrap(), architecture: parts.next().unwrap(), variant: parts.next() }
    }

    #[test]
    fn ranks() {
        for (host, offered, expect) in [
            ("linux/amd64", "linux/amd64", Some(1)),
            ("linux/amd64", "linux/amd64/v1", Some(0)),
            ("linux/amd64", "linux/amd64/v3", None),
            ("linux/amd64", "windows/amd64", None),
            ("linux/amd64", "unknown/unknown", None),
            ("linux/arm64/v8", "linux/arm64", Some(1)),
            ("linux/arm64/v8", "linux/arm64/v8", Some(0)),
            ("linux/arm/v7", "linux/arm/v6", Some(2)),
            ("linux/arm/v6", "linux/arm/v7", None),
        ] {
            assert_eq!(rank(&platform(host), &platform(offered)), expect, "{host} {offered}");
        }
    }
}
