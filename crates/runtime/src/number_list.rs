//! Lists of small numbers as the kernel and the specification write them (`0-3,7`): CPUs, memory nodes.

/// Numbers from here on are refused: more than any kernel is built for.
const NUMBER_MAX: usize = 1024;

/// The numbers, ascending and each once; `None` for text that is no list.
pub(crate) fn parse(text: &str) -> Option<Vec<usize>> {
    let mut numbers = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| {
            let text = text.trim();
            let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            is_number.then(|| text.parse::<usize>().ok()).flatten().filter(|number| *number < NUMBER_MAX)
        };
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return None;
        }
        numbers.extend(first..=last);
    }
    numbers.sort_unstable();
    numbers.dedup();
    Some(numbers)
}

/// The same as bits, lowest first.
pub(crate) fn mask(numbers: &[usize]) -> Vec<u64> {
    let mut words = Vec::new();
    for number in numbers {
        let word = number / 64;
        if words.len() <= word {
            words.resize(word + 1, 0);
        }
        if let Some(bits) = words.get_mut(word) {
            *bits |= 1_u64 << (number % 64);
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        for (text, expected) in [
            ("0", Some(vec![0])),
            ("0-3,7", Some(vec![0, 1, 2, 3, 7])),
            ("7,0-1,1", Some(vec![0, 1, 7])),
            ("1023", Some(vec![1023])),
            ("1024", None),
            ("3-1", None),
            ("", None),
            ("0,", None),
            ("-1", None),
            ("a", None),
            ("0-99999999999999999999", None),
        ] {
            assert_eq!(parse(text), expected, "{text:?}");
        }
        assert_eq!(mask(&[0, 1, 65]), [3, 2]);
        assert_eq!(mask(&[]), [0_u64; 0]);
    }
}
