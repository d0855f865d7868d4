//! Splitting and expanding the arguments of Dockerfile instructions: blanks separate words, quotes keep them together, `$name` is replaced.
//!
//! # Spec
//! Dockerfile reference, "Environment replacement" (`$name`, `${name}`, `${name:-word}`, `${name:+word}`) and "Escape".

/// Looks a variable up in `NAME=value` lines.
pub(super) fn lookup<'e>(env: &'e [String], name: &str) -> Option<&'e str> {
    env.iter().find_map(|line| line.split_once('=').filter(|(key, _)| *key == name).map(|(_, value)| value))
}

/// The words of a line, expanded. Errors say what is wrong in words for people.
pub(super) fn split(text: &str, env: &[String]) -> Result<Vec<String>, String> {
    scan(text, env, true)
}

/// The whole line as one word, expanded, quotes taken away.
pub(super) fn one(text: &str, env: &[String]) -> Result<String, String> {
    Ok(scan(text, env, false)?.pop().unwrap_or_default())
}

fn scan(text: &str, env: &[String], is_split: bool) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars().peekable();
    let mut quote: Option<char> = None;
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\'' | '"', Some(open)) if c == open => quote = None,
            ('\'' | '"', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (_, Some('\'')) => word.get_or_insert_default().push(c),
            ('\\', None) => word.get_or_insert_default().push(chars.next().unwrap_or('\\')),
            // Between double quotes only these are escaped; before anything else the backslash stays.
            ('\\', Some(_)) => match chars.peek().copied() {
                Some(next @ ('"' | '$' | '\\')) => {
                    chars.next();
                    word.get_or_insert_default().push(next);
                }
                _ => word.get_or_insert_default().push('\\'),
            },
            ('$', _) => {
                let value = variable(&mut chars, env)?;
                word.get_or_insert_default().push_str(&value);
            }
            (blank, None) if is_split && blank.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err("a quote is not closed".to_owned());
    }
    words.extend(word);
    Ok(words)
}

type Chars<'c> = std::iter::Peekable<std::str::Chars<'c>>;

fn variable(chars: &mut Chars<'_>, env: &[String]) -> Result<String, String> {
    if chars.peek() != Some(&'{') {
        let name = name(chars);
        return Ok(if name.is_empty() { "$".to_owned() } else { lookup(env, &name).unwrap_or_default().to_owned() });
    }
    chars.next();
    let name = name(chars);
    let mut rest = String::new();
    loop {
        match chars.next() {
            Some('}') => break,
            Some(c) => rest.push(c),
            None => return Err("a ${ is not closed".to_owned()),
        }
    }
    let value = lookup(env, &name).filter(|value| !value.is_empty());
    match rest.split_at_checked(2) {
        _ if name.is_empty() => Err("${} names no variable".to_owned()),
        _ if rest.is_empty() => Ok(value.unwrap_or_default().to_owned()),
        Some((":-", word)) => value.map_or_else(|| one(word, env), |value| Ok(value.to_owned())),
        Some((":+", word)) => value.map_or_else(|| Ok(String::new()), |_| one(word, env)),
        _ => Err(format!(
            "${{{name}{rest}}} is not supported; write ${{{name}}}, ${{{name}:-word}} or ${{{name}:+word}}"
        )),
    }
}

fn name(chars: &mut Chars<'_>) -> String {
    let mut name = String::new();
    while let Some(c) = chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
        name.push(c);
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_variables() {
        let env = ["PATH=/bin".to_owned(), "EMPTY=".to_owned()];
        for (text, expect) in [
            ("a b  c", &["a", "b", "c"][..]),
            (r#"a="b c" 'd $PATH' "e $PATH""#, &["a=b c", "d $PATH", "e /bin"]),
            (r"a\ b \$PATH", &["a b", "$PATH"]),
            ("P=/x:$PATH:${PATH}/y", &["P=/x:/bin:/bin/y"]),
            ("${EMPTY:-d} ${NONE:-$PATH} ${PATH:+set}", &["d", "/bin", "set"]),
            (r#""" x$NONE $"#, &["", "x", "$"]),
            (r#""a\nb\"""#, &[r#"a\nb""#]),
            ("", &[]),
        ] {
            assert_eq!(split(text, &env).unwrap(), expect, "{text}");
        }
        assert_eq!(one(r#"a  "b" $PATH"#, &env).unwrap(), "a  b /bin");
        for bad in ["\"a", "'", "${PATH", "${PATH:?x}", "${}"] {
            assert!(split(bad, &env).is_err(), "{bad}");
        }
    }
}
