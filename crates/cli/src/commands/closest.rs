//! The command somebody probably meant.

/// The known spelling at most two edits away, if there is one.
pub(crate) fn closest(words: &str) -> Option<&'static str> {
    let names = super::all().flat_map(|verb| verb.names.iter().copied());
    let scored = names.map(|name| (distance(words, name), name));
    scored.filter(|(distance, name)| *distance <= 2 && *distance < name.len() / 2 + 1).min().map(|(_, name)| name)
}

/// Edits from `a` to `b`: insert, delete, replace, swap of neighbours.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(40).collect(), b.chars().take(40).collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let plain = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                let swaps = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
                if swaps { plain.min(rows[i - 2][j - 2] + 1) } else { plain }
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_and_far() {
        assert_eq!(closest("rnu"), Some("run"));
        assert_eq!(closest("image lss"), Some("image ls"));
        assert_eq!(closest("zzzzzz"), None);
    }
}
