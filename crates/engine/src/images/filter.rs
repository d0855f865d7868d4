//! Filters of image lists and prunes (pure).

use berth_image::Image;
use berth_types::Timestamp;

use crate::api::Filters;
use crate::error::{EngineError, Result};
use crate::filters::labels_fit;

#[derive(Debug, Default)]
pub(super) struct ImageFilter {
    filters: Filters,
    is_dangling: Option<bool>,
    before: Option<Timestamp>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
}

impl ImageFilter {
    pub(super) fn parse(filters: &Filters, created: impl Fn(&str) -> Result<Option<Timestamp>>) -> Result<Self> {
        let mut filter = Self::parse_prune(filters)?;
        filter.is_dangling = one(filters, "dangling")?.map(boolean).transpose()?;
        filter.before = one(filters, "before")?.map(&created).transpose()?.flatten();
        filter.since = one(filters, "since")?.map(&created).transpose()?.flatten();
        Ok(filter)
    }

    /// `dangling` chooses the kind of prune and is no filter there.
    pub(super) fn parse_prune(filters: &Filters) -> Result<Self> {
        let until = one(filters, "until")?.map(|text| Timestamp::parse_relative(text, Timestamp::now())).transpose()?;
        Ok(Self { filters: filters.clone(), until, ..Self::default() })
    }

    pub(super) fn fits(&self, image: &Image) -> bool {
        let created = super::created(image);
        let references = self.filters.get("reference").map_or(&[][..], Vec::as_slice);
        self.is_dangling.is_none_or(|wanted| wanted == super::tags(image).is_empty())
            && self.before.is_none_or(|before| created.is_some_and(|c| c < before))
            && self.since.is_none_or(|since| created.is_some_and(|c| c > since))
            && self.until.is_none_or(|until| created.is_some_and(|c| c < until))
            && labels_fit(&self.filters, &super::labels(image))
            && (references.is_empty()
                || image.references.iter().any(|r| {
                    references
                        .iter()
                        .any(|p| glob(p, &r.familiar()) || glob(p, &r.familiar_repository()) || glob(p, &r.to_string()))
                }))
    }
}

fn one<'f>(filters: &'f Filters, key: &str) -> Result<Option<&'f str>> {
    match filters.get(key).map(Vec::as_slice) {
        None | Some([]) => Ok(None),
        Some([value]) => Ok(Some(value)),
        Some(_) => Err(EngineError::invalid(format!("filter {key} takes one value"))),
    }
}

fn boolean(text: &str) -> Result<bool> {
    match text {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        other => Err(EngineError::invalid(format!("invalid filter 'dangling={other}': true or false"))),
    }
}

/// `*` and `?` match within one path component, as Go's `path.Match`.
fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    // Where to go on after the last `*`, taking one more character into it.
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                retry = Some((p + 1, t));
                p += 1;
                continue;
            }
            Some('?') if text[t] != '/' => {}
            Some(c) if *c == text[t] => {}
            _ => match retry {
                Some((after, at)) if text[at] != '/' => {
                    retry = Some((after, at + 1));
                    (p, t) = (after, at + 1);
                    continue;
                }
                _ => return false,
            },
        }
        p += 1;
        t += 1;
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        for (pattern, text, fits) in [
            ("busybox", "busybox", true),
            ("busy*", "busybox:1", true),
            ("*:1", "busybox:1", true),
            ("b?sy*x", "busybox", true),
            ("*", "a/b", false),
            ("*/*", "a/b", true),
            ("busy", "busybox", false),
            ("**", "x", true),
            ("", "", true),
        ] {
            assert_eq!(glob(pattern, text), fits, "{pattern} {text}");
        }
    }
}
