//! `WWW-Authenticate`: which proof a registry wants.
//!
//! # Spec
//! RFC 9110 section 11.6.1; Docker "Token Authentication Specification".

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    Basic,
    Bearer { realm: String, service: String, scope: String },
}

/// Challenges looked at, in all headers together.
const CHALLENGES_MAX: usize = 16;

/// The strongest challenge we can answer.
pub(crate) fn best(headers: &HeaderMap) -> Option<Challenge> {
    let all: Vec<Challenge> = headers
        .get_all(WWW_AUTHENTICATE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(parse)
        .take(CHALLENGES_MAX)
        .collect();
    let bearer = all.iter().find(|challenge| matches!(challenge, Challenge::Bearer { .. }));
    bearer.or_else(|| all.first()).cloned()
}

/// One header may hold several challenges, separated by commas like their parameters.
fn parse(text: &str) -> Vec<Challenge> {
    let mut found: Vec<(String, Vec<(String, String)>)> = Vec::new();
    for item in split_unquoted(text) {
        let item = item.trim();
        let (first, rest) = item.split_once(' ').map_or((item, ""), |(first, rest)| (first, rest.trim()));
        let parameter = if first.contains('=') {
            item
        } else {
            found.push((first.to_ascii_lowercase(), Vec::new()));
            rest
        };
        if let (Some((name, value)), Some(last)) = (parameter.split_once('='), found.last_mut()) {
            last.1.push((name.trim().to_ascii_lowercase(), unquoted(value.trim())));
        }
    }
    found.into_iter().filter_map(|(scheme, parameters)| of(&scheme, &parameters)).collect()
}

fn of(scheme: &str, parameters: &[(String, String)]) -> Option<Challenge> {
    let value = |name: &str| parameters.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone()).unwrap_or_default();
    match scheme {
        "basic" => Some(Challenge::Basic),
        "bearer" => Some(Challenge::Bearer { realm: value("realm"), service: value("service"), scope: value("scope") }),
        _ => None,
    }
}

fn split_unquoted(text: &str) -> Vec<&str> {
    let mut items = Vec::new();
    let (mut start, mut is_quoted, mut is_escaped) = (0, false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => {
                items.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    items.push(&text[start..]);
    items
}

fn unquoted(text: &str) -> String {
    let Some(inner) = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else { return text.to_owned() };
    let mut out = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        out.push(if c == '\\' { chars.next().unwrap_or('\\') } else { c });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(headers: &[&str], expect: Option<Challenge>) {
        let mut map = HeaderMap::new();
        for header in headers {
            map.append(WWW_AUTHENTICATE, header.parse().unwrap());
        }
        assert_eq!(best(&map), expect, "{headers:?}");
    }

    #[test]
    fn challenges() {
        let bearer = |realm: &str, service: &str, scope: &str| {
            Some(Challenge::Bearer { realm: realm.into(), service: service.into(), scope: scope.into() })
        };
        check(&["Basic realm=\"x\""], Some(Challenge::Basic));
        check(
            &["Bearer realm=\"https://a/token\",service=\"s\",scope=\"repository:x:pull,push\""],
            bearer("https://a/token", "s", "repository:x:pull,push"),
        );
        check(&["Basic realm=x, bearer Realm=\"https://a\" , service=s"], bearer("https://a", "s", ""));
        check(&["Basic", "Bearer realm=\"a\\\"b\""], bearer("a\"b", "", ""));
        check(&["Negotiate"], None);
        check(&[], None);
        check(&["Bearer realm=\"unclosed, service=x"], bearer("\"unclosed, service=x", "", ""));
    }
}
