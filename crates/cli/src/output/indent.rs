//! Re-indents JSON text without reading it into values, so the daemon's order of keys stays.

/// `json` with four blanks per level, as `inspect` prints it. Input that is not JSON comes out as some text; it is not checked.
pub(crate) fn indent_json(json: &str, level: usize) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let mut depth = level;
    let mut characters = json.chars().filter(|c| !c.is_ascii_whitespace() || *c == ' ').peekable();
    let mut in_string = false;
    while let Some(c) = characters.next() {
        if in_string {
            out.push(c);
            match c {
                '\\' => out.extend(characters.next()),
                '"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match c {
            ' ' => {}
            '"' => {
                in_string = true;
                out.push(c);
            }
            '{' | '[' => {
                out.push(c);
                while characters.next_if_eq(&' ').is_some() {}
                if characters.peek().is_none_or(|next| !matches!(next, '}' | ']')) {
                    depth += 1;
                    new_line(&mut out, depth);
                } else {
                    out.extend(characters.next());
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                new_line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                new_line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            _ => out.push(c),
        }
    }
    out
}

fn new_line(out: &mut String, depth: usize) {
    out.push('\n');
    out.extend(std::iter::repeat_n("    ", depth));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_order_and_strings() {
        assert_eq!(
            indent_json(r#"{"b":1,"a":[{"x":"y: {,\" z"},2],"e":{ },"f":[]}"#, 0),
            "{\n    \"b\": 1,\n    \"a\": [\n        {\n            \"x\": \"y: {,\\\" z\"\n        },\n        2\n    ],\n    \"e\": {},\n    \"f\": []\n}"
        );
        assert_eq!(indent_json("3\n", 0), "3");
        assert_eq!(indent_json("[1]", 1), "[\n        1\n    ]");
    }
}
