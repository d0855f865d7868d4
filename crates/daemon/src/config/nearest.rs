//! The name that somebody probably meant.

/// Of `names` the one that `word` becomes with the fewest changes; `None` when all are far off.
pub(super) fn nearest<'a>(word: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.replace('_', "-");
    let limit = (word.chars().count() / 3).max(1) + 1;
    names
        .map(|name| (distance(&word, name), name))
        .min()
        .filter(|(distance, _)| *distance <= limit)
        .map(|(_, name)| name)
}

/// Levenshtein's: insertions, deletions and replacements of characters.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (index, c) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for (at, d) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(c != *d);
            diagonal = row[at + 1];
            row[at + 1] = replaced.min(row[at] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_and_far() {
        let names = || ["root", "state", "cgroup-parent", "log-level"].into_iter();
        assert_eq!(nearest("log_level", names()), Some("log-level"));
        assert_eq!(nearest("cgroup-paren", names()), Some("cgroup-parent"));
        assert_eq!(nearest("rot", names()), Some("root"));
        assert_eq!(nearest("entirely-else", names()), None);
    }
}
